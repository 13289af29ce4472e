"""What the images are good for, in words: what they teach beside real images, and what patients added to that."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedsynth.evaluation.score import Result, Score
from fedsynth.reporting.rounding import rounded
from fedsynth.reporting.summary import Facts
from fedsynth.reporting.table_cells import NO_BETTER, Cell

TASKS = {"segmentation": "dice", "classification": "accuracy"}
"""What can be learned from images, by benchmark, and the column that says how well."""

GAINED = "patients added"
NOBODY = {"public": "public images", "placebo": "the placebo"}
"""Arms on images that no patient has touched."""

ALIKE = 0.1
"""Images are one image over and over where pairs differ by less than this share of what real pairs differ by."""


@dataclass(frozen=True, kw_only=True)
class Use:
    """`measured` tasks, those that `failed`, and why: the reasons of all tasks together, the gravest first.

    `unknown` says which measurements have nothing to be compared with.
    """

    measured: Sequence[str]
    failed: Sequence[str]
    reasons: Sequence[str]
    unknown: Sequence[str]

    @property
    def none(self) -> bool:
        """Nothing that was measured works."""
        return bool(self.reasons) and len(self.failed) == len(self.measured)


def use_of(facts: Facts) -> Use:
    """What speaks against the images' use; what was not measured is not said to fail.

    A set that shows one picture over and over holds no copy of a patient, and passes every test of leakage.
    """
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
    unknown = [said for name in measured if (said := _compared_with_nothing(facts, name))]
    return Use(
        measured=measured, failed=[name for name in measured if name in failed], reasons=reasons, unknown=unknown
    )


def share_of_real(of: Cell | Score) -> str:
    """A ratio to real images, in percent, with its interval: `91 % (88 to 94 %)`."""
    if of.value is None:
        return ""
    value, low, high = (
        None if share is None else rounded(100 * share, 0, apart_from=(0, 100)) for share in (of.value, of.low, of.high)
    )
    return f"{value} %" if low is None or high is None else f"{value} % ({low} to {high} %)"


def use_in_brief(facts: Facts, headline: str) -> str:
    """Which tasks the images teach, and how much of what real ones teach."""
    use = use_of(facts)
    if use.none:
        told = use.reasons[0] in headline
        return "None that was measured" if told else f"None that was measured: {'; '.join(use.reasons)}"
    good, bad = [], []
    for name, measure in TASKS.items():
        of = facts.cells[f"{measure}_ratio"]
        if name in use.failed:
            bad.append(f"not for {name}")
        elif of.value is not None:
            good.append(f"{name} {share_of_real(of)}")
    taught = [f"{', '.join(good)} of what real images teach"] if good else []
    said = "; ".join([*taught, *bad])
    return _capital(said) or "Not measured"


def use_sentences(facts: Facts) -> list[str]:
    """What networks learn from the images, how varied they are, and what readers see; each with its number."""
    found = []
    for name, measure in TASKS.items():
        if name in facts.results:
            value, of = facts.cells[measure], facts.cells[f"{measure}_ratio"]
            share = "" if of.value is None else f", {share_of_real(of)} of what real images teach"
            better = f", {NO_BETTER}" if value.is_trivial else ""
            nothing = "" if value.baseline is None else f" (best control: {value.baseline:.3g})"
            found.append(f"{_capital(name)}: {measure} {value.bare} on real holdout patients{share}{better}{nothing}.")
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


def patients_added(results: Mapping[str, Result]) -> list[str]:
    """What the patients' own images gave beyond images not derived from members, where those were measured."""
    return [f"What patients gave, {name}, {arm}: {said}." for (name, arm), said in _added(results).items()]


def added_in_brief(results: Mapping[str, Result]) -> str:
    """The verdicts without their numbers, tasks of one verdict together."""
    tasks: dict[str, dict[str, None]] = {}
    for (name, _), said in _added(results).items():
        verdict = "; ".join(dict.fromkeys(one.partition(":")[0] for one in said.split("; ")))
        tasks.setdefault(verdict, {})[name] = None
    return ". ".join(f"{_capital(' and '.join(names))}: {verdict}" for verdict, names in tasks.items())


def _added(results: Mapping[str, Result]) -> dict[tuple[str, str], str]:
    """By benchmark and arm."""
    found: dict[tuple[str, str], list[str]] = {}
    for name in [name for name in TASKS if name in results]:
        for nobody, whose in NOBODY.items():
            for arm, said in results[name].details.get(f"over_{nobody}", {}).items():
                full = f"{said} over {whose}" if said.startswith(GAINED) else said
                found.setdefault((name, arm), []).append(full)
    return {key: "; ".join(said) for key, said in found.items()}


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


def _compared_with_nothing(facts: Facts, name: str) -> str:
    """Without a trivial baseline and real images beside it a score does not say whether the images are of use."""
    missing = ["trivial baseline"] if facts.cells[TASKS[name]].baseline is None else []
    missing += ["ratio to real images"] if facts.cells[f"{TASKS[name]}_ratio"].value is None else []
    return f"{name} has no {' and no '.join(missing)}" if missing else ""


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


def _readers(facts: Facts) -> list[str]:
    if "readers" not in facts.results:
        return []
    result = facts.results["readers"]
    shown = ", ".join(f"{count} {kind}" for kind, count in result.details["shown"].items())
    told = result.scores["accuracy"]
    return [f"Readers told real from synthetic in {told} of the images ({shown}); guessing is right in half of them."]


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"
