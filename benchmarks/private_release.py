"""What do patients give a released simulator? A U-Net trained on its images is scored on real holdout patients.

    OMP_NUM_THREADS=1 python benchmarks/private_release.py SET OUT [--head] [--channel flair] [--splits 0 1 2 3]
        [--starts 3] [--epsilon 8] [--members N] [--between 0.35 0.85] [--count 1200] [--steps 400] [--table]

SET is the folder of an image set, or an .npz with `images` (n, channels, height, width) uint8, `masks` (n, height,
width), `patient` (n,) and, if known, `institution` and `slice_index` (n,); `--names` then names its channels, and masks
hold background and tumour. A split makes a random half of every site's patients members and the rest the holdout.

Arms: `real` (members), `public` (the wide pool of the simulator, no patient), `placebo` (the same fit to a random
direction) and `fitted`. The noise of a fit is SIMULATED here: one draw of numpy's Gaussian on the central sum,
calibrated by the analytic Gaussian mechanism for delta 1e-5, add or remove one patient. It protects nobody and is no
release; the mechanism is the library's. Trainings that collapsed on their own training images are repeated once. Every
finished training is kept in OUT/scores.csv, and a run that was broken off goes on; `--table` only prints what is there.
"""

import argparse
import csv
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import stats

from fedsynth.data import Header, ImageSet
from fedsynth.data.format import COLUMNS
from fedsynth.evaluation.utility.segmentation import score_masks
from fedsynth.evaluation.utility.training_arms import NOBODY, PLACEBO, PUBLIC, REAL, SYNTHETIC, Arm, Material, train_arm
from fedsynth.experiments.downstream_learners import TaskLearner
from fedsynth.models.fitted_family import NET, FittedFamily
from fedsynth.models.generators.catalog import build
from fedsynth.training.fitting import sums_of
from fedsynth.training.patient_batches import PatientBatches
from fedsynth.training.sampler import sample_blocks
from fedsynth.training.settings import TaskSettings

KEPT = ("split", "members", "epsilon", "start", "arm", "patient", "site", "dice", "repeated", "collapsed", "seconds")
FITTED = "fitted"
DELTA = 1e-5


def analytic_gaussian(epsilon: float, delta: float = DELTA) -> float:
    """The noise multiplier of the analytic Gaussian mechanism (Balle and Wang 2018, theorem 8)."""

    def spent(sigma: float) -> float:
        low, high = 0.5 / sigma - epsilon * sigma, -0.5 / sigma - epsilon * sigma
        return float(stats.norm.cdf(low) - math.exp(epsilon) * stats.norm.cdf(high))

    low, high = 0.05, 500.0
    for _ in range(100):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if spent(middle) > delta else (low, middle)
    return high


def read_set(path: Path, names: str) -> ImageSet:
    """An image set, or an .npz as the module describes."""
    if path.suffix != ".npz":
        found = ImageSet.load(path)
        return replace(found, images=np.asarray(found.images), masks=np.asarray(found.masks))
    kept = np.load(path)
    images = kept["images"] if kept["images"].ndim == 4 else kept["images"][:, None]
    n, size = len(images), images.shape[2]
    sites = kept["institution"].astype(str) if "institution" in kept else np.full(n, "one")
    slices = kept["slice_index"] if "slice_index" in kept else np.arange(n)
    rows = {"case": [f"{p}-{s}" for p, s in zip(kept["patient"], slices, strict=True)], "patient": kept["patient"]}
    rows |= {"site": sites, "role": "member", "class": "", "slice": slices}
    header = Header(
        name=path.stem,
        origin="real",
        channels=tuple(names.split(",")),
        classes=(),
        mask_labels=("background", "tumour"),
        spacing_mm=(208 / size,) * 2,
    )
    cases = pd.DataFrame(rows, columns=list(COLUMNS)).astype(str)
    return ImageSet(header=header, cases=cases, images=images, masks=(kept["masks"] > 0).astype(np.uint8))


def narrowed(images: ImageSet, channels: str, between: tuple[float, float]) -> ImageSet:
    """The wanted channels, and of every patient the slices within that part of the stack."""
    header = images.header
    if channels:
        wanted = tuple(channels.split(","))
        shown = np.asarray(images.images)[:, [header.channels.index(name) for name in wanted]]
        images = replace(images, images=shown, header=replace(header, channels=wanted))
    rows = []
    for _, own in images.cases.groupby("patient"):
        ordered = sorted(own.index, key=lambda row: float(images.cases["slice"][row] or 0))
        low, high = (int(share * len(ordered)) for share in between)
        rows += ordered[low : max(high, low + 1)]
    chosen = images.rows(np.array(sorted(rows)))
    return replace(chosen, images=np.asarray(chosen.images), masks=np.asarray(chosen.masks))


@dataclass(frozen=True, kw_only=True)
class Split:
    """Members and holdout of one split, both in memory."""

    members: ImageSet
    holdout: ImageSet

    @classmethod
    def draw(cls, images: ImageSet, number: int, most: int) -> "Split":
        """A random half of every site's patients, of whom `most` in all stay members (0: all)."""
        rng, members = np.random.default_rng([number, 1601]), []
        for _, own in images.cases.groupby("site"):
            patients = sorted(set(own["patient"]))
            members += rng.permutation(patients)[: len(patients) // 2].tolist()
        held = sorted(set(images.cases["patient"]) - set(members))
        kept = rng.permutation(members)[:most].tolist() if most else members
        return cls(members=images.select(patient=kept), holdout=images.select(patient=held))


@dataclass(kw_only=True)
class Bench:
    """One set, one simulator, and the scores so far."""

    out: Path
    images: ImageSet
    args: argparse.Namespace

    def __post_init__(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        settings = TaskSettings(network="unet", steps=self.args.steps, batch=16)
        self.learner = TaskLearner(settings)
        self.family = self._family()
        self.public: dict[int, Arm] = {}  # by start: they saw no patient and serve every split

    @property
    def scores(self) -> Path:
        """Where finished trainings are kept."""
        return self.out / "scores.csv"

    def run(self) -> None:
        """Every arm of every split and start that is not there yet."""
        for split in self.args.splits:
            drawn = Split.draw(self.images, split, self.args.members)
            for start in range(self.args.starts):
                self._train(REAL, drawn, split, 0.0, start)
            self._public(drawn, split)
            for epsilon in self.args.epsilon:
                for arm in (PLACEBO, FITTED):
                    for start in range(self.args.starts):
                        self._train(arm, drawn, split, epsilon, start)

    def _public(self, drawn: Split, split: int) -> None:
        for start in range(self.args.starts):
            self._train(PUBLIC, drawn, split, 0.0, start)

    def _train(self, arm: str, drawn: Split, split: int, epsilon: float, start: int) -> None:
        members = len(set(drawn.members.cases["patient"]))
        key = (str(split), str(members), f"{epsilon:g}", str(start), arm)
        if key in done(self.scores):
            return
        began = time.process_time()
        shown = None if arm == REAL else self._drawn_set(arm, drawn, split, epsilon)
        made = self._trained(arm, drawn, shown, split, start)
        [network] = made.networks.values()
        guesses = (chances.argmax(0).astype(np.uint8) for chances in network.predict(drawn.holdout))
        found = score_masks(drawn.holdout, guesses, distances=False)
        seconds = round(time.process_time() - began, 1)
        with self.scores.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if not file.tell():
                writer.writerow(KEPT)
            for row in found.to_dict("records"):
                rest = (made.repeated, int(network.collapsed), seconds)
                writer.writerow([*key, row["patient"], row["site"], row["dice"], *rest])
        print(f"split {split} start {start} {arm:8} {np.nanmean(found['dice']):.3f}  {seconds:.0f} s", flush=True)

    def _trained(self, arm: str, drawn: Split, shown: ImageSet | None, split: int, start: int) -> Arm:
        if arm == PUBLIC and start in self.public:
            return self.public[start]
        nobody = {arm: shown} if shown is not None and arm in NOBODY else {}
        material = Material(members=drawn.members, synthetic=shown, nobody=nobody)
        name, of = SYNTHETIC if arm == FITTED else arm, PUBLIC_SEED if arm == PUBLIC else split
        made = train_arm(name, material, self.learner, seed=10 * of + start, augment=True)
        if arm == PUBLIC:
            self.public[start] = made
        return made

    def _family(self) -> FittedFamily:
        options = {"head": self.args.head, "pool": self.args.pool, "children": self.args.children}
        family = build("fitted-simulator", PatientBatches(self.images).shape, **options)
        assert isinstance(family, FittedFamily)
        return family

    def _drawn_set(self, arm: str, drawn: Split, split: int, epsilon: float) -> ImageSet:
        """The images of an arm, kept on disk: those of the public pool are the same in all splits."""
        members = len(set(drawn.members.cases["patient"]))
        name = PUBLIC if arm == PUBLIC else f"{arm}-{split}-{members}-{epsilon:g}"
        path = self.out / f"{name}.npz"
        if not path.exists():
            if arm != PUBLIC:
                self._fit(drawn, split, epsilon)
            setattr(self.family, "arm", arm)  # noqa: B010
            labels = np.arange(self.args.count) % max(1, len(self.family.simulator.classes))
            labels = labels if self.family.shape.n_classes else np.full(self.args.count, -1)
            blocks = list(sample_blocks(self.family, labels.astype(np.int64), seed=split))
            images = np.concatenate([np.rint(images * 255).astype(np.uint8) for images, _ in blocks])
            masks = np.concatenate([masks for _, masks in blocks if masks is not None])
            np.savez_compressed(path, images=images, masks=masks, labels=labels)
        kept = np.load(path)
        return self._as_set(name, kept["images"], kept["masks"], kept["labels"])

    def _as_set(self, name: str, images: NDArray[Any], masks: NDArray[Any], labels: NDArray[Any]) -> ImageSet:
        header = replace(self.images.header, name=name, origin="synthetic", split=None, provenance={})
        classes = [header.classes[label] if label >= 0 else "" for label in labels]
        rows = {"case": [f"{name}-{i}" for i in range(len(images))], "class": classes}
        cases = pd.DataFrame(rows | dict.fromkeys(("patient", "site", "role", "slice"), ""), columns=list(COLUMNS))
        return ImageSet(header=header, cases=cases, images=images, masks=masks)

    def _fit(self, drawn: Split, split: int, epsilon: float) -> None:
        """To the members' sum with SIMULATED noise: see the module."""
        found = sums_of(self.family, PatientBatches(drawn.members), 0)
        deviation = 0.0 if math.isinf(epsilon) else math.sqrt(1.25) * analytic_gaussian(epsilon)
        rng = np.random.default_rng([split, 77])
        total = found[f"{NET}.total"]
        noised = total + torch.from_numpy(rng.normal(size=len(total))) * deviation
        patients = float(found[f"{NET}.patients"]) + 2 * deviation * float(rng.normal())
        sums = {"total": noised, "patients": torch.tensor(patients), "variance": torch.tensor(deviation**2)}
        self.family.fit(0, {f"{NET}.{name}": value.double() for name, value in sums.items()})


PUBLIC_SEED = 1000
"""The networks of the public arm start from seeds of their own."""


def done(path: Path) -> set[tuple[str, ...]]:
    """The trainings that are there."""
    if not path.exists():
        return set()
    with path.open(encoding="utf-8") as file:
        return {tuple(row[name] for name in KEPT[:5]) for row in csv.DictReader(file)}


def interval(values: NDArray[np.float64], repeats: int = 4000) -> str:
    """A mean over patients with its bootstrap interval."""
    rng = np.random.default_rng(1)
    drawn = values[rng.integers(0, len(values), (repeats, len(values)))].mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{values.mean():+.3f} [{low:+.3f}, {high:+.3f}]"


def ratio(arm: pd.Series, real: pd.Series, repeats: int = 4000) -> str:
    """Of two means over the same patients."""
    rng, pairs = np.random.default_rng(1), np.stack([arm, real], 1)
    means = pairs[rng.integers(0, len(pairs), (repeats, len(pairs)))].mean(1)
    low, high = np.quantile(means[:, 0] / means[:, 1], [0.025, 0.975])
    return f"{arm.mean() / real.mean():.2f} [{low:.2f}, {high:.2f}]"


def table(path: Path) -> str:
    """Dice of every arm by split; ratios and gains over all splits, paired over holdout patients.

    A patient's scores are averaged over starts, then over the splits whose holdout has the patient; intervals are over
    patients.
    """
    found = pd.read_csv(path, dtype={"patient": str})
    lines = []
    for (members, epsilon), _ in found[found["arm"] == FITTED].groupby(["members", "epsilon"]):
        own = found[(found["members"] == members) & found["epsilon"].isin([0.0, epsilon])]
        lines += ["", f"{members} members, epsilon {epsilon:g} (noise simulated), Dice of holdout patients"]
        lines += _by_split(own)
        each = own.groupby(["arm", "split", "patient"])["dice"].mean().unstack("arm").dropna()
        of_patient = each.groupby("patient").mean()
        for arm in (PUBLIC, PLACEBO, FITTED):
            lines.append(f"{arm:8} to real: {ratio(of_patient[arm], of_patient[REAL])}")
        for arm, over in ((FITTED, PUBLIC), (FITTED, PLACEBO), (PLACEBO, PUBLIC)):
            lines.append(f"{arm} over {over}: {interval((of_patient[arm] - of_patient[over]).to_numpy())}")
    return "\n".join(lines)


def _by_split(own: pd.DataFrame) -> list[str]:
    arms, lines = (REAL, PUBLIC, PLACEBO, FITTED), []
    lines.append("split  " + "  ".join(f"{arm:>20}" for arm in arms) + "   (mean; by start)")
    for split, rows in own.groupby("split"):
        shown = []
        for arm in arms:
            starts = rows[rows["arm"] == arm].groupby("start")["dice"].mean()
            shown.append(f"{starts.mean():.3f} ({' '.join(f'{value:.2f}' for value in starts)})")
        lines.append(f"{split:5}  " + "  ".join(f"{text:>20}" for text in shown))
    return lines


def options(about: str | None) -> argparse.ArgumentParser:
    """What every measurement on such a set is asked."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--names", default="t1,flair,t1ce", help="channels of an .npz")
    parser.add_argument("--channel", default="", help="channels to keep: a,b; default all")
    parser.add_argument("--between", type=float, nargs=2, default=(0.0, 1.0), help="part of each patient's stack")
    parser.add_argument("--count", type=int, default=1200, help="images that are drawn per arm")
    parser.add_argument("--table", action="store_true", help="print what is there and stop")
    return parser


def measured(args: argparse.Namespace, bench: type[Any], shown: Callable[[Path], str]) -> None:
    """Run the bench on the set unless the table alone is wanted; print the table."""
    if not args.table:
        torch.set_num_threads(1)
        images = narrowed(read_set(args.set, args.names), args.channel, tuple(args.between))
        bench(out=args.out, images=images, args=args).run()
    print(shown(args.out / "scores.csv"))


def main() -> None:
    """See the module."""
    parser = options(__doc__)
    parser.add_argument("--head", action="store_true", help="pictures show skull and scalp")
    parser.add_argument("--splits", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--epsilon", type=float, nargs="+", default=[8.0], help="inf: without noise")
    parser.add_argument("--members", type=int, default=0, help="at most so many members; 0: all")
    parser.add_argument("--steps", type=int, default=400, help="of the U-Net, the same for every arm")
    parser.add_argument("--pool", type=int, default=1000)
    parser.add_argument("--children", type=int, default=800)
    measured(parser.parse_args(), Bench, table)


if __name__ == "__main__":
    main()
