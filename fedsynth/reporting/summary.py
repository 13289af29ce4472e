"""What a run directory says about one way of sharing: a row of the privacy/utility table.

A number that the run does not have is a cell without a value that says why.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fedsynth.config import parse_toml, read_table
from fedsynth.errors import FedSynthError
from fedsynth.evaluation.result_owner import synthetic_hash
from fedsynth.evaluation.score import Result, load_result
from fedsynth.experiments.suite import SUITE, is_trained, runs_in
from fedsynth.privacy.lineage import Lineage
from fedsynth.reporting.table_cells import (
    NOT_RUN,
    Cell,
    Hospitals,
    cell_of_another_set,
    delta_of,
    federation_cell,
    hospitals_of,
    leakage_cells,
    privacy_cells,
    seconds_cell,
    traffic_cell,
    utility_cells,
)
from fedsynth.runs import Run, open_run
from fedsynth.training.checkpoint import CARD

BENCHMARKS = (
    *("memorization", "membership", "audit", "audit-mechanism"),
    *("segmentation", "classification", "fidelity", "readers"),
)
UNFINISHED = "not finished"
ELSEWHERE = "the set was made elsewhere, and nothing here says how"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that the table and the report say about one run. `lineage` is where its weights came from.

    `hospitals` is who trained, None for one site with all images; `steps` are those of each. `strange` are benchmarks
    whose result is of another synthetic set than the run has now: they are not among the `results`. `failed` are steps
    of a suite that left nothing, and why; of an `unfinished` cell nothing else is known.
    """

    run: Run
    settings: Mapping[str, Any]
    cells: Mapping[str, Cell]
    results: Mapping[str, Result] = field(default_factory=dict)
    damaged: tuple[str, ...] = ()
    lineage: Lineage = field(default_factory=Lineage)
    hospitals: Hospitals | None = None
    steps: int | None = None
    strange: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    unfinished: bool = False

    @property
    def public(self) -> bool:
        """No patient was ever read, by this run or by those that it goes on from."""
        return self.lineage.public

    @property
    def refuted_by(self) -> Result | None:
        """The audit that found a larger epsilon than the run states, if one did."""
        audits = (self.results.get(name) for name in ("audit", "audit-mechanism"))
        return next((one for one in audits if one is not None and one.verdict == "fail"), None)

    @property
    def delta(self) -> float | None:
        """The delta at which its epsilon holds; None where the run does not say it."""
        return delta_of(self.settings, self.lineage)


COLUMNS = {
    "run": "run",
    "generator": "generator",
    "federation": "federation",
    "epsilon": "epsilon per patient",
    "delta": "delta of epsilon",
    "cumulative": "all runs",
    "audit": "audit: at least",
    "verdict": "memorization",
    "copied": "copied share",
    "recognised": "members recognised",
    "detectable": "smallest detectable",
    "membership": "membership AUC",
    "dice": "Dice, ill (best control)",
    "fp_area": "FP pixels, no lesion (real)",
    "dice_mean": "mean of labels (best control)",
    "slice_dice": "slice Dice, BraTS (best control)",
    "dice_ratio": "Dice ratio to real",
    "dice_skill": "Dice skill",
    "accuracy": "accuracy (majority class)",
    "accuracy_ratio": "accuracy ratio to real",
    "accuracy_skill": "accuracy skill",
    "over_public": "Dice over public images",
    "over_placebo": "Dice over placebo",
    "kid": "KID, own filters (real)",
    "readers": "readers distinguished",
    "megabytes": "MB exchanged",
    "seconds": "seconds",
}
"""The columns of the table, by their short names. In brackets: what stands in brackets behind the number, which is what
the best control gives, or what real images give in the synthetic ones' place. Of skill 0 is the control and 1 real."""

BESIDE_NOBODY = ("over_public", "over_placebo")
COLUMNS_OF = {
    "memorization": ("verdict", "copied", "recognised", "detectable"),
    "membership": ("membership",),
    "segmentation": ("dice", "fp_area", "dice_mean", "slice_dice", "dice_ratio", "dice_skill", *BESIDE_NOBODY),
    "classification": ("accuracy", "accuracy_ratio", "accuracy_skill"),
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
    lineage = read_table(Lineage, card.get("lineage", {}), file=run.checkpoints / CARD)
    cells = {
        "run": Cell(text=run.folder.name),
        "generator": Cell(text=str(settings.get("generator", "?"))),
        "federation": federation_cell(settings, hospitals),
        **privacy_cells(run, settings, rounds, hospitals, lineage),
        **leakage_cells(results),
        **utility_cells(results, arm),
        "megabytes": traffic_cell(rounds, settings),
        "seconds": seconds_cell(rounds, private=bool(settings.get("privacy"))),
    } | {column: cell_of_another_set(name) for name in strange for column in COLUMNS_OF.get(name, ())}
    return Facts(
        run=run,
        settings=settings,
        cells=cells,
        results=results,
        damaged=damaged,
        lineage=lineage,
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
    told |= dict.fromkeys(("epsilon", "delta", "cumulative", "megabytes", "seconds"), unknown)
    cells = {**told, **leakage_cells(results), **utility_cells(results, arm)}
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


def _rounds(run: Run) -> list[dict[str, str]]:
    if not run.rounds.is_file():
        return []
    with run.rounds.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
