"""How much the phantoms ask: what a U-Net and a classifier learn from members, beside controls that learn no anatomy.

    OMP_NUM_THREADS=1 python benchmarks/phantoms.py OUT [--sizes 64 32] [--seeds 1] [--only ARM ...]

200 patients of four hospitals, five slices each. The controls are the best single threshold of any channel (grey
values as stored and standardised within the brain; fitted on the reference patients, for either measure) and a U-Net
that saw one mean brain with bright blobs. All are scored on the holdout patients. Finished rows are kept in
OUT/phantoms.csv, and a run that was broken off goes on.
"""

import argparse
import csv
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fedsynth.data import ImageSet
from fedsynth.data.phantoms.cohort import make_phantoms
from fedsynth.data.phantoms.settings import PhantomSettings
from fedsynth.training.downstream import learn, predictions
from fedsynth.training.settings import TaskSettings

Masks = NDArray[np.bool_]
SEGMENTER_STEPS, CLASSIFIER_STEPS = 600, 600
COLUMNS = ("size", "seed", "arm", "what", "value", "low", "high", "seconds")
T2_FLAIR, BRIGHTER = (1, 2), 60
"""The channels in which a blob of the mean brain is brighter, and by how many grey levels."""


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """One phantom set, in memory."""

    images: ImageSet
    seed: int

    def role(self, role: str) -> ImageSet:
        """The images of one role."""
        chosen = self.images.select(role=role)
        return replace(chosen, images=np.asarray(chosen.images), masks=np.asarray(chosen.masks))


Scores = dict[str, NDArray[np.float64]]
"""One value per patient or slice, by the name of the measure."""


def scores(found: Masks, images: ImageSet) -> Scores:
    """Whole-tumour Dice per ill patient, Dice per slice (empty on empty: 1), false positives of the other slices."""
    true = np.asarray(images.masks) > 0
    patient = images.cases["patient"].to_numpy()
    both, total = (found & true).sum((1, 2)), found.sum((1, 2)) + true.sum((1, 2))
    ill = [patient == name for name in np.unique(patient[true.any((1, 2))])]
    return {
        "Dice, ill patients": np.array([2 * both[rows].sum() / total[rows].sum() for rows in ill]),
        "slice Dice": np.where(total > 0, 2 * both / np.maximum(total, 1), 1.0),
        "false-positive pixels": found[~true.any((1, 2))].sum((1, 2)).astype(float),
    }


def label_dice(guess: NDArray[np.uint8], images: ImageSet) -> Scores:
    """Dice of every label, over the patients who have it."""
    true, patient = np.asarray(images.masks), images.cases["patient"].to_numpy()
    made = {}
    for number, label in enumerate(images.header.mask_labels[1:], 1):
        have = [patient == name for name in np.unique(patient[(true == number).any((1, 2))])]
        pairs = [(guess[rows] == number, true[rows] == number) for rows in have]
        made[label] = np.array([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs])
    return made


def standardised(images: ImageSet) -> NDArray[np.float32]:
    """Every channel of every image with mean 0 and deviation 1 within the brain."""
    values = np.asarray(images.images, np.float32)
    brain = (values.max(1) > 0)[:, None]
    count = np.maximum(brain.sum((2, 3), keepdims=True), 1)
    mean = (values * brain).sum((2, 3), keepdims=True) / count
    spread = np.sqrt((((values - mean) * brain) ** 2).sum((2, 3), keepdims=True) / count)
    made: NDArray[np.float32] = np.where(brain, (values - mean) / np.maximum(spread, 1), np.nan)
    return made


def stored(images: ImageSet) -> NDArray[np.float32]:
    """The grey values; outside the brain no number, so that nothing there passes a threshold."""
    values = np.asarray(images.images, np.float32)
    return np.where((values.max(1) > 0)[:, None], values, np.nan).astype(np.float32)


def threshold_arm(cohort: Cohort) -> Scores:
    """The best threshold of either sign in any channel, chosen for each measure on the reference patients."""
    reference, holdout = cohort.role("reference"), cohort.role("holdout")
    best: dict[str, tuple[float, Scores]] = {}
    for view in (stored, standardised):
        known, asked = view(reference), view(holdout)
        for channel in range(known.shape[1]):
            for level in np.nanquantile(known[:, channel], np.linspace(0.005, 0.995, 100)):
                for sign in (1, -1):
                    fitted = scores(sign * known[:, channel] > sign * level, reference)
                    for measure in ("Dice, ill patients", "slice Dice"):
                        value = fitted[measure].mean()
                        if value > best.get(measure, (0.0, {}))[0]:
                            best[measure] = value, scores(sign * asked[:, channel] > sign * level, holdout)
    made = {measure: found[measure] for measure, (_, found) in best.items()}
    return made | {"false-positive pixels": best["Dice, ill patients"][1]["false-positive pixels"]}


def segmenter_arm(train: ImageSet, cohort: Cohort) -> Scores:
    """A U-Net as `fedsynth benchmark segmentation` trains it."""
    holdout = cohort.role("holdout")
    task = learn([train], TaskSettings(steps=SEGMENTER_STEPS, seed=cohort.seed)).task
    guess = np.stack([probability.argmax(0).astype(np.uint8) for probability in predictions(task, holdout)])
    return scores(guess > 0, holdout) | label_dice(guess, holdout)


def classifier_arm(cohort: Cohort) -> Scores:
    """The residual network that `fedsynth benchmark classification` trains."""
    holdout = cohort.role("holdout")
    task = learn([cohort.role("member")], TaskSettings(network="resnet", steps=CLASSIFIER_STEPS, seed=cohort.seed)).task
    guess = np.array([probability.argmax() for probability in predictions(task, holdout)])
    truth = holdout.cases["class"].map(list(holdout.header.classes).index).to_numpy()
    majority = truth == np.bincount(truth).argmax()
    return {"accuracy": (guess == truth).astype(float), "accuracy, majority class": majority.astype(float)}


def mean_brain(cohort: Cohort, count: int = 500) -> ImageSet:
    """The mean image of all members with one bright blob in it, labelled, at a random place within the brain."""
    members = cohort.role("member")
    rng = np.random.default_rng([cohort.seed, *b"mean brain"])
    mean = np.asarray(members.images, np.float32).mean(0)
    size = mean.shape[-1]
    places = np.argwhere(mean.max(0) > 0.5 * mean.max())
    rows, columns = np.mgrid[:size, :size]
    images, masks = [], []
    for _ in range(count):
        row, column = places[rng.integers(len(places))]
        radius, stretch = rng.uniform(0.05, 0.14) * size, np.exp(rng.normal(0, 0.2))
        wave = ndimage.gaussian_filter(rng.standard_normal((size, size)), size / 16)
        level = np.hypot((rows - row) * stretch, (columns - column) / stretch) / radius + 0.2 * wave / wave.std()
        blob = ndimage.gaussian_filter((level < 1).astype(np.float32), size / 90)
        shown = mean.copy()
        shown[T2_FLAIR, :, :] += BRIGHTER * blob
        images.append(np.clip(shown, 0, 255).astype(np.uint8))
        masks.append(((blob > 0.5) & (mean.max(0) > 0.2 * mean.max())).astype(np.uint8))
    cases = members.cases.iloc[np.arange(count) % len(members)].reset_index(drop=True)
    cases = cases.assign(case=[f"mean-{n}" for n in range(count)])
    header = replace(members.header, split=None)
    return ImageSet(header=header, cases=cases, images=np.stack(images), masks=np.stack(masks))


ARMS: dict[str, Callable[[Cohort], Scores]] = {
    "best threshold": threshold_arm,
    "mean brain with bright blobs": lambda cohort: segmenter_arm(mean_brain(cohort), cohort),
    "real": lambda cohort: segmenter_arm(cohort.role("member"), cohort),
    "classifier": classifier_arm,
}


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """95 % bootstrap interval of the mean."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (2000, len(values)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def measure(out: Path, sizes: Sequence[int], seeds: int, only: Sequence[str]) -> None:
    """Every arm that OUT/phantoms.csv does not have yet."""
    table = out / "phantoms.csv"
    out.mkdir(parents=True, exist_ok=True)
    known = set()
    if table.exists():
        with table.open() as file:
            known = {(row["size"], row["seed"], row["arm"]) for row in csv.DictReader(file)}
    else:
        table.write_text(",".join(COLUMNS) + "\n")
    for size in sizes:
        for seed in range(seeds):
            wanted = [arm for arm in only if (str(size), str(seed), arm) not in known]
            if not wanted:
                continue
            images = make_phantoms(
                out / f"{size}-{seed}", PhantomSettings(size=size, seed=seed), workers=1, overwrite=True
            )
            for arm in wanted:
                start = time.process_time()
                found = ARMS[arm](Cohort(images=images, seed=seed))
                seconds = time.process_time() - start
                with table.open("a") as file:
                    for what, values in found.items():
                        line = (size, seed, arm, what, values.mean(), *interval(values), seconds)
                        csv.writer(file, lineterminator="\n").writerow(
                            [f"{cell:.4g}" if isinstance(cell, float) else cell for cell in line]
                        )
                        print(size, seed, arm, what, f"{values.mean():.3f}", f"{seconds:.0f} s", flush=True)


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 32])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=tuple(ARMS), default=tuple(ARMS))
    asked = parser.parse_args()
    measure(asked.out, asked.sizes, asked.seeds, asked.only)


if __name__ == "__main__":
    main()
