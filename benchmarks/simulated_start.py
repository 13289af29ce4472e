"""What does a start from simulated heads give a generator of real patients? A U-Net trained on its images is scored.

    OMP_NUM_THREADS=1 python benchmarks/simulated_start.py SET OUT [--channel t1,flair,t1ce] [--between 0.35 0.85]
        [--splits 0 1] [--starts 2] [--start-steps 600] [--steps 200] [--arms real public scratch start] [--table]

SET is the folder of an image set, or an .npz as `private_release.py` describes it; splits and scores are that script's.
Arms: `real` (members), `public` (simulated heads alone, no patient and no generator), `scratch` (two-stage, as long as
both trainings of `start` together), `start` (`--start phantoms`), `start-own-maps` (the same, with maps fitted to the
members) and the controls `mean-image` and `threshold`, fitted to members. Networks that were trained on simulated heads
are kept and serve all splits. Every finished training is kept in OUT/scores.csv, and a run that was broken off goes on;
`--table` only prints what is there.
"""

import argparse
import csv
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from private_release import Split, done, interval, measured, options, ratio

import fedsynth
from fedsynth.data import ImageSet
from fedsynth.data.contact_sheet import contact_sheet
from fedsynth.data.format import COLUMNS
from fedsynth.evaluation.utility.controls import fit_threshold, mean_image_set
from fedsynth.evaluation.utility.segmentation import score_masks
from fedsynth.evaluation.utility.training_arms import (
    MEAN_IMAGE,
    REAL,
    SYNTHETIC,
    THRESHOLD,
    Learned,
    Material,
    train_arm,
)
from fedsynth.experiments.downstream_learners import TaskLearner
from fedsynth.models.phantom_simulator import PhantomSimulator
from fedsynth.runs import Run
from fedsynth.training.checkpoint import load_generator
from fedsynth.training.generate import Drawing
from fedsynth.training.patient_batches import PatientBatches
from fedsynth.training.settings import TaskSettings

PUBLIC, SCRATCH, START, OWN_MAPS = "public", "scratch", "start", "start-own-maps"
MEASURED = ("patient", "site", "dice", "fp_area", "brats_slice_dice")
KEPT = ("split", "members", "epsilon", "start", "arm", *MEASURED, "collapsed")
SHEET = 12


@dataclass(kw_only=True)
class Bench:
    """One set and the scores so far."""

    out: Path
    images: ImageSet
    args: argparse.Namespace

    def __post_init__(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        self.learner = TaskLearner(TaskSettings(network="unet", steps=self.args.task_steps, batch=16))

    def run(self) -> None:
        """Every arm of every split and start that is not there yet."""
        for split in self.args.splits:
            drawn = Split.draw(self.images, split, 0)
            for arm in self.args.arms:
                for start in range(self.args.starts):
                    self._score(arm, drawn, split, start)

    def _score(self, arm: str, drawn: Split, split: int, start: int) -> None:
        members, path = len(set(drawn.members.cases["patient"])), self.out / "scores.csv"
        key = (str(split), str(members), "0", str(start), arm)
        if key in done(path):
            return
        began = time.process_time()
        network = fit_threshold(drawn.members) if arm == THRESHOLD else self._learned(arm, drawn, split, start)
        guesses = (chances.argmax(0).astype(np.uint8) for chances in network.predict(drawn.holdout))
        found = score_masks(drawn.holdout, guesses, distances=False)
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if not file.tell():
                writer.writerow(KEPT)
            for row in found.to_dict("records"):
                writer.writerow([*key, *(row[name] for name in MEASURED), int(network.collapsed)])
        seconds = time.process_time() - began
        print(f"split {split} start {start} {arm:14} {np.nanmean(found['dice']):.3f}  {seconds:.0f} s", flush=True)

    def _learned(self, arm: str, drawn: Split, split: int, start: int) -> Learned:
        """A U-Net that was trained on the arm's images."""
        shown = None if arm == REAL else self._drawn_set(arm, drawn, split)
        material = Material(members=drawn.members, synthetic=shown)
        name = REAL if shown is None else SYNTHETIC
        made = train_arm(name, material, self.learner, seed=10 * split + start, augment=True)
        [network] = made.networks.values()
        return network

    def _drawn_set(self, arm: str, drawn: Split, split: int) -> ImageSet:
        """The images of an arm, kept on disk."""
        if arm == MEAN_IMAGE:
            return mean_image_set(drawn.members)
        folder = self.out / f"drawn-{arm}" if arm == PUBLIC else self.out / f"drawn-{arm}-{split}"
        if not folder.exists():
            made = self._heads() if arm == PUBLIC else self._made(arm, drawn, split)
            made.save(folder)
            contact_sheet(made, rows=SHEET).save(self.out / f"{folder.name}.png")
        return ImageSet.load(folder)

    def _heads(self) -> ImageSet:
        """Simulated heads, with skull and scalp unless the members are stripped of them."""
        shape, rng = PatientBatches(self.images).shape, np.random.default_rng(0)
        simulator = PhantomSimulator(shape=shape, head=not self.args.stripped)
        shown = [simulator.slices(simulator.draw(rng), rng, 1)[0] for _ in range(self.args.count)]
        rows = {"case": [f"simulated-{i}" for i in range(len(shown))]}
        cases = pd.DataFrame(rows | dict.fromkeys(COLUMNS[1:], ""), columns=list(COLUMNS))
        header = replace(self.images.header, name=PUBLIC, origin="synthetic", split=None, provenance={}, classes=())
        images, masks = (np.stack(arrays) for arrays in zip(*shown, strict=True))
        return ImageSet(header=header, cases=cases, images=images, masks=masks)

    def _made(self, arm: str, drawn: Split, split: int) -> ImageSet:
        members = self.out / f"members-{split}"
        if not members.exists():
            drawn.members.save(members)
        run = self._trained(arm, members, self.out / f"run-{arm}-{split}")
        family, card = load_generator(run.checkpoints)
        return Drawing(family, card, count=self.args.count, seed=split).in_memory(arm)

    def _trained(self, arm: str, members: Path, folder: Path) -> Run:
        """The run of an arm, and what it took."""
        if (folder / "checkpoints" / "generator.toml").exists():
            return Run(folder=folder)
        told: dict[str, Any] = {"generator": "two-stage", "sheets": 0, "steps": self.args.steps}
        if arm == SCRATCH:
            told["steps"] = self.args.steps + self.args.start_steps
        else:
            told |= {"start": "phantoms", "start_steps": self.args.start_steps}
        if arm == OWN_MAPS:
            told["options"] = {"maps": "pca-maps"}
        began = time.process_time()
        run = fedsynth.train(members, run=folder, **told)
        print(f"{folder.name}: {time.process_time() - began:.0f} CPU seconds", flush=True)
        return run


def table(path: Path) -> str:
    """Dice of every arm by split; ratios over all splits, paired over holdout patients.

    A patient's scores are averaged over starts, then over the splits whose holdout has the patient; intervals are over
    patients.
    """
    found = pd.read_csv(path, dtype={"patient": str})
    arms = list(dict.fromkeys(found["arm"]))
    lines = ["split  " + "  ".join(f"{arm:>20}" for arm in arms)]
    for split, rows in found.groupby("split"):
        shown = []
        for arm in arms:
            starts = rows[rows["arm"] == arm].groupby("start")["dice"].mean()
            shown.append(f"{starts.mean():.3f} ({' '.join(f'{value:.2f}' for value in starts)})")
        lines.append(f"{split:5}  " + "  ".join(f"{text:>20}" for text in shown))
    each = found.groupby(["arm", "split", "patient"])["dice"].mean().unstack("arm")
    others = found.groupby("arm")[["fp_area", "brats_slice_dice"]].mean()
    for arm in arms:
        own, real = paired(each, arm, REAL)
        wrong, slices = others.loc[arm]
        lines.append(f"{arm:14} to real {ratio(own, real)}, false area {wrong:.1f}, slice Dice {slices:.3f}")
        for control in (THRESHOLD, MEAN_IMAGE):
            if control in arms and arm not in (control, REAL):
                triples = each[[arm, control, REAL]].dropna().groupby("patient").mean().mean()
                skill = (triples[arm] - triples[control]) / (triples[REAL] - triples[control])
                lines.append(f"{'':14} skill over {control} {skill:.2f}")
    for arm, over in ((START, SCRATCH), (START, PUBLIC), (START, OWN_MAPS)):
        if arm in arms and over in arms:
            own, other = paired(each, arm, over)
            lines.append(f"{arm} over {over}: {interval((own - other).to_numpy())}")
    return "\n".join(lines)


def paired(each: pd.DataFrame, arm: str, over: str) -> tuple[pd.Series, pd.Series]:
    """The Dice of two arms over the same patients, averaged over the splits that both were measured in."""
    found = each[[arm] if arm == over else [arm, over]].dropna().groupby("patient").mean()
    return found[arm], found[over]


def main() -> None:
    """See the module."""
    parser = options(__doc__)
    parser.add_argument("--stripped", action="store_true", help="public images without skull and scalp")
    parser.add_argument("--splits", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--starts", type=int, default=2)
    parser.add_argument("--start-steps", type=int, default=600, help="on simulated heads")
    parser.add_argument("--steps", type=int, default=200, help="on members")
    parser.add_argument("--arms", nargs="+", default=[REAL, PUBLIC, SCRATCH, START])
    parser.add_argument("--task-steps", type=int, default=400, help="of the U-Net, the same for every arm")
    measured(parser.parse_args(), Bench, table)


if __name__ == "__main__":
    main()
