"""What do patients give a public image set that is re-weighted to them? A U-Net trained on it is scored on holdout.

    OMP_NUM_THREADS=1 python benchmarks/public_pool.py OUT [--worlds 0 1 2 3] [--starts 2] [--epsilon 8 1]
        [--patients 100] [--public 240] [--size 32] [--count 800] [--steps 300] [--fans] [--table]

A world is one of eight hospitals of phantoms, each with a scanner, lesions and a case mix of its own: half of its
patients are members. The public set holds other patients, of the seven other hospitals. With `--fans` (it needs
PYTHONPATH=.) images are fans as of ultrasound, patients by one generator and the public set by another. Arms: `real`
(members), `public` (the public images under wide intensity maps), `placebo` (the same fit to a random direction) and
`fitted`. The noise is the library's mechanism with a repeatable seed: it protects nobody, and phantoms need no
protection. Finished trainings are kept in OUT/scores.csv, and a run that was broken off goes on; `--table` only prints
what is there.
"""

import argparse
import csv
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from private_release import done, interval, ratio

from fedsynth.data import ImageSet
from fedsynth.data.phantoms.cohort import make_phantoms
from fedsynth.data.phantoms.scanner import default_hospitals
from fedsynth.data.phantoms.settings import PhantomSettings
from fedsynth.data.roles import Shares
from fedsynth.evaluation.utility.segmentation import score_masks
from fedsynth.evaluation.utility.training_arms import NOBODY, PLACEBO, PUBLIC, REAL, SYNTHETIC, Material, train_arm
from fedsynth.experiments.downstream_learners import TaskLearner
from fedsynth.models.base import Family
from fedsynth.training.generate import Drawing
from fedsynth.training.session import prepare
from fedsynth.training.settings import Privacy, TaskSettings, TrainSettings

FITTED = "fitted"
KEPT = ("split", "members", "epsilon", "start", "arm", "patient", "site", "dice", "repeated", "seconds")
HOSPITALS = 8
"""In all: one has the patients, the others the public images."""


@dataclass(frozen=True, kw_only=True)
class World:
    """One hospital and one public set."""

    members: ImageSet
    holdout: ImageSet
    public: Path

    @classmethod
    def make(cls, out: Path, number: int, args: argparse.Namespace) -> "World":
        """Its images from seeds of their own, made once."""
        make_fans(out, number, args) if args.fans else make_brains(out, number, args)
        images = ImageSet.load(out / f"patients-{number}")
        return cls(
            members=images.select(role="member"), holdout=images.select(role="holdout"), public=out / f"public-{number}"
        )


def make_brains(out: Path, number: int, args: argparse.Namespace) -> None:
    """Brains: a hospital's, and those of the seven others."""
    hospitals = default_hospitals(HOSPITALS)
    shape = {"slices": 4, "size": args.size, "labels": "whole-tumour"}
    half = Shares(member=0.5, holdout=0.5, reference=0.0)
    parts = {
        "patients": (PhantomSettings(patients=args.patients, sites=1, seed=100 + number, shares=half, **shape), 1),
        "public": (PhantomSettings(patients=args.public, sites=HOSPITALS - 1, seed=200 + number, **shape), 0),
    }
    for name, (wanted, own) in parts.items():
        chosen = [one for i, one in enumerate(hospitals) if (i == number) == own]
        if not (out / f"{name}-{number}").exists():
            make_phantoms(out / f"{name}-{number}", wanted, chosen, workers=1)


def make_fans(out: Path, number: int, args: argparse.Namespace) -> None:
    """Fans as of ultrasound: patients by one generator of the tests, the public set by the other."""
    from tests.models.pictures import fans, other_scan

    if (out / f"public-{number}").exists():
        return
    shifted: dict[str, Any] = {"radius": (3.5, 5.0), "gamma": (1.3, 1.5), "level": (0.5, 0.6)}
    made = fans(args.patients, seed=100 + number, name="patient", generator=other_scan, **shifted)
    half = np.random.default_rng(number).permutation(sorted(set(made.cases["patient"])))[: args.patients // 2]
    roles = np.where(made.cases["patient"].isin(half), "member", "holdout")
    made.with_cases(made.cases.assign(role=roles)).save(out / f"patients-{number}")
    fans(args.public, seed=200 + number, name="public-fans").save(out / f"public-{number}")


def drawn(world: World, number: int, epsilon: float, args: argparse.Namespace) -> dict[str, ImageSet]:
    """The images of every arm but the real one, after a private fit."""
    privacy = Privacy(epsilon=epsilon, patients=round(args.patients / 2), insecure_seed=number)
    options = {"public": str(world.public), "pool": args.pool, "children": args.children}
    settings = TrainSettings(generator="fitted-pool", images=Path(), options=options, privacy=privacy, seed=number)
    prepared = prepare(world.members, settings)
    prepared.fit()
    family = prepared.trainer.family
    assert isinstance(family, Family)
    with prepared.trainer.ema.in_place(family):
        return {
            arm: Drawing(family, prepared.card(), count=args.count, seed=number, arm=arm).in_memory(arm)
            for arm in (FITTED, PLACEBO, PUBLIC)
        }


def train(arm: str, world: World, shown: ImageSet | None, seed: int, steps: int) -> tuple[pd.DataFrame, int]:
    """Scores of the holdout patients by a U-Net that is trained on that arm."""
    nobody = {arm: shown} if shown is not None and arm in NOBODY else {}
    material = Material(members=world.members, synthetic=shown, nobody=nobody)
    learner = TaskLearner(TaskSettings(network="unet", steps=steps, batch=16))
    made = train_arm(SYNTHETIC if arm == FITTED else arm, material, learner, seed=seed, augment=True)
    [network] = made.networks.values()
    guesses = (chances.argmax(0).astype(np.uint8) for chances in network.predict(world.holdout))
    return score_masks(world.holdout, guesses, distances=False), made.repeated


def run(args: argparse.Namespace) -> None:
    """Every arm of every world that is not there yet."""
    scores = args.out / "scores.csv"
    for number in args.worlds:
        world = World.make(args.out, number, args)
        members = str(round(args.patients / 2))
        for epsilon in args.epsilon:
            arms: dict[str, ImageSet | None] = {REAL: None}
            arms |= dict.fromkeys((PUBLIC, PLACEBO, FITTED))
            sets: dict[str, ImageSet] = {}
            for arm in arms:
                for start in range(args.starts):
                    own = 0.0 if arm in (REAL, PUBLIC) else epsilon
                    key = (str(number), members, f"{own:g}", str(start), arm)
                    if key in done(scores):
                        continue
                    began = time.process_time()
                    if arm != REAL and not sets:
                        sets = drawn(world, number, epsilon, args)
                    found, repeated = train(arm, world, sets.get(arm), 10 * number + start, args.steps)
                    seconds = round(time.process_time() - began, 1)
                    write(scores, key, found, repeated, seconds)


def write(path: Path, key: tuple[str, ...], found: pd.DataFrame, repeated: int, seconds: float) -> None:
    """One finished training."""
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if not file.tell():
            writer.writerow(KEPT)
        for row in found.to_dict("records"):
            writer.writerow([*key, row["patient"], row["site"], row["dice"], repeated, seconds])
    print(*key, f"{np.nanmean(found['dice']):.3f}  {seconds:.0f} CPU s", flush=True)


def table(path: Path) -> str:
    """Dice of every arm by world, ratios and gains: a patient's scores are averaged over starts, intervals are over
    the holdout patients of all worlds."""
    found = pd.read_csv(path, dtype={"patient": str})
    found["patient"] = found["split"].astype(str) + " " + found["patient"]
    lines = []
    for epsilon in sorted(set(found["epsilon"]) - {0.0}, reverse=True):
        own = found[found["epsilon"].isin([0.0, epsilon])]
        lines += ["", f"epsilon {epsilon:g}, Dice of holdout patients by world"]
        means = own.groupby(["split", "arm", "start"])["dice"].mean().unstack("start")
        lines += means.round(3).to_string().splitlines()
        each = own.groupby(["arm", "patient"])["dice"].mean().unstack("arm").dropna()
        lines += [f"{arm:8} to real: {ratio(each[arm], each[REAL])}" for arm in (PUBLIC, PLACEBO, FITTED)]
        for arm, over in ((FITTED, PUBLIC), (FITTED, PLACEBO), (PLACEBO, PUBLIC)):
            lines.append(f"{arm} over {over}: {interval((each[arm] - each[over]).to_numpy())}")
    return "\n".join(lines)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--worlds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--starts", type=int, default=2)
    parser.add_argument("--epsilon", type=float, nargs="+", default=[8.0, 1.0])
    parser.add_argument("--patients", type=int, default=100, help="of the hospital: half are members")
    parser.add_argument("--public", type=int, default=240, help="patients of the public set")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--count", type=int, default=800, help="images that are drawn per arm")
    parser.add_argument("--steps", type=int, default=300, help="of the U-Net, the same for every arm")
    parser.add_argument("--pool", type=int, default=1000)
    parser.add_argument("--children", type=int, default=800)
    parser.add_argument("--fans", action="store_true", help="another kind of images, from two generators")
    parser.add_argument("--table", action="store_true", help="print what is there and stop")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.table:
        torch.set_num_threads(1)
        run(args)
    print(table(args.out / "scores.csv"))


if __name__ == "__main__":
    main()
