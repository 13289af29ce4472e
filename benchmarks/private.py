"""What does a private generator make of brains? Each recipe is trained on three hospitals' phantoms and judged there.

    python benchmarks/private.py OUT [--recipes vae,dcgan-from-public] [--patients 20000] [--size 32]

The first hospital's phantoms are public: a plain generator of them is what warm starts go on from. Writes a sheet
per recipe and a table: the Frechet distance of benchmarks/families.py to held-out phantoms, and the Dice of a U-Net
that saw drawn images alone. Noise is secret, so that a repetition gives other numbers; one run each.
"""

import argparse
import time
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
from families import add_row, baselines, features, fixed_basis, frechet

from fedsynth import atomic_files
from fedsynth.data import ImageSet
from fedsynth.data.contact_sheet import contact_sheet
from fedsynth.data.phantoms.cohort import make_phantoms
from fedsynth.data.phantoms.settings import PhantomSettings
from fedsynth.evaluation.utility import segmentation
from fedsynth.experiments.downstream_learners import TaskLearner
from fedsynth.runs import Run, create_run
from fedsynth.training.centralised import run_training
from fedsynth.training.checkpoint import load_generator
from fedsynth.training.generate import Drawing
from fedsynth.training.settings import Privacy, TaskSettings, TrainSettings

PUBLIC, OTHERS = "hospital-1", ("hospital-2", "hospital-3", "hospital-4")
JUDGED, BASIS, DRAWN = 500, 400, 700
COLUMNS = ["recipe", "patients", "epsilon", "steps", "seconds", "distance", "times_better", "dice", "noise"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One way to a private generator. `share` is of the patients at hand; no `expected_batch_size` means that it is not
    private.
    """

    generator: str
    expected_batch_size: int | None = None
    share: float = 1.0
    steps: int | None = None
    start: str = ""
    epsilon: float = 10.0


TRIALS = {
    "dcgan-public": Trial(generator="dcgan", steps=3000),
    "dcgan-from-public": Trial(generator="dcgan", expected_batch_size=750, start="dcgan-public"),
    "dcgan-from-public-1200": Trial(
        generator="dcgan", expected_batch_size=600, share=0.16, steps=100, start="dcgan-public"
    ),
    "dcgan": Trial(generator="dcgan", expected_batch_size=1000),
    "lsgan": Trial(generator="lsgan", expected_batch_size=750),
    "vae": Trial(generator="vae", expected_batch_size=500),
    "vae-1200": Trial(generator="vae", expected_batch_size=300, share=0.16),
}


class Ward:
    """The private hospitals: their members to train on, and other patients of theirs to be scored by."""

    def __init__(self, phantoms: ImageSet) -> None:
        self.public = phantoms.select(site=PUBLIC, role="member")
        self.members = phantoms.select(site=OTHERS, role="member")
        self.holdout = first_rows(phantoms.select(site=OTHERS, role="holdout"), JUDGED)
        self._basis = fixed_basis(features(first_rows(phantoms.select(site=OTHERS, role="reference"), BASIS)))
        self._real = features(self.holdout)
        self.worthless = min(self.distance(shown) for shown in baselines(self.holdout).values())

    def distance(self, shown: ImageSet) -> float:
        """The Frechet distance to the holdout."""
        return frechet(features(shown), self._real, self._basis)

    def dice(self, shown: ImageSet) -> float:
        """The Dice on the holdout of a U-Net that was trained on these images alone."""
        net = TaskLearner(TaskSettings(network="unet", steps=300)).learn([shown], seed=0, augment=True)
        found = segmentation.measures([segmentation.score_arm({None: net}, self.holdout, distances=False)])
        return float(found["dice"].value(found["dice"].rows))


def first_rows(images: ImageSet, count: int) -> ImageSet:
    """The first images of a set, or all of them."""
    return images.rows(np.arange(min(count, len(images))))


def measure(name: str, ward: Ward, out: Path) -> dict[str, object]:
    """Train one recipe, draw, judge, and write its sheet."""
    trial = TRIALS[name]
    images = ward.public if trial.expected_batch_size is None else ward.members
    patients = sorted(set(images.cases["patient"]))
    images = images.select(patient=patients[: round(trial.share * len(patients))])
    settings = TrainSettings(
        generator=trial.generator, images=Path("phantoms"), steps=trial.steps, sheets=0, private_networks=True
    )
    if trial.expected_batch_size is not None:
        declared = 100 * round(trial.share * len(patients) / 100)
        settings = replace(
            settings,
            privacy=Privacy(epsilon=trial.epsilon, patients=declared, expected_batch_size=trial.expected_batch_size),
        )
    if trial.start:
        settings = replace(settings, start=out / "runs" / trial.start)
    began = time.process_time()
    run: Run = create_run(settings, generator=trial.generator, folder=out / "runs" / name)
    run_training(images, settings, run)
    seconds = time.process_time() - began
    generator, card = load_generator(run.checkpoints)
    drawn = Drawing(generator, card, count=DRAWN).in_memory(name)
    buffer = BytesIO()
    contact_sheet(drawn, rows=8).save(buffer, "PNG", optimize=True)
    atomic_files.write_bytes(out / f"{name}.png", buffer.getvalue())
    distance = ward.distance(drawn)
    return {
        "recipe": name,
        "patients": "" if settings.privacy is None else settings.privacy.patients,
        "epsilon": "" if settings.privacy is None else trial.epsilon,
        "steps": card.steps,
        "seconds": round(seconds),
        "distance": round(distance, 3),
        "times_better": round(ward.worthless / distance, 1),
        "dice": round(ward.dice(drawn), 3),
        "noise": round(ward.worthless, 2),
    }


def main() -> None:
    """Measure the recipes asked for, adding rows to the table as they are done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipes", default=",".join(TRIALS))
    parser.add_argument("--patients", type=int, default=20000, help="phantoms, half of them members")
    parser.add_argument("--size", type=int, default=32)
    asked = parser.parse_args()
    folder = asked.out / "phantoms"
    if not folder.exists():
        make_phantoms(folder, PhantomSettings(patients=asked.patients, slices=1, size=asked.size, seed=7))
    ward = Ward(ImageSet.load(folder))
    real = first_rows(ward.members, DRAWN)
    print({"real": round(ward.distance(real), 3), "dice": round(ward.dice(real), 3)}, flush=True)
    table = asked.out / "private.csv"
    for name in asked.recipes.split(","):
        add_row(table, COLUMNS, measure(name, ward, asked.out))


if __name__ == "__main__":
    main()
