"""Training images per second against a bare PyTorch loop over the same networks, in one run on one machine.

    python benchmarks/speed/training.py [--families dcgan,stylegan2] [--size 64] [--batch 16] [--repeats 7]

The bare loop holds all images as tensors in memory and does what everybody writes: two losses, two backward passes,
two Adam steps, no moving average, no watch, no augmentation. Ours reads the image set from disk and does all of these.
The two take turns, so that a machine that slows down slows both.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from fedsynth.data import ImageSet
from fedsynth.data.phantoms.cohort import make_phantoms
from fedsynth.data.phantoms.settings import PhantomSettings
from fedsynth.training.patient_batches import PatientBatches
from fedsynth.training.session import prepare
from fedsynth.training.settings import TrainSettings


def ours(images: ImageSet, settings: TrainSettings) -> Callable[[], None]:
    """One step of the product's loop."""
    trainer = prepare(images, settings).trainer

    def step() -> None:
        for _ in trainer.run(1):
            pass

    return step


def bare(images: ImageSet, settings: TrainSettings) -> Callable[[], None]:
    """One step of a bare loop over the same networks and losses."""
    family = prepare(images, settings).trainer.family
    family.augment = None
    dataset = PatientBatches(images.select(role="member"))
    everything = dataset.fetch(torch.arange(len(dataset.images)).numpy())
    optimisers = {
        phase.net: torch.optim.Adam(family.nets[phase.net].parameters(), 2e-4, (0.5, 0.99)) for phase in family.phases
    }
    batch_size, count = settings.batch or 16, iter(range(10**9))

    class Global:
        """torch's global random stream, as a bare loop uses it."""

        def normal(self, shape: tuple[int, ...]) -> torch.Tensor:
            return torch.randn(shape)

        def uniform(self, shape: tuple[int, ...]) -> torch.Tensor:
            return torch.rand(shape)

        def integers(self, high: int, shape: tuple[int, ...]) -> torch.Tensor:
            return torch.randint(0, high, shape)

    def step() -> None:
        number = next(count)
        rows = torch.randint(0, len(dataset.images), (batch_size,))
        batch = {name: values[rows] for name, values in everything.items()}
        for phase in family.phases:
            if number % phase.interval:
                continue
            noise = family.noise(batch_size, Global())
            loss = family.fake_loss(phase, batch, noise, 1.0).mean()
            if phase.reads_patients:
                loss = loss + family.real_loss(phase, batch, noise, 1.0).mean()
            family.nets.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimisers[phase.net].step()
            family.after_update(phase.net)

    return step


def seconds(step: Callable[[], None], steps: int) -> float:
    """Process time, which other programs on the machine disturb least."""
    start = time.process_time()
    for _ in range(steps):
        step()
    return (time.process_time() - start) / steps


def main() -> None:
    """Print a line per family."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default="dcgan,stylegan2")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'family':10} {'bare ms':>9} {'ours ms':>9} {'ratio':>6} {'images/s':>9}")
    with tempfile.TemporaryDirectory() as scratch:
        images = make_phantoms(Path(scratch) / "set", PhantomSettings(patients=40, size=asked.size))
        for family in asked.families.split(","):
            settings = TrainSettings(generator=family, images=Path("phantom"), batch=asked.batch, steps=10**6)
            settings = replace(settings, sheets=0)
            pair = bare(images, settings), ours(images, settings)
            for step in pair:
                seconds(step, 2)
            times = [[seconds(step, asked.steps) for step in pair] for _ in range(asked.repeats)]
            ratio = statistics.median(mine / theirs for theirs, mine in times)
            theirs, mine = (statistics.median(column) for column in zip(*times, strict=True))
            print(
                f"{family:10} {1e3 * theirs:9.1f} {1e3 * mine:9.1f} {ratio:6.3f} {asked.batch / mine:9.1f}", flush=True
            )


if __name__ == "__main__":
    main()
