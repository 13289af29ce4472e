"""Images of another kind than brains: a speckled fan, as of ultrasound, with dark nodules and perhaps their masks."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage

from fedsynth.data import Header, ImageSet
from fedsynth.data.format import COLUMNS

SIDE = 24
ROWS, COLUMNS_ = np.mgrid[:SIDE, :SIDE] + 0.5
FAN = (np.abs(COLUMNS_ - SIDE / 2) < 0.25 * SIDE + 0.25 * ROWS) & (ROWS > 1)


def scan(rng: np.random.Generator, *, radius: float, gamma: float, level: float) -> tuple[np.ndarray, np.ndarray]:
    """A fan of speckle with one nodule, and the nodule's mask; `gamma` and `level` are the scanner's."""
    row, column = rng.uniform(0.4, 0.75) * SIDE, rng.uniform(0.35, 0.65) * SIDE
    nodule = np.hypot(ROWS - row, COLUMNS_ - column) < radius
    speckle = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 0.7)
    tissue = np.clip(0.65 + 0.12 * speckle - 0.4 * nodule, 0.08, 1)
    return level * (tissue * FAN) ** gamma, (nodule & FAN).astype(np.uint8)


def other_scan(rng: np.random.Generator, *, radius: float, gamma: float, level: float) -> tuple[np.ndarray, np.ndarray]:
    """The same by another generator: Rayleigh speckle, tissue that darkens with depth, an oval nodule that has a soft
    edge and throws a shadow."""
    row, column, turn = rng.uniform(0.35, 0.7) * SIDE, rng.uniform(0.35, 0.65) * SIDE, rng.uniform(0, np.pi)
    along = (ROWS - row) * np.cos(turn) + (COLUMNS_ - column) * np.sin(turn)
    across = (COLUMNS_ - column) * np.cos(turn) - (ROWS - row) * np.sin(turn)
    oval = np.hypot(along / 1.25, across / 0.8)
    nodule = oval < radius
    shadow = (row < ROWS) & (np.abs(COLUMNS_ - column) < 0.6 * radius)
    soft = 1 / (1 + np.exp((oval - radius) / 0.5))
    tissue = (0.75 - 0.25 * ROWS / SIDE) * (1 - 0.6 * soft) * (1 - 0.2 * shadow)
    speckle = ndimage.gaussian_filter(rng.rayleigh(0.8, (SIDE, SIDE)), 0.5)
    return level * np.clip(tissue * speckle * FAN, 0, 1) ** gamma, (nodule & FAN).astype(np.uint8)


def fans(
    patients: int,
    *,
    seed: int,
    radius: tuple[float, float] = (1.5, 5.0),
    gamma: tuple[float, float] = (0.9, 1.1),
    level: tuple[float, float] = (0.85, 1.0),
    masks: bool = True,
    classes: bool = False,
    name: str = "fans",
    generator: Callable[..., tuple[np.ndarray, np.ndarray]] = scan,
) -> ImageSet:
    """Two scans of each patient. Classes say whether a nodule is large (from a radius of 3)."""
    rng = np.random.default_rng(seed)
    images, maps, rows = [], [], []
    for patient in range(patients):
        size = rng.uniform(*radius)
        kept = {"radius": size, "gamma": rng.uniform(*gamma), "level": rng.uniform(*level)}
        label = ("large" if size >= 3 else "small") if classes else ""
        for slice_ in range(2):
            image, mask = generator(rng, **kept)
            images.append(np.rint(image * 255).astype(np.uint8)[None])
            maps.append(mask)
            who = {"patient": f"{name}-{patient:03d}", "site": "one", "role": "member", "class": label}
            rows.append({"case": f"{name}-{patient:03d}-{slice_}", **who, "slice": str(slice_)})
    header = Header(
        name=name,
        origin="real",
        channels=("b-mode",),
        classes=("large", "small") if classes else (),
        mask_labels=("background", "nodule") if masks else (),
        spacing_mm=(1.0, 1.0),
        provenance={"source": "drawn by the tests", "licence": "none needed"},
    )
    cases = pd.DataFrame(rows, columns=list(COLUMNS), dtype=str)
    return ImageSet(header=header, cases=cases, images=np.stack(images), masks=np.stack(maps) if masks else None)


def public_fans(folder: Path, **changes: object) -> Path:
    """A public set of fans on disk."""
    fans(**{"patients": 40, "seed": 1, "name": "public-fans", **changes}).save(folder)  # type: ignore[arg-type]
    return folder
