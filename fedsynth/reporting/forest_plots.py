"""Privacy against utility with intervals, for any number of budgets, and the same by site, class and lesion size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedsynth.evaluation.score import Result, Score
from fedsynth.reporting.answer import Tone, answer
from fedsynth.reporting.figures import COLOURS, Chart, Estimate, Slot, forest
from fedsynth.reporting.short_table import guarantee_in_brief, references
from fedsynth.reporting.summary import Facts
from fedsynth.reporting.usefulness import TASKS, share_of_real

MEASURED = {"segmentation": "Dice", "classification": "Accuracy"}
MARKS: Mapping[Tone, tuple[str, str]] = {"yes": ("o", "#1f6b3f"), "open": ("D", "#8a5a00"), "no": ("X", "#a32a1f")}
SERIES = ("o", "s", "^", "D")
FEWEST = 6
"""Patients in a group that is shown: the value of a smaller one is nearly that of somebody."""


def utility_forests(rows: Sequence[Facts]) -> list[Chart]:
    """One chart per task: every row's ratio to real images, with its guarantee and its verdict on leakage in words."""
    charts = [
        forest(
            [slot for row in rows if (slot := _slot(row, task)) is not None],
            x=_axis(task),
            marks={str(tone): mark for tone, mark in MARKS.items()},
            levels=[("real images (100 %)", 1.0), *_levels(rows, task)],
        )
        for task in TASKS
    ]
    return [chart for chart in charts if chart is not None]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Ratios to real images of one group of patients: by row, where they are known."""

    kind: str
    name: str
    scores: Mapping[str, Score]


def groups(rows: Sequence[Facts], task: str, arm: str = "synthetic") -> list[Group]:
    """By site, class and lesion size, as far as results hold them; groups of too few patients are left out."""
    found: dict[tuple[str, str], dict[str, Score]] = {}
    for row in rows:
        if task in row.results:
            for key, score in _by_group(row.results[task], f"{TASKS[task]}_ratio", arm).items():
                found.setdefault(key, {})[row.run.folder.name] = score
    return [Group(kind=kind, name=name, scores=scores) for (kind, name), scores in found.items()]


def groups_without_ratio(rows: Sequence[Facts], task: str, arm: str = "synthetic") -> list[str]:
    """The groups of enough patients whose ratio is not known, each with the reason: no chart shows them."""
    found: dict[str, None] = {}
    for row in [row for row in rows if task in row.results]:
        for (kind, name), scores in _scores_by_group(row.results[task]).items():
            ratio = _of_arm(scores, f"{TASKS[task]}_ratio", arm)
            if ratio is not None and ratio.value is None and (ratio.n or 0) >= FEWEST:
                of = f" of {row.run.folder.name}" if len(rows) > 1 else ""
                found[f"{kind} {name}{of}, {task}: {ratio.why}"] = None
    return list(found)


def group_forests(rows: Sequence[Facts], task: str) -> list[Chart]:
    """The groups of a task, at most as many rows in one chart as there are markers."""
    found, charts = groups(rows, task), []
    names = [row.run.folder.name for row in rows if any(row.run.folder.name in group.scores for group in found)]
    for start in range(0, len(names), len(SERIES)):
        shown = names[start : start + len(SERIES)]
        marks = {name: (SERIES[n], COLOURS[n]) for n, name in enumerate(shown)}
        slots = [_group_slot(group, shown) for group in found]
        chart = forest(slots, x=_axis(task), marks=marks, levels=[("real images (100 %)", 1.0)], legend=len(names) > 1)
        charts += [] if chart is None else [chart]
    return charts


def _axis(task: str) -> str:
    return f"{MEASURED[task]} after training on synthetic images, of real"


def _slot(row: Facts, task: str) -> Slot | None:
    cell = row.cells[f"{TASKS[task]}_ratio"]
    if cell.value is None:
        return None
    found = answer(row)
    verdicts = [f"{name} {row.results[name].verdict}" for name in ("memorization", "membership") if name in row.results]
    said = "; ".join([f"guarantee: {guarantee_in_brief(row)}", *(verdicts or ["leakage not tested"])])
    estimate = Estimate(value=cell.value, low=cell.low, high=cell.high, series=found.tone)
    return Slot(name=row.run.folder.name, aside=share_of_real(cell), note=said, estimates=[estimate])


def _levels(rows: Sequence[Facts], task: str) -> list[tuple[str, float]]:
    return [(f"{one.name}: {100 * v:.0f} %", v) for one in references(rows, task) if (v := one.score.value) is not None]


def _group_slot(group: Group, shown: Sequence[str]) -> Slot:
    known = {name: score for name, score in group.scores.items() if name in shown and score.value is not None}
    n = max((score.n or 0 for score in known.values()), default=0)
    return Slot(
        name=f"{group.kind}: {group.name}",
        aside=share_of_real(*known.values()) if len(known) == 1 else f"{n} patients",
        estimates=[
            Estimate(value=s.value, low=s.low, high=s.high, series=name)
            for name, s in known.items()
            if s.value is not None
        ],
    )


def _by_group(result: Result, measure: str, arm: str) -> dict[tuple[str, str], Score]:
    found = {key: _of_arm(scores, measure, arm) for key, scores in _scores_by_group(result).items()}
    return {
        key: score
        for key, score in found.items()
        if score is not None and (score.n or 0) >= FEWEST and score.value is not None
    }


def _scores_by_group(result: Result) -> dict[tuple[str, str], Mapping[str, Score]]:
    """By kind of group and name: sites are in a table of their own, the rest in the details."""
    found: dict[tuple[str, str], Mapping[str, Score]] = {("site", name): of for name, of in result.per_site.items()}
    for kind, by_name in result.details.get("subgroups", {}).items():
        for name, of in by_name.items():
            found[kind, name] = {key: Score(**one) for key, one in of.items()}
    return found


def _of_arm(scores: Mapping[str, Score], measure: str, arm: str) -> Score | None:
    names = (f"{measure}/{arm}", f"{measure}/{arm}+augmentation")
    return next((scores[name] for name in names if name in scores), None)
