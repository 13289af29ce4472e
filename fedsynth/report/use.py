"""Whether the images are good for anything: what speaks against it, in sentences with the number and its baseline.

A set that shows one picture over and over holds no copy of a patient, and passes every test of leakage.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedsynth.benchmark.score import Result
from fedsynth.report.cells import NO_BETTER, Cell
from fedsynth.report.facts import Facts

TASKS = {"segmentation": "dice", "classification": "accuracy"}
"""What can be learned from images, by benchmark, and the column that says how well."""

ALIKE = 0.1
"""Images are one image over and over where pairs differ by less than this share of what real pairs differ by."""


@dataclass(frozen=True, kw_only=True)
class Use:
    """`measured` tasks, those that `failed`, and why: the reasons of all tasks together, the gravest first."""

    measured: Sequence[str]
    failed: Sequence[str]
    reasons: Sequence[str]

    @property
    def none(self) -> bool:
        """Nothing that was measured works."""
        return bool(self.reasons) and len(self.failed) == len(self.measured)


def use_of(facts: Facts) -> Use:
    """Read from the results that there are; what was not measured is not said to fail."""
    measured = [name for name, column in TASKS.items() if facts.cells[column].value is not None]
    reasons, failed = [], set()
    if said := _one_image(facts.results):
        reasons.append(said)
        failed |= set(measured)
    for name in measured:
        for said in (_knows_nothing(name, facts.cells[TASKS[name]]), _false_positives(name, facts.cells["slice_dice"])):
            if said:
                reasons.append(said)
                failed.add(name)
    return Use(measured=measured, failed=[name for name in measured if name in failed], reasons=reasons)


def variety(results: Mapping[str, Result]) -> list[str]:
    """How alike the images are and how much of the real variety they cover, beside real images."""
    if "fidelity" not in results:
        return []
    scores = results["fidelity"].scores
    found = []
    if (alike := scores.get("ms_ssim")) is not None and alike.value is not None and alike.control is not None:
        found.append(f"two images are alike by {alike} (real ones by {alike.control:.3g}; one image twice by 1)")
    if (recall := scores.get("recall/filters")) is not None and recall.value is not None and recall.control is not None:
        found.append(f"they cover {recall.value:.3g} of real images (other real ones {recall.control:.3g})")
    return [f"Variety: {'; '.join(found)}."] if found else []


def _knows_nothing(name: str, cell: Cell) -> str:
    return f"{name} is {NO_BETTER}" if cell.knows_nothing else ""


def _false_positives(name: str, cell: Cell) -> str:
    """What Dice on ill patients does not see."""
    if name != "segmentation" or not cell.knows_nothing:
        return ""
    return f"segmentation is {NO_BETTER} where images without a lesion count"


def _one_image(results: Mapping[str, Result]) -> str:
    score = results["fidelity"].scores.get("ms_ssim") if "fidelity" in results else None
    if score is None or score.value is None or score.control is None or score.control >= 1:
        return ""
    alike = 1 - score.value < ALIKE * (1 - score.control)
    return "they are one image over and over" if alike else ""
