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

from fedsynth import files
from fedsynth.config import to_toml
from fedsynth.errors import ConfigError, FedSynthError, RefusedError
from fedsynth.images import ImageSet
from fedsynth.images.check import HEADER
from fedsynth.study.suite_file import Cell, Suite, options

CELLS, DATA, FAILED, SUITE, COMMANDS = "cells", "data", "failed.txt", "suite.toml", "commands.txt"
BAD_INPUT = 2

OnStep = Callable[[str, str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A cell's run directory, or why there is no whole one."""

    cell: Cell
    run: Path
    failed: str = ""


def spending(suite: Suite, data: ImageSet) -> float:
    """The epsilon that all private cells together take from each patient; phantoms have nothing to lose."""
    return 0.0 if data.header.phantoms else sum(cell.epsilon for cell in suite.cells())


def make_data(suite: Suite, out: Path) -> Path:
    """The image set of the suite; phantoms are made once."""
    if suite.images is not None:
        return suite.images
    folder = out / DATA
    if not (folder / HEADER).is_file():
        code, said = _children.run(["phantom", str(folder), *options(suite.phantom)])
        if code:
            raise FedSynthError(f"the phantoms could not be made: {_last_line(said)}", file=folder)
    return folder


def run_suite(
    suite: Suite,
    out: Path,
    *,
    jobs: int = 1,
    spend: bool = False,
    on_step: OnStep = lambda cell, step, done, total: None,
) -> list[Outcome]:
    """Run what is missing and give every cell's outcome. `on_step` is told cell, step, how many are done, of how many.

    On real patients the private cells' summed budget must be accepted with `spend` before any of them starts.
    """
    _claim(suite, out)
    data = make_data(suite, out)
    total = spending(suite, ImageSet.load(data, every_voxel=False))
    if total and not spend:
        problem = f"the private cells together spend epsilon {total:g} of every patient"
        raise RefusedError(problem, remedy="say --spend if that is meant")
    cells = list(suite.cells())
    count, lock, done = sum(len(cell.commands(data, out)) for cell in cells), Lock(), [0]

    def told(cell: str, step: str, finished: bool) -> None:
        with lock:
            done[0] += finished
            on_step(cell, step, done[0], count)

    with ThreadPoolExecutor(max(1, jobs)) as pool, _children.ended_with_us(pool):
        return list(pool.map(lambda cell: _run_cell(cell, data, out / CELLS / cell.name, told), cells))


def _claim(suite: Suite, out: Path) -> None:
    """A folder belongs to one suite: cells of another would stand in its table."""
    text, path = to_toml(suite), out / SUITE
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        remedy = "give another --out, or remove the folder"
        raise ConfigError("the folder holds another suite, or another version of this one", file=out, remedy=remedy)
    if not path.is_file():
        if out.is_dir() and any(out.iterdir()):
            raise ConfigError("the folder is not empty and holds no suite", file=out, remedy="give another --out")
        files.write_text(path, text)


def _run_cell(cell: Cell, data: Path, run: Path, told: Callable[[str, str, bool], None]) -> Outcome:
    """All steps of a cell that have left nothing yet. Without images there is nothing to measure."""
    commands = cell.commands(data, run)
    note = run.with_name(f"{run.name}-{FAILED}")
    note.unlink(missing_ok=True)
    files.write_text(run.with_name(f"{run.name}-{COMMANDS}"), _as_typed(commands.values()))
    reasons: list[str] = []
    for mark, command in commands.items():
        measures = command[0] == "benchmark"
        name = command[1] if measures else command[0]
        told(cell.name, name, False)
        if not (run / mark).is_file():
            if reason := _step(command, run / mark, run):
                reasons.append(f"{name}: {reason}")
                files.write_text(note, "\n".join(reasons) + "\n")
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


class _Children:
    """The processes at work. When this one is stopped they are too, and no further one begins."""

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


_children = _Children()


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("fedsynth: ") if lines else ""


def _as_typed(commands: Iterable[Sequence[str]]) -> str:
    return "".join(f"fedsynth {shlex.join(command)}\n" for command in commands)
