"""What an engine costs: the same federation by a bare loop, on the local engine and on Ray, in one run.

    OMP_NUM_THREADS=1 python benchmarks/speed/engines.py [--sites 4,16,64] [--rounds 6] [--engines bare,local,ray]
    OMP_NUM_THREADS=1 python benchmarks/speed/engines.py --many 1000 [--rounds 4]
    OMP_NUM_THREADS=1 python benchmarks/speed/engines.py --simulate [--rounds 4] [--repeats 2]

The first times a model of about 1 MB whose sites take one small step a round, each measurement in a process of its own
with one worker and one thread. Training and writing to disk are timed apart, by wall and by processor: on a busy
machine read the processor's. Syncs are calls after which something is on the disk. The second is the local engine with
many sites and a tiny model. The third compares what `fedsynth simulate` runs by default, at four sites, with a bare
loop of the same steps.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from fedsynth import atomic_files
from fedsynth.data import Header, ImageSet
from fedsynth.data.site_config import Select, SiteEntry, SitesFile, default_sites
from fedsynth.federation import client as work
from fedsynth.federation import round_log
from fedsynth.federation import rounds as server
from fedsynth.federation.egress_log import EgressLog
from fedsynth.federation.engines import process_trees, ray
from fedsynth.federation.settings import FederationSettings
from fedsynth.federation.simulation import begin, open_hospitals, run_rounds
from fedsynth.federation.site_context import simulated_federation
from fedsynth.runs import Run
from fedsynth.training.loss_log import LossLog
from fedsynth.training.random_streams import stream_seed
from fedsynth.training.session import prepare
from fedsynth.training.settings import cpu_threads
from fedsynth.training.trainer import Trainer

SMALL = FederationSettings(generator="dcgan", local_steps=1, batch=2, options={"base": 21})
TINY = replace(SMALL, generator="mlp", batch=1, options={"latent": 4, "hidden": [8, 8], "discriminator_hidden": [8]})
SIZE, PATIENTS = 32, 3


@dataclass(kw_only=True)
class Clock:
    """Wall and processor seconds of one kind of work."""

    wall: float = 0.0
    cpu: float = 0.0

    def around(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, timed."""

        def timed(*arguments: Any, **named: Any) -> Any:
            wall, cpu = time.perf_counter(), time.thread_time()
            try:
                return work(*arguments, **named)
            finally:
                self.wall += time.perf_counter() - wall
                self.cpu += time.thread_time() - cpu

        return timed


@dataclass(kw_only=True)
class Clocks:
    """Training and disk, and when rounds began and ended: (wall, processor, training, disk, syncs) at each moment."""

    training: Clock = field(default_factory=Clock)
    disk: Clock = field(default_factory=Clock)
    syncs: int = 0
    moments: list[tuple[float, ...]] = field(default_factory=list)

    def mark(self) -> None:
        """A round begins, or the last one ended."""
        own = (self.training.wall, self.training.cpu, self.disk.wall, self.disk.cpu, self.syncs)
        self.moments.append((time.perf_counter(), time.process_time(), *own))

    def counted(self, sync: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, counted."""

        def counting(*arguments: Any) -> Any:
            self.syncs += 1
            return sync(*arguments)

        return counting

    def rounds(self) -> dict[str, list[float]]:
        """What each round took, in seconds."""
        keys = ("wall", "cpu", "training_wall", "training_cpu", "disk_wall", "disk_cpu", "syncs")
        steps = np.diff(np.array(self.moments), axis=0)
        return {key: steps[:, i].tolist() for i, key in enumerate(keys)}


@contextmanager
def timed_parts() -> Iterator[Clocks]:
    """Every step and every write of this process is timed during the block."""
    clocks = Clocks()
    places = [
        (clocks.training, Trainer, "_take_step"),
        (clocks.disk, work, "save_state"),
        (clocks.disk, LossLog, "save"),
        (clocks.disk, EgressLog, "record"),
        (clocks.disk, server, "save_checkpoint"),
        (clocks.disk, round_log.RoundLog, "add"),
        (clocks.disk, round_log.RoundLog, "keep"),
        (clocks.disk, atomic_files, "sync_all"),
    ]
    before = [getattr(owner, name) for _, owner, name in places]
    for (clock, owner, name), original in zip(places, before, strict=True):
        setattr(owner, name, clock.around(original))
    fsync, sync_all = os.fsync, atomic_files.sync_all
    os.fsync, atomic_files.sync_all = clocks.counted(fsync), clocks.counted(sync_all)
    try:
        yield clocks
    finally:
        os.fsync = fsync
        for (_, owner, name), original in zip(places, before, strict=True):
            setattr(owner, name, original)


def bare_loop(settings: FederationSettings, run: Run, clocks: Clocks) -> None:
    """What somebody writes who needs nothing but the weights: no messages, no files, no failures."""
    federation = simulated_federation(run.folder)
    with cpu_threads(1):
        trainers = [
            prepare(site.images, settings.training(), streams=stream_seed(settings.seed, "site", site.name)).trainer
            for site in federation.sites
        ]
        weights = trainers[0].family.nets.state_dict()
        clocks.mark()
        for _ in range(settings.rounds):
            states = []
            for trainer in trainers:
                trainer.family.nets.load_state_dict(weights)
                for _ in trainer.run(settings.local_steps):
                    pass
                states.append(trainer.family.nets.state_dict())
            weights = {name: sum(state[name] / len(states) for state in states) for name in weights}
            clocks.mark()


def local(settings: FederationSettings, run: Run, clocks: Clocks) -> None:
    """The local engine with one worker."""

    def watch(progress: server.Progress) -> None:
        if not progress.replies or progress.round == settings.rounds:
            clocks.mark()

    run_rounds(settings, run, workers=1, watch=watch)


def in_this_process(engine: str, settings: FederationSettings, run: Run) -> dict[str, Any]:
    """One measurement of the bare loop or of the local engine."""
    begun, cpu = time.perf_counter(), time.process_time()
    with timed_parts() as clocks:
        (bare_loop if engine == "bare" else local)(settings, run, clocks)
    return {
        "start": clocks.moments[0][0] - begun,
        "first": clocks.moments[1][0] - begun,
        "rounds": clocks.rounds(),
        "total": time.perf_counter() - begun,
        "total_cpu": time.process_time() - cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def on_ray(settings: FederationSettings, run: Run) -> dict[str, Any]:
    """One measurement of Ray with one worker; memory is that of all its processes together."""
    mark = f"{ray.MARK}={(run.folder / ray.HOME).resolve()}"
    begun, first, peak = time.perf_counter(), 0.0, 0.0

    def beat() -> None:
        nonlocal first, peak
        if not first and run.rounds.exists():
            first = time.perf_counter() - begun
        peak = max(peak, sum(_own_megabytes(one.pid) for one in process_trees.marked(mark)))

    run_rounds(settings, run, engine="ray", workers=1, beat=beat)
    total = time.perf_counter() - begun
    written = sorted(path.stat().st_mtime for path in run.checkpoints.glob("round-*.safetensors"))
    return {"first": first, "rounds": {"wall": np.diff(written).tolist()}, "total": total, "peak_mb": peak}


def _own_megabytes(pid: int) -> float:
    """The process's memory, what it shares with others divided among them."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    except (OSError, StopIteration):
        return 0.0


def small_federation(
    folder: Path,
    sites: int,
    rounds: int,
    *,
    like: FederationSettings = SMALL,
    size: int = SIZE,
    patients: int = PATIENTS,
) -> tuple[FederationSettings, Run]:
    """Hospitals of a few patients with one picture of noise each."""
    names = [f"p{i:04d}" for i in range(sites * patients)]
    blank = {"site": "one", "role": "member", "class": "", "slice": "0"}
    cases = pd.DataFrame([{"case": f"c{name}", "patient": name} | blank for name in names], dtype=str)
    pixels = np.random.default_rng(0).integers(0, 256, (len(names), 1, size, size), dtype=np.uint8)
    header = Header(name="noise", origin="real", channels=("x",), spacing_mm=(1.0, 1.0))
    ImageSet(header=header, cases=cases, images=pixels).save(folder / "set")
    entries = tuple(
        SiteEntry(name=f"site-{i:04d}", select=Select(patient=tuple(names[i * patients : (i + 1) * patients])))
        for i in range(sites)
    )
    settings = replace(like, sites=sites, rounds=rounds)
    with open_hospitals(SitesFile(name="noise", images=folder / "set", site=entries), folder) as hospitals:
        return settings, begin(settings, hospitals, folder / "run")


def default_federation(folder: Path, rounds: int) -> tuple[FederationSettings, Run]:
    """What `fedsynth simulate` takes when it is told nothing, for fewer rounds."""
    settings = FederationSettings(sites=4, rounds=rounds)
    with open_hospitals(default_sites(4), folder) as hospitals:
        return settings, begin(settings, hospitals, folder / "run")


def measure(arguments: argparse.Namespace) -> None:
    """In a process of its own: one engine, one federation; JSON on the last line."""
    with tempfile.TemporaryDirectory(prefix="engines-") as name:
        folder = Path(name)
        if arguments.many:
            settings, run = small_federation(folder, arguments.many, arguments.rounds, like=TINY, size=8, patients=1)
        elif arguments.simulate:
            settings, run = default_federation(folder, arguments.rounds)
        else:
            settings, run = small_federation(folder, int(arguments.sites), arguments.rounds)
        found = on_ray(settings, run) if arguments.one == "ray" else in_this_process(arguments.one, settings, run)
        if run.rounds.exists():
            table = pd.read_csv(run.rounds)
            found["bytes_up"] = float(table.loc[table["round"] == 1, "bytes_up"].sum())
        print(json.dumps(found))


def ask(engine: str, sites: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """The same measurement in a fresh process."""
    command = [sys.executable, __file__, "--one", engine, "--sites", str(sites), "--rounds", str(arguments.rounds)]
    command += ["--simulate"] if arguments.simulate else []
    command += ["--many", str(arguments.many)] if arguments.many else []
    said = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return dict(json.loads(said.stdout.splitlines()[-1]))


def beyond(found: dict[str, Any], kind: str) -> float:
    """Milliseconds of a round, after the first, that were neither training nor disk."""
    rounds = found["rounds"]
    parts = zip(rounds[kind], rounds[f"training_{kind}"], rounds[f"disk_{kind}"], strict=True)
    return 1000 * float(statistics.median([whole - training - disk for whole, training, disk in list(parts)[1:]]))


def table(arguments: argparse.Namespace) -> None:
    """Sites by engines."""
    print(
        "| sites | engine | to the end of round 1, s | a round, ms | of it training | of it disk | rest, wall "
        "| disk, processor | rest, processor | syncs a round | peak MB | MB up a round |"
    )
    print("|" + "---|" * 12)
    for sites in map(int, arguments.sites.split(",")):
        for engine in arguments.engines.split(","):
            found = ask(engine, sites, arguments)
            rounds = found["rounds"]
            whole = 1000 * statistics.median(rounds["wall"][1:] or rounds["wall"])
            if engine == "ray":
                parts = [""] * 6
            else:
                training = 1000 * statistics.median(rounds["training_wall"][1:])
                disk = 1000 * statistics.median(rounds["disk_wall"][1:])
                written = 1000 * statistics.median(rounds["disk_cpu"][1:])
                values = (training, disk, beyond(found, "wall"), written, beyond(found, "cpu"))
                parts = [f"{value:.1f}" for value in values] + [f"{statistics.median(rounds['syncs'][1:]):.0f}"]
            up = f"{found['bytes_up'] / 1e6:.1f}" if "bytes_up" in found else ""
            cells = [sites, engine, f"{found['first']:.2f}", f"{whole:.0f}", *parts, f"{found['peak_mb']:.0f}", up]
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def many(arguments: argparse.Namespace) -> None:
    """The local engine with very many sites."""
    found = ask("local", arguments.many, arguments)
    wall, cpu = (statistics.median(found["rounds"][kind][1:]) for kind in ("wall", "cpu"))
    print("| sites | to the end of round 1, s | a round, s | of processor, s | peak MB |")
    print("|---|---|---|---|---|")
    print(f"| {arguments.many} | {found['first']:.0f} | {wall:.1f} | {cpu:.1f} | {found['peak_mb']:.0f} |")


def against_bare(arguments: argparse.Namespace) -> None:
    """The local engine over the bare loop, in turn."""
    found: dict[str, list[dict[str, Any]]] = {"bare": [], "local": []}
    for _ in range(arguments.repeats):
        for engine, told in found.items():
            told.append(ask(engine, 4, arguments))
    print("| four sites, one worker | bare loop, s | local engine, s | ratio |")
    print("|---|---|---|---|")
    for kind, name in (("total", "wall"), ("total_cpu", "processor")):
        bare, ours = (min(one[kind] for one in found[engine]) for engine in ("bare", "local"))
        print(f"| {name}, the faster of {arguments.repeats} | {bare:.1f} | {ours:.1f} | {ours / bare:.3f} |")


def main() -> None:
    """Read the options, measure, print tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", default="4,16,64")
    parser.add_argument("--engines", default="bare,local,ray")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--simulate", action="store_true")
    parser.add_argument("--many", type=int, default=0, metavar="SITES")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        measure(arguments)
        return
    load = os.getloadavg()[0]
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, load {load:.1f} at the start\n")
    (many if arguments.many else against_bare if arguments.simulate else table)(arguments)


if __name__ == "__main__":
    main()
