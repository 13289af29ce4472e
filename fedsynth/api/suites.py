"""A grid of runs, measured alike: the image sets that it needs, then the steps of all its cells."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from fedsynth import atomic_files
from fedsynth.api.suite_processes import Processes
from fedsynth.api.suite_schedule import Outcome, record, run_jobs
from fedsynth.data import ImageSet
from fedsynth.data.format import HEADER
from fedsynth.errors import FedSynthError, RefusedError
from fedsynth.experiments.suite import DATA, FAILED, LOG, Job, claim, data_steps, jobs_of, spending
from fedsynth.experiments.suite_config import Suite

Engine = Literal["local", "ray"]
OnStep = Callable[[str, str, int, int], None]


def run_suite(
    suite: Suite,
    out: Path,
    *,
    jobs: int = 1,
    engine: Engine = "local",
    spend: bool = False,
    on_step: OnStep = lambda cell, step, done, total: None,
) -> list[Outcome]:
    """Run what is missing and give every cell's outcome. `on_step` is told cell, step, how many are done, of how many.

    On real patients the private cells' summed budget must be accepted with `spend` before any of them starts. `jobs`
    steps are at work at a time. With the engine `ray` cells are Ray tasks, on the machines of $RAY_ADDRESS if it is
    set: they all need this folder.
    """
    claim(suite, out)
    data = make_data(suite, out)
    total = spending(suite, ImageSet.load(data, every_voxel=False))
    if total and not spend:
        problem = f"the private cells together spend epsilon {total:g} of every patient"
        raise RefusedError(problem, remedy="say --spend if that is meant")
    way = _on_ray if engine == "ray" else _in_processes
    return way(jobs_of(suite, out), max(1, jobs), on_step)


def make_data(suite: Suite, out: Path) -> Path:
    """The image set of the suite, and beside it those of cells with fewer members; each is made once."""
    with Processes() as processes:
        for folder, step in data_steps(suite, out).items():
            if (folder / HEADER).is_file():
                continue
            processes.begin((folder.name, step.name), step, out / f"{folder.name}-{LOG}")
            for (name, _), ended in processes.ended():
                record(out, name, step, ended)
                if ended.failed:
                    raise FedSynthError(f"the images could not be made: {ended.failed}", file=folder)
    return suite.images or out / DATA


def _in_processes(work: Sequence[Job], at_once: int, on_step: OnStep) -> list[Outcome]:
    count, done = sum(len(job.work) for job in work), 0

    def told(cell: str, step: str, finished: bool) -> None:
        nonlocal done
        done += finished
        on_step(cell, step, done, count)

    return run_jobs(work, at_once=at_once, told=told)


def run_cell(job: Job) -> Outcome:
    """All steps of a cell that have left nothing yet, one after the other."""
    (outcome,) = run_jobs([job])
    return outcome


def _on_ray(work: Sequence[Job], at_once: int, on_step: OnStep) -> list[Outcome]:
    """Every cell as a task. What is done is seen from the files, which is all that the tasks have in common with us."""
    from fedsynth.federation.engines.ray_tasks import run_tasks

    count, told = sum(len(job.work) for job in work), set()

    def beat() -> None:
        for one in [(job.cell.name, step) for job in work for step in job.done]:
            if one not in told:
                told.add(one)
                on_step(*one, len(told), count)

    outcomes = run_tasks(run_cell, work, at_once=at_once, beat=beat)
    return [_lost(job, one) if isinstance(one, str) else one for job, one in zip(work, outcomes, strict=True)]


def _lost(job: Job, why: str) -> Outcome:
    reason = f"the Ray task was lost: {why}"
    atomic_files.write_text(job.beside(FAILED), reason + "\n")
    return Outcome(cell=job.cell, run=job.run, failed=reason)
