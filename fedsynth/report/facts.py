"""What a run directory says about one way of sharing: a row of the privacy/utility table.

A number that the run does not have is a cell without a value that says why.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fedsynth.benchmark.belonging import synthetic_hash
from fedsynth.benchmark.score import Result, Score, load_result
from fedsynth.config import parse_toml
from fedsynth.errors import FedSynthError
from fedsynth.privacy.statement import statement
from fedsynth.report.hospitals import Hospitals, hospitals_of
from fedsynth.run import Run, open_run
from fedsynth.study.suite import SUITE, is_trained, runs_in
from fedsynth.training.checkpoint import CARD

BENCHMARKS = ("memorization", "membership", "audit", "segmentation", "classification", "fidelity", "readers")
PLAIN, INSECURE = "not private", "NOT PRIVATE (repeatable randomness)"
NOT_RUN, OTHER_SET = "not run", "of another set"
UNFINISHED = "not finished"
NO_BETTER = "no better than knowing nothing"
ELSEWHERE = "the set was made elsewhere, and nothing here says how"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What stands in a table: text, the number behind it with interval, baseline and control, or why there is none."""

    text: str
    value: float | None = None
    why: str = ""
    low: float | None = None
    high: float | None = None
    control: float | None = None
    baseline: float | None = None

    @property
    def bare(self) -> str:
        """The text without what stands in brackets behind the number."""
        return self.text.partition(" (")[0]

    @property
    def knows_nothing(self) -> bool:
        """The interval holds the baseline or lies below it: no better than knowing nothing."""
        low = self.value if self.low is None else self.low
        return low is not None and self.baseline is not None and low <= self.baseline


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that the table and the report say about one run. `public`: it was trained on phantoms alone.

    `hospitals` is who trained, None for one holder of all images; `steps` are those of each. `strange` are benchmarks
    whose result is of another synthetic set than the run has now: they are not among the `results`. `failed` are steps
    of a suite that left nothing, and why; of an `unfinished` cell nothing else is known.
    """

    run: Run
    settings: Mapping[str, Any]
    cells: Mapping[str, Cell]
    results: Mapping[str, Result] = field(default_factory=dict)
    damaged: tuple[str, ...] = ()
    public: bool = False
    hospitals: Hospitals | None = None
    steps: int | None = None
    strange: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    unfinished: bool = False


COLUMNS = {
    "run": "run",
    "generator": "generator",
    "federation": "federation",
    "epsilon": "epsilon per patient",
    "cumulative": "all runs",
    "audit": "audit: at least",
    "verdict": "memorization",
    "copied": "copied share",
    "detectable": "smallest detectable",
    "membership": "membership AUC",
    "dice": "Dice (knowing nothing)",
    "dice_ratio": "Dice, of real",
    "false_alarm": "false alarms in healthy (real)",
    "accuracy": "accuracy (knowing nothing)",
    "accuracy_ratio": "accuracy, of real",
    "kid": "KID, own filters (real)",
    "readers": "readers told apart",
    "megabytes": "MB exchanged",
    "seconds": "seconds",
}
"""The columns of the table, by their short names. In brackets: what stands in brackets behind the number, which is what
knowing nothing gives, or what real images give in the synthetic ones' place."""

COLUMNS_OF = {
    "memorization": ("verdict", "copied", "detectable"),
    "membership": ("membership",),
    "segmentation": ("dice", "dice_ratio", "false_alarm"),
    "classification": ("accuracy", "accuracy_ratio"),
    "fidelity": ("kid",),
    "readers": ("readers",),
}
"""Which of them each benchmark of a synthetic set fills."""


def read_facts(folder: Path, *, arm: str = "synthetic") -> Facts:
    """The row of the run in `folder`; utility is that of `arm`, with the augmentation that was used, if any.

    A folder with results of benchmarks and no run in it is of a set that was made elsewhere.
    """
    if not Run(folder=folder).config.is_file() and any(_elsewhere(folder, name).is_file() for name in BENCHMARKS):
        return _facts_elsewhere(folder, arm)
    run = open_run(folder)
    if not (run.checkpoints / CARD).is_file():
        raise FedSynthError("the run is not finished", file=run.folder, remedy="resume it with --resume")
    settings = run.settings()
    found, damaged = _results({name: run.benchmark(name) for name in BENCHMARKS})
    strange = _strange(run, found)
    results = {name: result for name, result in found.items() if name not in strange}
    rounds, card = _rounds(run), parse_toml(run.checkpoints / CARD)
    hospitals = hospitals_of(run.folder, settings, rounds)
    cells = {
        "run": Cell(text=run.folder.name),
        "generator": Cell(text=str(settings.get("generator", "?"))),
        "federation": _federation(settings, hospitals),
        **_privacy(run, settings, rounds, hospitals),
        **_leakage(results),
        **_utility(results, arm),
        "megabytes": _traffic(rounds, settings),
        "seconds": _seconds(rounds, private=bool(settings.get("privacy"))),
    } | {column: _of_another_set(name) for name in strange for column in COLUMNS_OF.get(name, ())}
    return Facts(
        run=run,
        settings=settings,
        cells=cells,
        results=results,
        damaged=damaged,
        public=bool(card.get("public", False)),
        hospitals=hospitals,
        steps=card.get("steps"),
        strange=strange,
    )


def read_rows(folder: Path, *, arm: str = "synthetic") -> list[Facts]:
    """The row of a run, or a row for each cell of a suite, whether or not it came to its end."""
    found = []
    for run, failed in runs_in(folder).items():
        if (folder / SUITE).is_file() and not is_trained(run):
            found.append(unfinished_facts(run, failed))
        else:
            found.append(replace(read_facts(run, arm=arm), failed=failed))
    return found


def unfinished_facts(run: Path, failed: Mapping[str, str]) -> Facts:
    """A cell of which there is nothing but what went wrong, if anything."""
    said = "; ".join(f"{step}: {why}" if why else step for step, why in failed.items())
    cells = dict.fromkeys(COLUMNS, Cell(text=NOT_RUN, why=NOT_RUN))
    cells |= {"run": Cell(text=run.name), "generator": Cell(text=f"failed: {said}" if said else UNFINISHED)}
    return Facts(run=Run(folder=run), settings={}, cells=cells, failed=failed, unfinished=True)


def _facts_elsewhere(folder: Path, arm: str) -> Facts:
    """What can be said of a set of which nobody here knows how it was made."""
    results, damaged = _results({name: _elsewhere(folder, name) for name in BENCHMARKS})
    unknown = Cell(text="?", why=ELSEWHERE)
    told = {"run": Cell(text=folder.name), "generator": Cell(text="made elsewhere"), "federation": unknown}
    told |= dict.fromkeys(("epsilon", "cumulative", "megabytes", "seconds"), unknown)
    cells = {**told, **_leakage(results), **_utility(results, arm)}
    return Facts(run=Run(folder=folder), settings={}, cells=cells, results=results, damaged=damaged)


def _elsewhere(folder: Path, name: str) -> Path:
    """Where a benchmark of two sets writes its result when it is told to write into `folder`."""
    return folder / f"{name}.json"


def _results(paths: Mapping[str, Path]) -> tuple[dict[str, Result], tuple[str, ...]]:
    found, damaged = {}, []
    for name, path in paths.items():
        if path.is_file():
            try:
                found[name] = load_result(path)
            except FedSynthError as error:
                damaged.append(str(error))
    return found, tuple(damaged)


def _strange(run: Run, found: Mapping[str, Result]) -> tuple[str, ...]:
    """The benchmarks that were not held on the set that lies in the run now; nobody knows where none lies there."""
    measured = {name: r.inputs["synthetic"].sha256 for name, r in found.items() if "synthetic" in r.inputs}
    own = synthetic_hash(run) if measured else ""
    return tuple(name for name, one in measured.items() if own and one != own)


def _of_another_set(name: str) -> Cell:
    return Cell(text=OTHER_SET, why=f"{name} was measured on another set than the one in the run: run it again")


def _rounds(run: Run) -> list[dict[str, str]]:
    if not run.rounds.is_file():
        return []
    with run.rounds.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _federation(settings: Mapping[str, Any], hospitals: Hospitals | None) -> Cell:
    if hospitals is None:
        return Cell(text="pooled")
    names = {"average": str(settings.get("strategy", "fedavg")), "none": "each alone"}
    way = names.get(str(settings["federation"]), str(settings["federation"]))
    return Cell(text=f"{way}, {hospitals}" if hospitals.asked else way, why=hospitals.why)


def _privacy(
    run: Run, settings: Mapping[str, Any], rounds: list[dict[str, str]], hospitals: Hospitals | None
) -> dict[str, Cell]:
    declared = settings.get("privacy")
    if not declared:
        return {"epsilon": Cell(text=PLAIN), "cumulative": Cell(text=PLAIN)}
    if declared.get("insecure-seed") is not None:
        return {"epsilon": Cell(text=INSECURE), "cumulative": Cell(text=INSECURE)}
    spent = [float(row["epsilon"]) for row in rounds if row.get("epsilon")]
    here = max(spent) if spent else float(declared["epsilon"])
    return {"epsilon": Cell(text=f"{here:.3g}", value=here), "cumulative": _cumulative(run, declared, hospitals)}


def _cumulative(run: Run, declared: Mapping[str, Any], hospitals: Hospitals | None) -> Cell:
    """What the patient who paid most has spent over all runs; with a reason where that is a part of it at best."""
    store = Path(declared["store"]) if "store" in declared else None
    try:
        found = statement(run.folder, store=store)["per_site"]
    except FedSynthError:
        return Cell(text="-", why="no ledger: phantoms need none, and a hospital's own stays with it")
    without = [name for name in (hospitals.trained if hospitals else ()) if name not in found]
    unknown = [f"the ledger of {', '.join(without)} is not here"] if without else []
    unknown += [one["why"] for one in found.values() if "why" in one]
    totals = [one["epsilon"] for one in found.values()]
    if not totals or None in totals:
        return Cell(text="?", why="; ".join(unknown) or "some run had no guarantee at all")
    most = max(totals)
    return Cell(text=f"at least {most:.3g}" if unknown else f"{most:.3g}", value=most, why="; ".join(unknown))


def _leakage(results: Mapping[str, Result]) -> dict[str, Cell]:
    memory = results.get("memorization")
    verdict = Cell(text=NOT_RUN, why=NOT_RUN) if memory is None else Cell(text=str(memory.verdict))
    return {
        "audit": _cell(results.get("audit"), "epsilon_lower_bound", interval=False),
        "verdict": verdict,
        "copied": _cell(memory, "copied_share"),
        "detectable": _cell(memory, "minimal_detectable_share", interval=False),
        "membership": _strongest(results.get("membership")),
    }


def _strongest(result: Result | None) -> Cell:
    """The attack that told members apart best: the worst case is what a hospital asks for."""
    name = "" if result is None else str(result.details.get("strongest", ""))
    cell = _cell(result, name)
    return cell if cell.value is None else Cell(text=f"{cell.text} ({name})", value=cell.value)


def _utility(results: Mapping[str, Result], arm: str) -> dict[str, Cell]:
    segmentation, classification = results.get("segmentation"), results.get("classification")
    return {
        "dice": _beside_nothing(_cell(segmentation, *_names("dice", arm))),
        "dice_ratio": _cell(segmentation, *_names("dice_ratio", arm)),
        "false_alarm": _beside_real(_cell(segmentation, *_names("false_alarm", arm))),
        "accuracy": _beside_nothing(_cell(classification, *_names("accuracy", arm))),
        "accuracy_ratio": _cell(classification, *_names("accuracy_ratio", arm)),
        "kid": _beside_real(_cell(results.get("fidelity"), "kid/filters")),
        "readers": _cell(results.get("readers"), "accuracy"),
    }


def _beside_nothing(cell: Cell) -> Cell:
    if cell.value is None or cell.baseline is None:
        return cell
    verdict = f", {NO_BETTER}" if cell.knows_nothing else ""
    return replace(cell, text=f"{cell.text} ({cell.baseline:.3g}){verdict}")


def _beside_real(cell: Cell) -> Cell:
    return (
        cell if cell.value is None or cell.control is None else replace(cell, text=f"{cell.text} ({cell.control:.3g})")
    )


def _names(measure: str, arm: str) -> tuple[str, str]:
    return f"{measure}/{arm}", f"{measure}/{arm}+augmentation"


def _cell(result: Result | None, *names: str, interval: bool = True) -> Cell:
    """The first of the named scores that the result has."""
    if result is None:
        return Cell(text=NOT_RUN, why=NOT_RUN)
    score = next((result.scores[name] for name in names if name in result.scores), None)
    if score is None:
        return Cell(text="-", why=f"{result.benchmark} did not measure it")
    if score.value is None:
        return Cell(text="?", why=score.why)
    text = _text(score) if interval else f"{score.value:.3g}"
    cell = replace(Cell(text=text, value=score.value), low=score.low, high=score.high)
    return replace(cell, control=score.control, baseline=score.baseline)


def _text(score: Score) -> str:
    assert score.value is not None
    if score.low is None or score.high is None:
        return f"{score.value:.3g}"
    return f"{score.value:.3g} [{score.low:.3g}, {score.high:.3g}]"


def _traffic(rounds: list[dict[str, str]], settings: Mapping[str, Any]) -> Cell:
    if "federation" not in settings:
        return Cell(text="images pooled", why="a pooled run moves the images themselves")
    total = sum(int(row[name] or 0) for row in rounds for name in ("bytes_up", "bytes_down")) / 1e6
    return Cell(text=f"{total:.1f}", value=total)


def _seconds(rounds: list[dict[str, str]], *, private: bool) -> Cell:
    times: dict[str, float] = {}
    for row in rounds:
        if row.get("seconds"):
            times[row["round"]] = max(times.get(row["round"], 0.0), float(row["seconds"]))
    if not times:
        why = (
            "private runs are not timed: time tells how many patients were drawn" if private else "nothing was trained"
        )
        return Cell(text="-", why=why)
    total = sum(times.values())
    return Cell(text=f"{total:.0f}", value=total)
