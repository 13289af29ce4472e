"""What the time of a hospital's answers tells of the patients who were drawn: with the public clock and without it.

    python benchmarks/speed/answer_time.py [--rounds 100] [--patients 400] [--answer-every 1.0]

One real hospital, private dcgan at 32 px, one step a round, asked as a server asks it. Beside each answer's time
stands how many patients its steps drew, which no server sees. Printed: the rank correlation of the two, and
2 / sqrt(rounds), within which it lies in 19 of 20 runs where there is none. Run it on an idle machine: others hide it.
Beside it stands that of the processor time, which is what an idle machine would take and a clock does not change.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Context, Message, RecordDict
from scipy.stats import spearmanr

from fedsynth.config import save_toml
from fedsynth.data.phantoms.cohort import make_phantoms
from fedsynth.data.phantoms.settings import PhantomSettings
from fedsynth.federation import client_app
from fedsynth.federation.engines.flower_names import identity, number
from fedsynth.federation.exchange import Order
from fedsynth.federation.messages import hello_content, order_contents, read_outcome
from fedsynth.federation.settings import FederationSettings
from fedsynth.training.settings import Privacy, cpu_threads


def hospital(folder: Path, patients: int, answer_every: float) -> dict[str, str | bool | int | float]:
    """A hospital's folder; the node config that names it."""
    make_phantoms(folder / "set", PhantomSettings(size=32, patients=patients, sites=1, slices=1))
    policy = {"max-epsilon": 50.0, "delta": 1e-5, "answer-every": answer_every}
    save_toml(folder / "policy.toml", policy)
    site = {"name": "here", "images": "set", "folder": "disk", "policy": "policy.toml", "store": "store"}
    save_toml(folder / "site.toml", site)
    return {"site-file": str(folder / "site.toml")}


def measure(
    folder: Path, settings: FederationSettings, node: dict[str, str | bool | int | float]
) -> tuple[list[int], list[float], list[float]]:
    """How many patients the steps of each round drew, the seconds until its answer and those of the processor."""
    context = Context(
        run_id=1, node_id=7, node_config=node, state=RecordDict(), run_config=settings.to_run_config(folder)
    )
    client_app.app(number(Message(hello_content("x"), 7, "query.hello"), "hello"), context)
    (work,) = client_app._works.values()
    drawn: list[int] = []
    assert work.prepared.mechanism is not None
    randomness = work.prepared.mechanism.randomness
    chosen = randomness.chosen
    setattr(randomness, "chosen", lambda n, rate: _noting(drawn, chosen(n, rate)))  # noqa: B010
    arrays: Mapping[str, Any] = work._arrays()
    seconds, worked, counts = list[float](), list[float](), list[int]()
    for round_ in range(1, settings.rounds + 1):
        order = Order(round=round_, first_step=round_ - 1, steps=1, experiment="x")
        message = number(Message(order_contents({"here": order}, arrays)["here"], 7, "train"), str(round_))
        drawn.clear()
        began, idle = time.monotonic(), time.process_time()
        answer = client_app.app(message, context)
        seconds.append(time.monotonic() - began)
        worked.append(time.process_time() - idle)
        arrays, counts = read_outcome(answer)[0].arrays, [*counts, sum(drawn)]
    return counts[1:], seconds[1:], worked[1:]  # the first builds what the others find


def _noting(drawn: list[int], found: torch.Tensor) -> torch.Tensor:
    drawn.append(len(found))
    return found


def main() -> None:
    """Both ways, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--patients", type=int, default=400)
    parser.add_argument("--answer-every", type=float, default=1.0)
    told = parser.parse_args()
    privacy = Privacy(epsilon=8.0, patients=told.patients, expected_batch_size=told.patients // 4)
    settings = FederationSettings(sites=1, rounds=told.rounds, local_steps=1, privacy=privacy)
    for every in (0.0, told.answer_every):
        client_app.forget_everything()
        with tempfile.TemporaryDirectory() as folder, cpu_threads(1), identity():
            counts, seconds, worked = measure(Path(folder), settings, hospital(Path(folder), told.patients, every))
        print(f"answer-every {every:g} (chance: correlations within {2 / len(counts) ** 0.5:.2f})")
        for what, times in (("answer", seconds), ("processor", worked)):
            found, slope = float(spearmanr(counts, times)[0]), 1000 * float(np.polyfit(counts, times, 1)[0])
            line = f"  {what}: median {np.median(times):.3f} s, {slope:+.3f} ms a patient, correlation {found:+.2f}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
