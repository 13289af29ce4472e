"""The folder of a suite: its cells and their steps, what of them is done, and which steps failed. It runs nothing.

A step is done when the file that it leaves behind is there: a suite that was stopped goes on where it was.
"""

from dataclasses import dataclass
from pathlib import Path

from fedsynth import atomic_files
from fedsynth.config import load_toml, to_toml
from fedsynth.data import ImageSet
from fedsynth.errors import ConfigError
from fedsynth.experiments.suite_config import PHANTOMS, SOURCE, Cell, Suite
from fedsynth.experiments.suite_steps import Step

CELLS, DATA, SUITE = "cells", "data", "suite.toml"
FAILED, COMMANDS, LOG = "failed.txt", "commands.txt", "log.txt"
"""Beside each cell: which steps failed and why, what a person would type, and what the steps said."""
OTHERS = 1000  # added to the seed of the phantoms: people of whom the suite knows nothing else


@dataclass(frozen=True, kw_only=True)
class Job:
    """A cell with the image set that it is given and the place where it runs."""

    cell: Cell
    data: Path
    run: Path

    @property
    def work(self) -> dict[str, Step]:
        """The steps, by the file that each leaves in the run directory."""
        return self.cell.work(self.data, self.run)

    @property
    def done(self) -> list[str]:
        """The steps that have left their file."""
        return [step.name for mark, step in self.work.items() if (self.run / mark).is_file()]

    def beside(self, name: str) -> Path:
        """A file beside the run directory, of this cell alone."""
        return _beside(self.run, name)


def spending(suite: Suite, data: ImageSet) -> float:
    """The epsilon that all private cells together take from each patient; phantoms have nothing to lose."""
    return 0.0 if data.header.phantoms else sum(cell.epsilon for cell in suite.cells())


def data_steps(suite: Suite, out: Path) -> dict[Path, Step]:
    """What makes the image sets of the cells, by the folder that each leaves."""
    whole, made = suite.images or out / DATA, {}
    if suite.images is None:
        made[whole] = Step(verb="phantom", arguments=(whole,), settings=suite.phantom)
    if any(cell.settings.get(SOURCE) == PHANTOMS for cell in suite.cells()):
        others = {**suite.phantom, "seed": int(suite.phantom.get("seed", 0)) + OTHERS}
        made[out / SOURCE] = Step(verb="phantom", arguments=(out / SOURCE,), settings=others)
    for cell in suite.cells():
        if cell.members is not None:
            few = _data_of(cell, suite, out)
            made[few] = Step(verb="split", arguments=(whole, few), settings={"keep-members": cell.members})
    return made


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
    note = _beside(run, FAILED)
    lines = note.read_text(encoding="utf-8").splitlines() if note.is_file() else []
    return {name: reason.strip() for name, _, reason in (line.partition(":") for line in lines if line.strip())}


def claim(suite: Suite, out: Path) -> None:
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


def _beside(run: Path, name: str) -> Path:
    return run.with_name(f"{run.name}-{name}")


def _data_of(cell: Cell, suite: Suite, out: Path) -> Path:
    whole = suite.images or out / DATA
    return whole if cell.members is None else out / f"{DATA}-{cell.members}-members"
