"""What a round costs the server with many sites and a large model: peak memory and time of collecting and averaging.

    OMP_NUM_THREADS=1 python benchmarks/speed/server_memory.py [--sites 10,50,200] [--base 155] [--strategy fedavg]

The sites are answered for by a grid that makes each reply when it is pulled: nothing is trained, and no two replies
exist at once. Each measurement in a process of its own; replies beyond 256 MB wait on the disk of the run directory.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid

from fedsynth.federation.engines.flower_names import FlowerRun, identity, number
from fedsynth.federation.exchange import Facts, Outcome
from fedsynth.federation.handshake import Agreement, shape_of
from fedsynth.federation.messages import HELLO, facts_content, outcome_content, read_order
from fedsynth.federation.rounds import Rounds
from fedsynth.federation.server_app import GridSites, open_or_create
from fedsynth.federation.settings import FederationSettings
from fedsynth.training.session import fresh_family

FACTS = Facts(channels=("x",), size=(32, 32), classes=(), mask_labels=(), spacing_mm=(1.0, 1.0), phantoms=True)


class AnsweringGrid(Grid):
    """Nodes that send back what they received, a little changed."""

    pause = 0.0

    def __init__(self, run: FlowerRun, sites: int) -> None:
        self._run, self._sites, self._asked, self._numbered = run, sites, dict[str, Message](), 0

    def set_run(self, run: FlowerRun) -> None:
        """Nothing: there is one run."""

    @property
    def run(self) -> FlowerRun:
        """The run, empty."""
        return self._run

    def create_message(self, *arguments: Any, **named: Any) -> Message:
        """Never called."""
        raise NotImplementedError

    def get_node_ids(self) -> list[int]:
        """All nodes."""
        return list(range(1, self._sites + 1))

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Remember whom to answer."""
        names = []
        for message in messages:
            self._numbered += 1
            names.append(f"m{self._numbered}")
            self._asked[names[-1]] = number(message, names[-1])
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """One answer, made now."""
        name = min(message_ids, key=lambda one: int(one[1:]))
        asked = self._asked.pop(name)
        site = f"site-{asked.metadata.dst_node_id:04d}"
        if asked.metadata.message_type == HELLO:
            content = facts_content(site, FACTS)
        else:
            _, arrays = read_order(asked)
            change = np.float32(1e-4 * asked.metadata.dst_node_id)
            sent = {key: value + change if value.dtype.kind == "f" else value for key, value in arrays.items()}
            content = outcome_content(site, Outcome(arrays=sent, metrics={"steps": 1.0, "patients": 3.0}))
        return [number(Message(content, reply_to=asked), f"r{name}")]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Never called."""
        raise NotImplementedError


def measure(arguments: argparse.Namespace) -> None:
    """One round, in this process; JSON on the last line."""
    sites = int(arguments.sites)
    settings = FederationSettings(
        generator="dcgan", sites=sites, rounds=2, local_steps=1, strategy=arguments.strategy,
        options={"base": arguments.base},
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="server-memory-", dir=arguments.folder) as name, identity() as flower:
        run = open_or_create(settings, Path(name) / "run")
        family = fresh_family(settings.training(), shape_of(settings, FACTS))
        size = sum(value.nbytes for value in family.nets.state_dict().values())
        grid = AnsweringGrid(flower, sites)
        place = GridSites(grid, settings, "x", spill=run.folder)
        names = tuple(sorted(hello.site for hello in place.handshake()))
        rounds = Rounds(settings, run, Agreement(sites=names, facts=FACTS, family=family), experiment="x")
        before = _peak()
        ends: list[float] = []
        rounds.go(place, lambda progress: ends.append(time.perf_counter()))
        answered = sum(line.split(",")[2] == "true" for line in run.rounds.read_text().splitlines())
    print(json.dumps({"mb": size / 1e6, "before": before, "peak": _peak(), "s": ends[-1] - ends[-2], "n": answered}))


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Read the options, measure, print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", default="10,50,200")
    parser.add_argument("--base", type=int, default=155)
    parser.add_argument("--strategy", default="fedavg")
    parser.add_argument("--folder", type=Path, default=None, help="where the run directory lies")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        measure(arguments)
        return
    print("| sites | model, MB | a round, s | peak MB before | peak MB after two rounds |")
    print("|---|---|---|---|---|")
    for sites in arguments.sites.split(","):
        command = [sys.executable, __file__, "--one", "--sites", sites, "--base", str(arguments.base)]
        command += ["--strategy", arguments.strategy]
        command += [] if arguments.folder is None else ["--folder", str(arguments.folder)]
        said = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
        found = json.loads(said.splitlines()[-1])
        assert found["n"] == 2 * int(sites)
        print(
            f"| {sites} | {found['mb']:.0f} | {found['s']:.1f} | {found['before']:.0f} | {found['peak']:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
