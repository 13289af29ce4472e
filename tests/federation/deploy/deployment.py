"""A federation on loopback as processes of their own: start scripts, a mark by which each is found, and kills."""

import csv
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fedsynth import config
from fedsynth.data.phantoms.cohort import make_phantoms
from fedsynth.data.phantoms.settings import PhantomSettings
from fedsynth.federation.deploy.folders import Plan, init
from fedsynth.federation.flower_start import free_port

SITES = ("north", "south", "west")
PATIENCE = 900.0  # seconds; two idle cores need a few minutes for all of it, a crowded machine far more
MARK = "FEDSYNTH_DEPLOYED_TEST"
RUN = """
generator = "dcgan"
sites = 3
rounds = 7
local-steps = 2
count = 6
[options]
base = 8
[privacy]
epsilon = 8.0
patients = 10
expected-batch-size = 3
fakes = 8
"""


def wait_until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            pytest.fail(f"after {seconds:.0f} s: not yet {what}")
        time.sleep(0.5)


@dataclass
class Deployment:
    """One federation on disk, and the processes started for it."""

    out: Path
    port: int
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def run(self) -> Path:
        return self.out / "server" / "run"

    def start(self, name: str, *options: str, **environment: str) -> "subprocess.Popen[bytes]":
        """A party's own start script, as its service unit would call it, with more in its environment."""
        own = {MARK: self.mark, "FEDSYNTH": str(Path(sys.executable).parent / "fedsynth"), "OMP_NUM_THREADS": "1"}
        environment = {**os.environ, **own, **environment}
        with (self.out / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                ["/bin/sh", str(self.out / name / "start.sh"), *options], env=environment, stdout=log, stderr=log
            )
        self.started.append(process)
        return process

    def said(self, name: str) -> str:
        path = self.out / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def rows(self) -> list[dict[str, str]]:
        path = self.run / "rounds.csv"
        return list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []

    def processes(self) -> dict[int, list[int]]:
        """Those that carry the mark, each with its children."""
        marked: dict[int, int] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    environment = (entry / "environ").read_bytes()
                    if f"{MARK}={self.mark}".encode() in environment:
                        status = (entry / "stat").read_text()
                        marked[int(entry.name)] = int(status.rpartition(")")[2].split()[1])
                except OSError:
                    continue
        return {pid: [child for child, parent in marked.items() if parent == pid] for pid in marked}

    def of_the_server(self) -> list[int]:
        """Those that work for the server: its folder stands in how they were called."""
        folder = str(self.out / "server").encode()
        return [pid for pid in self.processes() if folder in _command(pid)]

    def kill(self, process: "subprocess.Popen[bytes]") -> None:
        """Kill -9 it and everything below it: the plug is pulled."""
        tree, queue = self.processes(), [process.pid]
        while queue:
            pid = queue.pop()
            queue += tree.get(pid, [])
            _kill(pid)
        process.wait(30)

    def end(self) -> None:
        while left := self.processes():
            for pid in left:
                _kill(pid)
            for process in self.started:
                process.poll()
            time.sleep(0.2)
        for process in self.started:
            process.wait(30)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _real(folder: Path, seed: int) -> None:
    """Images that fedsynth takes for a real hospital's: phantoms that do not say so, and are nobody else's."""
    settings = PhantomSettings(patients=20, slices=2, size=16, sites=1, seed=seed)
    images = make_phantoms(folder.with_suffix(".phantoms"), settings, workers=1)
    own = {column: f"{folder.name}-" + images.cases[column] for column in ("patient", "case")}
    images.with_cases(images.cases.assign(**own), provenance={}).save(folder)


@contextmanager
def open_deployment(tmp_path: Path, host: str, sites: tuple[str, ...]) -> Iterator[Deployment]:
    made = Deployment(out=tmp_path / "out", port=free_port())
    init(made.out, sites, Plan(host=host, port=made.port))
    server = made.out / "server"
    (server / "federation.toml").write_text(RUN)
    (server / "server.toml").write_text((server / "server.toml").read_text().replace("0.0.0.0", "127.0.0.1"))
    for seed, name in enumerate(sites):
        _real(tmp_path / name, seed)
        site = config.parse_toml(made.out / name / "site.toml") | {"images": str(tmp_path / name)}
        config.save_toml(made.out / name / "site.toml", site)
    try:
        yield made
    finally:
        made.end()


def keep_running(
    deployment: Deployment, hospitals: dict[str, "subprocess.Popen[bytes]"], pause: dict[str, float]
) -> None:
    """What the service units do: start again what ended, after a while."""
    for name, process in hospitals.items():
        if process.poll() is not None and time.monotonic() > pause.get(name, 0):
            pause[name] = time.monotonic() + 15
            hospitals[name] = deployment.start(name)
