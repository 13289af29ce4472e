"""Does every family learn? Each is trained on phantoms and compared with held-out ones, with noise and flat images.

    python benchmarks/families.py OUT [--families dcgan,vae] [--seconds 180 | --steps 3000] [--size 32] [--dimensions 2]
    python benchmarks/families.py OUT --images SET --families dcgan,stylegan2,spade  # on your images

Writes a sheet per family and a table: a Frechet distance on fixed features (pooled pixels, contrast, mask shares),
beside the same distance for other real patients, for noise and for flat images. One seed, short runs: it ranks nothing.
"""

import argparse
import csv
import time
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from fedsynth import atomic_files
from fedsynth.data import ImageSet
from fedsynth.data.contact_sheet import contact_sheet
from fedsynth.data.phantoms.cohort import make_phantoms
from fedsynth.data.phantoms.settings import PhantomSettings
from fedsynth.models.pairing import LABEL_TO_IMAGE
from fedsynth.runs import create_run
from fedsynth.training.centralised import run_training
from fedsynth.training.checkpoint import load_generator
from fedsynth.training.generate import Drawing
from fedsynth.training.paired_sources import choose_sources
from fedsynth.training.session import prepare
from fedsynth.training.settings import TrainSettings

JOINT = [
    "mlp",
    "dcgan",
    "lsgan",
    "wgan",
    "wgan-gp",
    "progan",
    "stylegan",
    "stylegan2",
    "stylegan3",
    "r3gan",
    "vae",
    "diffusion",
    "two-stage",
]
PAIRED = ["pix2pix", "spade", "label-gmm"]
GRID = 8
COLUMNS = [
    "family",
    "dimensions",
    "size",
    "steps",
    "seconds",
    "images_per_second",
    "distance",
    "real",
    "noise",
    "flat",
    "times_better",
]


def features(images: ImageSet) -> NDArray[np.float64]:
    """Per image: area means on a coarse grid, the local contrast there, and the share of each label."""
    size = images.size
    blocks = [np.linspace(0, side, min(side, GRID if len(size) == 2 else GRID // 2) + 1).astype(int) for side in size]
    rows = []
    for i in range(len(images)):
        picture = np.asarray(images.images[i], np.float64) / (255 if images.images.dtype == np.uint8 else 1)
        means = _pooled(picture, blocks)
        contrast = np.sqrt(np.maximum(_pooled(picture**2, blocks) - means**2, 0))
        parts = [means.ravel(), contrast.ravel()]
        if images.masks is not None:
            parts.append(np.bincount(images.masks[i].ravel(), minlength=len(images.header.mask_labels)) / np.prod(size))
        rows.append(np.concatenate(parts))
    return np.array(rows)


def _pooled(picture: NDArray[np.float64], blocks: list[NDArray[np.int64]]) -> NDArray[np.float64]:
    for axis, edges in enumerate(blocks, 1):
        picture = np.add.reduceat(picture, edges[:-1], axis=axis) / np.diff(edges).reshape(
            -1, *[1] * (picture.ndim - axis - 1)
        )
    return picture


def frechet(first: NDArray[np.float64], second: NDArray[np.float64], basis: NDArray[np.float64]) -> float:
    """The Frechet distance between two samples in the fixed `basis` (features, components)."""
    a, b = first @ basis, second @ basis
    here, there = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    roots = np.sqrt(np.maximum(linalg.eigvals(here @ there).real, 0))  # the trace of the matrix root
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(here + there) - 2 * roots.sum())


def fixed_basis(real: NDArray[np.float64], components: int = 32) -> NDArray[np.float64]:
    """The leading directions of reference patients, unscaled: blind to members, holdout and synthetic images."""
    return np.linalg.svd(real - real.mean(0), full_matrices=False)[2][:components].T


def baselines(holdout: ImageSet) -> dict[str, ImageSet]:
    """Noise with the holdout's grey values, and its mean image over and over."""
    rng = np.random.default_rng(0)
    pixels = np.asarray(holdout.images)
    flat = np.broadcast_to(pixels.mean((0, *range(2, pixels.ndim)), keepdims=True).astype(np.uint8), pixels.shape)
    noise = rng.permuted(pixels.reshape(len(pixels), pixels.shape[1], -1), axis=2).reshape(pixels.shape)
    masks = np.asarray(holdout.masks)
    return {
        "noise": replace(
            holdout, images=noise, masks=rng.permuted(masks.reshape(len(masks), -1), axis=1).reshape(masks.shape)
        ),
        "flat": replace(holdout, images=flat, masks=np.zeros_like(masks)),
    }


def step_seconds(images: ImageSet, settings: TrainSettings) -> float:
    """How long a step takes here, after a warm-up."""
    trainer = prepare(images, replace(settings, steps=100000)).trainer
    trainer.step = 99900  # growing families are slowest at the end
    list(trainer.run(2))
    start = time.perf_counter()
    list(trainer.run(4))
    return (time.perf_counter() - start) / 4


def measure(
    family: str, images: ImageSet, out: Path, seconds: float, count: int, steps: int | None = None
) -> dict[str, object]:
    """Train one family for `steps` or about `seconds`, draw `count` images, write the sheet and return the row."""
    settings = TrainSettings(generator=family, images=Path("phantom"), sheets=0)
    if family == "label-gmm":
        settings = replace(settings, pairing=LABEL_TO_IMAGE)
    elif family in PAIRED:
        settings = replace(settings, generator="two-stage", options={"renderer": family})
    if family != "label-gmm":
        if steps is None:
            steps = max(20, int(seconds / step_seconds(images, settings)))
        settings = replace(settings, steps=steps)
    start = time.perf_counter()
    run = create_run(settings, generator=family, base=out / "runs")
    run_training(images, settings, run)
    took = time.perf_counter() - start
    generator, card = load_generator(run.checkpoints)
    reference = images.select(role="reference")
    sources = choose_sources(card, reference, count) if family in PAIRED else None
    drawn = Drawing(generator, card, count=count, sources=sources).in_memory(f"{family}, {card.steps} steps")
    buffer = BytesIO()
    contact_sheet(drawn, rows=8).save(buffer, "PNG", optimize=True)
    atomic_files.write_bytes(out / f"{family}-{images.header.dimensions}d.png", buffer.getvalue())
    holdout = images.select(role="holdout")
    basis = fixed_basis(features(reference))
    real = features(holdout)
    others = {name: frechet(features(shown), real, basis) for name, shown in baselines(holdout).items()}
    members = features(images.select(role="member"))
    distance = frechet(features(drawn), real, basis)
    batch = prepare(images, settings).trainer.recipe.batch
    return {
        "family": family,
        "dimensions": images.header.dimensions,
        "size": images.size[0],
        "steps": card.steps,
        "seconds": round(took, 1),
        "images_per_second": round(card.steps * batch / took, 1),
        "distance": round(distance, 4),
        "real": round(frechet(members[: len(real)], real, basis), 4),
        **{name: round(value, 4) for name, value in others.items()},
        "times_better": round(min(others.values()) / distance, 1),
    }


def add_row(table: Path, columns: list[str], row: dict[str, object]) -> None:
    """Add one measurement to a table on disk, which a run that breaks off leaves as far as it came, and show it."""
    new = not table.exists()
    with table.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns)
        if new:
            writer.writeheader()
        writer.writerow(row)
    print(row, flush=True)


def phantoms(asked: argparse.Namespace, labels: Literal["tumour", "tissue+tumour"]) -> ImageSet:
    """The phantom cohort asked for, made once; paired families start from maps of tissue as well."""
    folder = asked.out / f"phantom-{asked.dimensions}d-{labels}"
    if not folder.exists():
        settings = PhantomSettings(patients=asked.patients, size=asked.size, dimensions=asked.dimensions, labels=labels)
        make_phantoms(folder, settings)
    return ImageSet.load(folder)


def main() -> None:
    """Measure the families asked for, adding rows to the table as they are done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--families", default=",".join(JOINT + PAIRED))
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--steps", type=int, help="instead of seconds: the same work on a busy machine")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--dimensions", type=int, default=2)
    parser.add_argument("--patients", type=int, default=240)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--images", type=Path, help="a set with roles and masks, instead of phantoms")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    given = None if asked.images is None else ImageSet.load(asked.images)
    table = asked.out / f"families-{asked.dimensions if given is None else given.header.dimensions}d.csv"
    for family in asked.families.split(","):
        images = given or phantoms(asked, "tissue+tumour" if family in PAIRED else "tumour")
        add_row(table, COLUMNS, measure(family, images, asked.out, asked.seconds, asked.count, asked.steps))


if __name__ == "__main__":
    main()
