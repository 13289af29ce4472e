"""The short table of the report page: few columns in plain words, and what stands beside the rows for comparison."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fedsynth.evaluation.memorization.effect import percent
from fedsynth.evaluation.score import Score
from fedsynth.evaluation.utility.training_arms import AUGMENTED, CONTROLS, NOBODY
from fedsynth.reporting.rounding import rounded
from fedsynth.reporting.summary import ELSEWHERE, Facts
from fedsynth.reporting.usefulness import TASKS, share_of_real

HEADS = {
    "guarantee": ("Guarantee per patient", "epsilon"),
    "copies": ("Copies of patients", "memorization"),
    "members": ("Members told from others", "membership"),
    "segmentation": ("Segmentation: Dice, of real", "dice"),
    "classification": ("Classification: accuracy, of real", "accuracy"),
}
"""By column: its head, and the term that defines it."""

NAMES = {"public": "Public images alone", "placebo": "Placebo"}
CONTROL = "baseline"


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What the rows are compared with: a ratio to real images that no synthetic set of these rows gave."""

    term: str
    name: str
    score: Score


def short_cells(facts: Facts) -> dict[str, str]:
    """The texts of one row, by column."""
    return {
        "guarantee": guarantee_in_brief(facts),
        "copies": copies_in_brief(facts),
        "members": members_in_brief(facts),
        **{name: _taught(facts, name) for name in TASKS},
    }


def references(rows: Sequence[Facts], task: str) -> list[Reference]:
    """Public images, the placebo and the best control of a task, each only where all rows that have it agree on it."""
    found = [_agreed(rows, task, name, (name,)) for name in NOBODY]
    return [one for one in [*found, _agreed(rows, task, CONTROL, CONTROLS)] if one is not None]


def guarantee_in_brief(facts: Facts) -> str:
    """`epsilon 8 at delta 1e-05`, `contradicted by the audit`, `none`, or `not known`."""
    epsilon = facts.cells["epsilon"]
    if facts.refuted_by is not None:
        return "contradicted by the audit"
    if epsilon.value is not None:
        return f"epsilon {epsilon.bare} at {delta_in_brief(facts)}"
    return "not known" if epsilon.why == ELSEWHERE or facts.unfinished else "none"


def delta_in_brief(facts: Facts) -> str:
    """The delta at which an epsilon holds, without which it says nothing."""
    return "a delta that the run does not say" if facts.delta is None else f"delta {facts.delta:g}"


def copies_in_brief(facts: Facts) -> str:
    """The verdict on copies and on dependence, with the copied share or its bound."""
    cell, verdict = facts.cells["copied"], facts.cells["verdict"].text
    said = {
        "pass": "none found",
        "leak": f"{percent(cell.value or 0.0)} of the images",
        "depends": "none found, but the images depend on who was trained on",
        "inconclusive": "not known: too little to measure with",
        "invalid": "not known: the test did not hold its controls",
    }.get(verdict, verdict)
    bounded = cell.high is not None and verdict in ("pass", "depends", "inconclusive")
    return f"{said}; at most {percent(cell.high or 0.0)}" if bounded else said


def members_in_brief(facts: Facts) -> str:
    """Whether members are told from others, with the strongest attack's AUC."""
    result = facts.results.get("membership")
    if result is None:
        return facts.cells["membership"].text
    said = {"leak": "yes", "pass": "no attack did"}.get(str(result.verdict), "not known")
    return "; ".join(filter(None, (said, strongest_attack(facts))))


def strongest_attack(facts: Facts) -> str:
    """Its AUC with the interval, as `AUC 0.76 (0.68 to 0.83)`; nothing where there is none."""
    result = facts.results.get("membership")
    score = None if result is None else result.scores.get(str(result.details.get("strongest", "")))
    if score is None or score.value is None:
        return ""
    value, low, high = (
        None if auc is None else rounded(auc, 2, apart_from=(0.5, 1)) for auc in (score.value, score.low, score.high)
    )
    return f"AUC {value}" if low is None or high is None else f"AUC {value} ({low} to {high})"


def _taught(facts: Facts, task: str) -> str:
    value, of = facts.cells[TASKS[task]], facts.cells[f"{TASKS[task]}_ratio"]
    if value.value is None:
        return value.text
    share = share_of_real(of) or value.bare
    return f"{share}, no better than a trivial baseline" if value.is_trivial else share


def _agreed(rows: Sequence[Facts], task: str, term: str, arms: Iterable[str]) -> Reference | None:
    found = {best[1].value: best for row in rows if (best := _best(row, task, arms)) is not None}
    if len(found) != 1:
        return None
    arm, score = next(iter(found.values()))
    return Reference(term=term, name=NAMES.get(term, f"Best control ({arm})"), score=score)


def _best(row: Facts, task: str, arms: Iterable[str]) -> tuple[str, Score] | None:
    """Of some arms the one with the largest ratio to real images."""
    scores = row.results[task].scores if task in row.results else {}
    names = [(arm, f"{TASKS[task]}_ratio/{arm}{more}") for arm in arms for more in (AUGMENTED, "")]
    known = [(arm, scores[name]) for arm, name in names if name in scores and scores[name].value is not None]
    return max(known, key=lambda one: one[1].value or 0.0, default=None)
