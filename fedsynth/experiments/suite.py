"""Running a suite: every cell's commands in processes of their own, so that one that fails harms no other.

A step is done when the file that it leaves behind is there: a suite that was stopped goes on where it was.
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Literal

from fedsynth import atomic_files
from fedsynth.config import load_toml, to_toml
from fedsynth.data import ImageSet
from fedsynth.data.format import HEADER
from fedsynth.errors import ConfigError, FedSynthError, RefusedError
from fedsynth.experiments.suite_config import PHANTOMS, SOURCE, Cell, Suite, options

# Commands of fedsynth as processes of their own, which end with the one that started them.


class Children:
    """The processes at work, of several threads. When this one is stopped they are too, and no further one begins."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped, self._lock = False, Lock()

    def run(self, command: Sequence[str]) -> tuple[int, str]:
        """The exit code, and what was said on stderr."""
        settings = {**os.environ, "OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0"}
        with self._lock:
            if self._stopped:
                return 1, "stopped"
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "fedsynth", *command],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                env=settings,
            )
            self._running.add(process)
        said = process.communicate()[1]
        with self._lock:
            self._running.discard(process)
        return process.returncode, said

    @contextmanager
    def ended_with_us(self, pool: ThreadPoolExecutor) -> Iterator[None]:
        """Whatever breaks off the block (Ctrl-C, a polite kill) ends the processes too."""
        self._stopped = False
        try:
            yield
        except BaseException:
            with self._lock:
                self._stopped = True
                for process in self._running:
                    process.terminate()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


CELLS, DATA, FAILED, SUITE, COMMANDS = "cells", "data", "failed.txt", "suite.toml", "commands.txt"
BAD_INPUT = 2
OTHERS = 1000  # added to the seed of the phantoms: people of whom the suite knows nothing else

Engine = Literal["local", "ray"]
OnStep = Callable[[str, str, int, int], None]
Told = Callable[[str, str, bool], None]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A cell's run directory, or why there is no whole one."""

    cell: Cell
    run: Path
    failed: str = ""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A cell with the image set that it is given and the place where it runs."""

    cell: Cell
    data: Path
    run: Path

    @property
    def commands(self) -> dict[str, list[str]]:
        """The steps, by the file that each leaves in the run directory."""
        return self.cell.commands(self.data, self.run)

    @property
    def done(self) -> list[str]:
        """The steps that have left their file."""
        return [step_name(command) for mark, command in self.commands.items() if (self.run / mark).is_file()]


def step_name(command: Sequence[str]) -> str:
    """What a step is called: a benchmark by its own name."""
    return command[1] if command[0] == "benchmark" else command[0]


def spending(suite: Suite, data: ImageSet) -> float:
    """The epsilon that all private cells together take from each patient; phantoms have nothing to lose."""
    return 0.0 if data.header.phantoms else sum(cell.epsilon for cell in suite.cells())


def data_commands(suite: Suite, out: Path) -> dict[Path, list[str]]:
    """What a person would type to make the image sets of the cells, by the folder that each leaves."""
    whole, made = suite.images or out / DATA, {}
    if suite.images is None:
        made[whole] = ["phantom", str(whole), *options(suite.phantom)]
    if any(cell.settings.get(SOURCE) == PHANTOMS for cell in suite.cells()):
        others = {**suite.phantom, "seed": int(suite.phantom.get("seed", 0)) + OTHERS}
        made[out / SOURCE] = ["phantom", str(out / SOURCE), *options(others)]
    for cell in suite.cells():
        if cell.members is not None:
            few = _data_of(cell, suite, out)
            made[few] = ["split", str(whole), str(few), "--keep-members", str(cell.members)]
    return made


def make_data(suite: Suite, out: Path) -> Path:
    """The image set of the suite, and beside it those of cells with fewer members; each is made once."""
    for folder, command in data_commands(suite, out).items():
        if not (folder / HEADER).is_file():
            code, said = _children.run(command)
            if code:
                raise FedSynthError(f"the images could not be made: {_last_line(said)}", file=folder)
    return suite.images or out / DATA


def jobs_of(suite: Suite, out: Path) -> list[Job]:
    """Every cell with its places."""
    return [Job(cell=cell, data=_data_of(cell, suite, out), run=out / CELLS / cell.name) for cell in suite.cells()]


def runs_in(folder: Path) -> dict[Path, dict[str, str]]:
    """Every cell of the suite in `folder`, in order, with its failed steps and why; just `folder` without a suite.

    A cell that failed or is still to be run is among them: a table that left it out would look whole.
    """
    if not (folder / SUITE).is_file():
        return {folder: failed_steps(folder)}
    runs = [job.run for job in jobs_of(load_toml(Suite, folder / SUITE), folder)]
    if not any(is_trained(run) for run in runs):
        raise ConfigError("no cell of the suite has a finished run", file=folder, remedy="run the suite first")
    return {run: failed_steps(run) for run in runs}


def is_trained(run: Path) -> bool:
    """Its generator is there."""
    return (run / "checkpoints" / "generator.toml").is_file()


def failed_steps(run: Path) -> dict[str, str]:
    """Which steps of a cell left nothing when it was last run, and why."""
    note = _note(run)
    lines = note.read_text(encoding="utf-8").splitlines() if note.is_file() else []
    return {name: reason.strip() for name, _, reason in (line.partition(":") for line in lines if line.strip())}


def _note(run: Path) -> Path:
    return run.with_name(f"{run.name}-{FAILED}")


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

    On real patients the private cells' summed budget must be accepted with `spend` before any of them starts. With
    the engine `ray` cells are Ray tasks, on the machines of $RAY_ADDRESS if it is set: they all need this folder.
    """
    _claim(suite, out)
    data = make_data(suite, out)
    total = spending(suite, ImageSet.load(data, every_voxel=False))
    if total and not spend:
        problem = f"the private cells together spend epsilon {total:g} of every patient"
        raise RefusedError(problem, remedy="say --spend if that is meant")
    way = _on_ray if engine == "ray" else _in_processes
    return way(jobs_of(suite, out), jobs, on_step)


def _in_processes(work: Sequence[Job], at_once: int, on_step: OnStep) -> list[Outcome]:
    count, lock, done = sum(len(job.commands) for job in work), Lock(), [0]

    def told(cell: str, step: str, finished: bool) -> None:
        with lock:
            done[0] += finished
            on_step(cell, step, done[0], count)

    with ThreadPoolExecutor(max(1, at_once)) as pool, _children.ended_with_us(pool):
        return list(pool.map(lambda job: run_cell(job, told), work))


def _on_ray(work: Sequence[Job], at_once: int, on_step: OnStep) -> list[Outcome]:
    """Every cell as a task. What is done is seen from the files, which is all that the tasks have in common with us."""
    from fedsynth.federation.engines.ray_tasks import run_tasks

    count, told = sum(len(job.commands) for job in work), set()

    def beat() -> None:
        for one in [(job.cell.name, step) for job in work for step in job.done]:
            if one not in told:
                told.add(one)
                on_step(*one, len(told), count)

    outcomes = run_tasks(run_cell, work, at_once=max(1, at_once), beat=beat)
    return [_lost(job, one) if isinstance(one, str) else one for job, one in zip(work, outcomes, strict=True)]


def _lost(job: Job, why: str) -> Outcome:
    reason = f"the Ray task was lost: {why}"
    atomic_files.write_text(_note(job.run), reason + "\n")
    return Outcome(cell=job.cell, run=job.run, failed=reason)


def _data_of(cell: Cell, suite: Suite, out: Path) -> Path:
    whole = suite.images or out / DATA
    return whole if cell.members is None else out / f"{DATA}-{cell.members}-members"


def _claim(suite: Suite, out: Path) -> None:
    """A folder belongs to one suite: cells of another would stand in its table."""
    path = out / SUITE
    if path.is_file():
        if load_toml(Suite, path) != suite:
            remedy = "give another --out, or remove the folder"
            raise ConfigError("the folder holds another suite, or another version of this one", file=out, remedy=remedy)
        return
    if out.is_dir() and any(out.iterdir()):
        raise ConfigError("the folder is not empty and holds no suite", file=out, remedy="give another --out")
    atomic_files.write_text(path, to_toml(suite))


def run_cell(job: Job, told: Told = lambda cell, step, finished: None) -> Outcome:
    """All steps of a cell that have left nothing yet. Without images there is nothing to measure."""
    cell, run, commands = job.cell, job.run, job.commands
    note = _note(run)
    note.unlink(missing_ok=True)
    atomic_files.write_text(run.with_name(f"{run.name}-{COMMANDS}"), _as_typed(commands.values()))
    reasons: list[str] = []
    for mark, command in commands.items():
        measures, name = command[0] == "benchmark", step_name(command)
        told(cell.name, name, False)
        if not (run / mark).is_file():
            if reason := _step(command, run / mark, run):
                reasons.append(f"{name}: {reason}")
                atomic_files.write_text(note, "\n".join(reasons) + "\n")
            if reason and not measures:
                break
        told(cell.name, name, True)
    return Outcome(cell=cell, run=run, failed="; ".join(reasons))


def _step(command: Sequence[str], mark: Path, run: Path) -> str:
    """Run one command; the reason why it left nothing behind, or nothing. A verdict's exit code is no failure."""
    resumed = command[0] in ("simulate", "train") and (run / "config.toml").is_file()
    if resumed:
        command = [*command, "--resume"]
    code, said = _children.run(command)
    if mark.is_file() and code != BAD_INPUT:
        return ""
    return _last_line(said) or f"ended with code {code}"


_children = Children()


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("fedsynth: ") if lines else ""


def _as_typed(commands: Iterable[Sequence[str]]) -> str:
    return "".join(f"fedsynth {shlex.join(command)}\n" for command in commands)
