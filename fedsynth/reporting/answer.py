"""The question first: may these images be shared? Answered from the results that there are, never beyond them.

It decides nothing that the benchmarks left open: what was not measured is said to be missing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from fedsynth.evaluation.score import Result
from fedsynth.reporting.summary import ELSEWHERE, Facts
from fedsynth.reporting.table_cells import INSECURE, NO_BETTER, NO_GUARANTEE, PLAIN, Cell

# Whether the images are good for anything: what speaks against it, in sentences with the number and its baseline.
#
# A set that shows one picture over and over holds no copy of a patient, and passes every test of leakage.


TASKS = {"segmentation": "dice", "classification": "accuracy"}
"""What can be learned from images, by benchmark, and the column that says how well."""

ADDED = "patients added"
NOBODY = {"public": "public images", "placebo": "the placebo"}
"""Arms on images that no patient has touched."""

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
        for said in (_is_trivial(name, facts.cells[TASKS[name]]), _false_positives(name, facts.cells["slice_dice"])):
            if said:
                reasons.append(said)
                failed.add(name)
    return Use(measured=measured, failed=[name for name in measured if name in failed], reasons=reasons)


def patients_added(results: Mapping[str, Result]) -> list[str]:
    """What the patients' own images gave beyond images not derived from members, where those were measured."""
    found = []
    for name in [name for name in TASKS if name in results]:
        by_arm: dict[str, list[str]] = {}
        for nobody, whose in NOBODY.items():
            for arm, said in results[name].details.get(f"over_{nobody}", {}).items():
                by_arm.setdefault(arm, []).append(f"{said} over {whose}" if said.startswith(ADDED) else said)
        found += [f"What patients gave, {name}, {arm}: {'; '.join(said)}." for arm, said in by_arm.items()]
    return found


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


def _is_trivial(name: str, cell: Cell) -> str:
    return f"{name} is {NO_BETTER}" if cell.is_trivial else ""


def _false_positives(name: str, cell: Cell) -> str:
    """What Dice on ill patients does not see."""
    if name != "segmentation" or not cell.is_trivial:
        return ""
    return f"segmentation is {NO_BETTER} where images without a lesion count"


def _one_image(results: Mapping[str, Result]) -> str:
    score = results["fidelity"].scores.get("ms_ssim") if "fidelity" in results else None
    if score is None or score.value is None or score.control is None or score.control >= 1:
        return ""
    alike = 1 - score.value < ALIKE * (1 - score.control)
    return "they are one image over and over" if alike else ""


QUESTION = "May these images be shared instead of the real ones?"
NOT_PRIVATE_OUTPUT = (
    "Numbers measured on real patients are not themselves private outputs: epsilon covers the generator and what is "
    "drawn from it, not this page."
)

DISCRIMINATOR = "discriminator"

Tone = Literal["yes", "no", "open"]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A short answer, how it is meant, and the sentences behind it."""

    headline: str
    tone: Tone
    sentences: Sequence[str]


def answer(facts: Facts) -> Answer:
    """From what leaked first, then the guarantee, then what the images are good for."""
    if facts.unfinished:
        return Answer(headline=f"Unknown: {facts.cells['generator'].text}", tone="open", sentences=[])
    memory, membership = (facts.results.get(name) for name in ("memorization", "membership"))
    verdict = None if memory is None else memory.verdict
    if verdict == "pass":
        headline, tone = _without_copies(None if membership is None else membership.verdict, use_of(facts))
    else:
        headline, tone = _headline(verdict)
    said = [_leak(facts), *patients_added(facts.results), *_membership(facts), _guarantee(facts), *lineage_lines(facts)]
    sentences = [*said, *_hospitals(facts), *_use(facts)]
    return Answer(headline=headline, tone=tone, sentences=sentences)


def _without_copies(membership: str | None, use: Use) -> tuple[str, Tone]:
    """Tests alone never make a yes: noise is nobody's copy, and who asks wants images that are good for something."""
    if membership == "leak":
        return "No copies were found, but those who were trained on can be told from others", "open"
    if use.reasons:
        how = "of no use that was measured" if use.none else "of no use for everything that was measured"
        return f"No copies were found, but the images are {how}: {'; '.join(use.reasons)}", "open"
    if membership != "pass":
        return "No copies were found; whether those who were trained on can be told from others is not known", "open"
    if not use.measured:
        return "No copies were found; what the images are good for was not measured", "open"
    return "The tests found no copies, and would have found them at the tolerated share", "yes"


def _headline(verdict: str | None) -> tuple[str, Tone]:
    if verdict == "leak":
        return "No: the set holds copies of patients", "no"
    if verdict == "depends":
        return "Not without a guarantee: the images depend on who was trained on", "open"
    if verdict == "invalid":
        return "Unknown: the test itself did not hold its controls", "open"
    if verdict == "inconclusive":
        return "Unknown: there was too little to measure with", "open"
    return "Unknown: the leakage test was not run", "open"


def _leak(facts: Facts) -> str:
    cells = facts.cells
    if "memorization" not in facts.results:
        return "Run the test first: fedsynth benchmark memorization RUN"
    effect = facts.results["memorization"].details.get("effect", {}).get("sentence", "")
    return (
        f"Memorization: {cells['verdict'].text}; copied share {cells['copied'].text}, smallest share that would have "
        f"been noticed {cells['detectable'].text}. {effect}".rstrip()
    )


def _membership(facts: Facts) -> list[str]:
    result = facts.results.get("membership")
    if result is None:
        return []
    strongest = str(result.details.get("strongest", ""))
    whose = (
        " It needs the networks: the server has them, who gets the images has not."
        if strongest == DISCRIMINATOR
        else ""
    )
    said = "" if result.verdict is None else f"{result.verdict}; "
    return [f"Membership: {said}the strongest attack reaches an AUC of {facts.cells['membership'].text}.{whose}"]


def _guarantee(facts: Facts) -> str:
    epsilon = facts.cells["epsilon"]
    if epsilon.why == ELSEWHERE:
        return "Whether there is a guarantee is not known: the set was made elsewhere."
    if epsilon.text == PLAIN:
        return "There is no guarantee: the generator was trained without differential privacy. Tests can only look."
    if epsilon.text == INSECURE:
        return "There is no guarantee: the run's randomness can be repeated."
    if epsilon.text == NO_GUARANTEE:
        return f"There is no guarantee: {epsilon.why}."
    total = facts.cells["cumulative"]
    over_all = f"over all runs {total.text}" if total.value is not None else f"over all runs: {total.why}"
    where = "over the whole lineage of this run" if len(facts.lineage.counted) > 1 else "in this run"
    return f"Guarantee: epsilon {epsilon.text} per patient {where}; {over_all}."


def lineage_lines(facts: Facts) -> list[str]:
    """Where the weights came from, run by run; nothing where the run began from fresh ones."""
    return [f"Lineage: {line}." for line in facts.lineage.history()] if len(facts.lineage.runs) > 1 else []


def _hospitals(facts: Facts) -> list[str]:
    """Who was asked and did not train: the images say nothing of their patients."""
    told = facts.hospitals
    if told is None or len(told.trained) >= told.asked:
        return []
    return [f"Trained by {told}. The images hold nothing of those who did not train."]


def _use(facts: Facts) -> list[str]:
    found = []
    for name, measure in TASKS.items():
        if name in facts.results:
            value, of = facts.cells[measure], facts.cells[f"{measure}_ratio"]
            share = "" if of.value is None else f"; {of.text} of what real images give"
            better = f", {NO_BETTER}" if value.is_trivial else ""
            nothing = "" if value.baseline is None else f" (best control: {value.baseline:.3g})"
            found.append(f"Use, {name}: {measure} {value.bare} on real holdout patients{better}{nothing}{share}.")
    area = facts.cells["fp_area"]
    if area.value is not None:
        beside = "" if area.control is None else f" ({area.control:.3g} after training on real images)"
        found.append(f"False positives: {area.bare} pixels in an image without a lesion{beside}.")
    for name in [name for name in TASKS if name in facts.results]:
        for arm, of in facts.results[name].details.get("trainings", {}).items():
            if of["repeated"]:
                again = f", and {of['collapsed']} again" if of["collapsed"] else ""
                found.append(
                    f"Trainings, {name}, {arm}: {of['repeated']} collapsed and began from another start{again}."
                )
    if not found:
        found.append("What the images are good for was not measured.")
    return [*found, *variety(facts.results), *_readers(facts)]


def _readers(facts: Facts) -> list[str]:
    if "readers" not in facts.results:
        return []
    result = facts.results["readers"]
    shown = ", ".join(f"{count} {kind}" for kind, count in result.details["shown"].items())
    told = result.scores["accuracy"]
    return [f"Readers told real from synthetic in {told} of the images ({shown}); guessing is right in half of them."]
