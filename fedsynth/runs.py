"""The run directory: where everything that a training run writes has its place, so that it can be resumed and repeated.

It knows names and paths, not what stands in the files: settings come as any dataclass or table.
"""

import fcntl
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fedsynth import __version__, atomic_files, config
from fedsynth.errors import ConfigError, RefusedError

RUNS = Path("runs")
PACKAGES = (
    *("numpy", "pandas", "scipy", "scikit-learn", "nilearn", "torch", "torchvision"),
    *("opacus", "dp-accounting", "flwr", "ray"),
)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run directory and the places in it. Only `config` and `environment` are sure to exist."""

    folder: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.folder / "config.toml"

    @property
    def environment(self) -> Path:
        """Versions, device and seed of the first start."""
        return self.folder / "environment.json"

    @property
    def rounds(self) -> Path:
        """One row per round and site."""
        return self.folder / "rounds.csv"

    @property
    def roles(self) -> Path:
        """A fingerprint of the patients and their roles at the start of training."""
        return self.folder / "roles.sha256"

    @property
    def checkpoints(self) -> Path:
        """Networks by round, and the released generator."""
        return self.folder / "checkpoints"

    @property
    def samples(self) -> Path:
        """Pictures."""
        return self.folder / "samples"

    @property
    def synthetic(self) -> Path:
        """The image set that the generator drew."""
        return self.folder / "synthetic"

    @property
    def report(self) -> Path:
        """The report for people."""
        return self.folder / "report.html"

    def site(self, name: str) -> Path:
        """The folder of the site `name`, whatever characters its name has; no two names share one."""
        return self.folder / "sites" / _as_file_name(name)

    def benchmark(self, name: str) -> Path:
        """The result of the benchmark `name`."""
        return self.folder / "benchmarks" / f"{_as_file_name(name)}.json"

    def settings(self) -> dict[str, Any]:
        """The resolved configuration as a table."""
        return config.parse_toml(self.config)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else works in this run directory during the block; the system frees it even after a kill."""
        with atomic_files.told_when_unwritable(self.folder):
            handle = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                remedy = "wait until it ends, or choose another run directory"
                raise RefusedError("another process works in this run", file=self.folder, remedy=remedy) from None
            yield
        finally:
            os.close(handle)


def create_run(
    settings: Any,
    *,
    generator: str,
    seed: int | None = None,
    device: str = "cpu",
    folder: Path | None = None,
    base: Path = RUNS,
    now: datetime | None = None,
) -> Run:
    """A new run with its configuration and environment written.

    Without `folder` it is `<base>/<date>-<generator>-<n>`, n counting up; a given `folder` must be new or empty.
    """
    now = datetime.now().astimezone() if now is None else now  # the folder carries the user's own date
    run = Run(folder=_next_folder(base, f"{now.date()}-{_as_file_name(generator)}") if folder is None else folder)
    with atomic_files.told_when_unwritable(run.folder):
        run.folder.mkdir(parents=True, exist_ok=True)
        if folder is not None and any(run.folder.iterdir()):
            remedy = "choose another, or resume it if it is a run"
            raise RefusedError("the run directory is not empty", file=run.folder, remedy=remedy)
    facts = {"created": now.astimezone(UTC).isoformat(), "seed": seed, "device": device, **describe_environment()}
    atomic_files.write_text(run.environment, json.dumps(facts, indent=2) + "\n")
    config.save_toml(run.config, settings)  # last: a directory without it is no run
    return run


def open_run(folder: Path) -> Run:
    """The run in `folder`."""
    run = Run(folder=folder)
    if not run.config.is_file():
        problem = f"is not a run: it has no {run.config.name}" if folder.is_dir() else "there is no such run"
        raise ConfigError(problem, file=folder, remedy="give a run directory, or none for the newest")
    return run


def newest_run(base: Path = RUNS) -> Run:
    """The run created last: what every command means that is given none."""
    runs = [Run(folder=file.parent) for file in base.glob("*/config.toml")]
    if not runs:
        raise ConfigError("there is no run yet", file=base, remedy="make one with: fedsynth simulate --sites 4")
    return max(runs, key=lambda run: (_created(run), _natural_order(run.folder.name)))


def describe_environment() -> dict[str, Any]:
    """What a result depends on besides its settings. Names neither the machine nor the user."""
    return {
        "fedsynth": __version__,
        "git": _git_state(),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name)) is not None},
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
    }


def _next_folder(base: Path, stem: str) -> Path:
    """Made here, by a call that only one of several processes can win."""
    pattern = re.compile(re.escape(stem) + r"-(\d+)")
    with atomic_files.told_when_unwritable(base):
        base.mkdir(parents=True, exist_ok=True)
        taken = [int(match[1]) for path in base.iterdir() if (match := pattern.fullmatch(path.name))]
        number = max(taken, default=0) + 1
        while True:
            try:
                (base / f"{stem}-{number}").mkdir()
            except FileExistsError:
                number += 1
            else:
                return base / f"{stem}-{number}"


def _created(run: Run) -> datetime:
    """From the run itself: copying a folder changes its dates. A damaged one counts as older than all others."""
    try:
        return datetime.fromisoformat(json.loads(run.environment.read_text(encoding="utf-8"))["created"]).astimezone(
            UTC
        )
    except (OSError, ValueError, KeyError, TypeError):
        return datetime.min.replace(tzinfo=UTC)


def _natural_order(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def _as_file_name(name: str) -> str:
    if not name:
        raise ConfigError("a name in a run directory must not be empty")
    quoted = quote(name, safe=" ")
    return f"%2E{quoted[1:]}" if quoted.startswith(".") else quoted


@lru_cache(maxsize=len(PACKAGES))
def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@lru_cache(maxsize=1)
def _git_state() -> dict[str, Any] | None:
    """The commit of this checkout and whether its files were changed since; None for an installed fedsynth.

    Asked once per process: what it runs was read when it began.
    """
    package = Path(__file__).resolve().parent
    asked = _git(package, "rev-parse", "--show-toplevel", "HEAD")
    if asked is None or Path(asked.splitlines()[0]) != package.parent:  # an environment inside somebody's own checkout
        return None
    changed = _git(package, "status", "--porcelain", "--untracked-files=no")
    return {"commit": asked.splitlines()[1], "changed": bool(changed)}


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
