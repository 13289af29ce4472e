"""Which step of which cell comes next: training before measuring, and long training before short.

Then no processor waits at the end for a step that could have begun before. Each step works in a process of its own.
"""

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedsynth import atomic_files
from fedsynth.api.suite_calls import RESUMED
from fedsynth.api.suite_processes import Ended, Processes
from fedsynth.experiments.suite import COMMANDS, FAILED, LOG, Job
from fedsynth.experiments.suite_config import Cell
from fedsynth.experiments.suite_steps import Step

SECONDS = "seconds.csv"
"""What every step took, in the folder of the suite."""

Told = Callable[[str, str, bool], None]
"""`told(cell, step, finished)`."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A cell's run directory, or why there is no whole one."""

    cell: Cell
    run: Path
    failed: str = ""


@dataclass(kw_only=True)
class _Cell:
    """A cell at work: the steps that have not begun and those at work, by the file that each leaves; what failed."""

    job: Job
    waiting: dict[str, Step]
    at_work: dict[str, Step] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, job: Job) -> "_Cell":
        """Says beside the run what is going to be done."""
        job.beside(FAILED).unlink(missing_ok=True)
        typed = "".join(f"{step.as_typed}\n" for step in job.work.values())
        atomic_files.write_text(job.beside(COMMANDS), typed)
        return cls(job=job, waiting=job.work)

    def ready(self) -> list[str]:
        """What may begin: what trains and draws one after the other, then all benchmarks."""
        if not all(step.measures for step in self.at_work.values()):
            return []
        before = [mark for mark, step in self.waiting.items() if not step.measures]
        return before[:1] or list(self.waiting)

    def end(self, mark: str, failed: str) -> None:
        """A step has ended. Without images there is nothing to measure."""
        step = self.at_work.pop(mark)
        if not failed and not (self.job.run / mark).is_file():
            failed = f"left no {mark}"
        if failed:
            self.failed.append(f"{step.name}: {' '.join(failed.split())}")
            atomic_files.write_text(self.job.beside(FAILED), "\n".join(self.failed) + "\n")
            if not step.measures:
                self.waiting.clear()


def run_jobs(jobs: Sequence[Job], *, at_once: int = 1, told: Told = lambda cell, step, finished: None) -> list[Outcome]:
    """All steps that have left nothing yet, `at_once` at a time."""
    cells = {job.cell.name: _Cell.of(job) for job in jobs}
    with Processes() as processes:
        _begin(cells, processes, at_once, told)
        while len(processes):
            for (name, mark), ended in processes.ended():
                cell = cells[name]
                step = cell.at_work[mark]
                record(cell.job.run.parents[1], name, step, ended)
                cell.end(mark, ended.failed)
                told(name, step.name, True)
            _begin(cells, processes, at_once, told)
    return [Outcome(cell=one.job.cell, run=one.job.run, failed="; ".join(one.failed)) for one in cells.values()]


def _begin(cells: dict[str, _Cell], processes: Processes, at_once: int, told: Told) -> None:
    """Start as many as there is room for, the most urgent first."""
    workers = max(1, (os.cpu_count() or 1) // at_once)
    while len(processes) < at_once and (chosen := _most_urgent(cells)):
        name, mark = chosen
        cell = cells[name]
        step = cell.at_work[mark] = cell.waiting.pop(mark)
        told(name, step.name, False)
        if (cell.job.run / mark).is_file():
            cell.end(mark, "")
            told(name, step.name, True)
            continue
        resumed = step.verb in RESUMED and (cell.job.run / "config.toml").is_file()
        processes.begin((name, mark), step, cell.job.beside(LOG), workers=workers, resume=resumed)


def _most_urgent(cells: dict[str, _Cell]) -> tuple[str, str] | None:
    ready = [(name, mark) for name, cell in cells.items() for mark in cell.ready()]

    def urgency(one: tuple[str, str]) -> tuple[bool, int]:
        cell, measures = cells[one[0]], cells[one[0]].waiting[one[1]].measures
        return measures, 0 if measures else -cell.job.cell.steps

    return min(ready, key=urgency, default=None)


def record(out: Path, name: str, step: Step, ended: Ended) -> None:
    """Add what a step took to the table of the suite."""
    path = out / SECONDS
    heads = ["cell", "step", "seconds", "processor seconds"]
    row = [name, step.name, f"{ended.seconds:.1f}", f"{ended.cpu_seconds:.1f}"]
    with path.open("a", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([row] if file.tell() else [heads, row])
