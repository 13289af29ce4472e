"""Trains networks on simulated heads, for runs with `--start phantoms`: made once, then kept.

The heads are pseudo-patients of the phantom simulator in its wide public styles, half of them with skull and scalp and
half without, at the size and with the channels, labels and classes of the run. No patient has any part in it.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from fedsynth import atomic_files
from fedsynth.data import Header, ImageSet
from fedsynth.data.format import COLUMNS, PHANTOM
from fedsynth.data.phantoms.scanner import CLASSES
from fedsynth.errors import ConfigError
from fedsynth.models.base import ImageShape
from fedsynth.models.phantom_simulator import PhantomSimulator, check_size
from fedsynth.runs import Run, create_run
from fedsynth.training.centralised import OnStep, run_training
from fedsynth.training.public_start import kept_start, pretraining
from fedsynth.training.settings import SIMULATED, TrainSettings

PATIENTS, SLICES = 1000, 3
SEED, STREAM = 0, 3
FIELD_MM = 208.0
REMEDY = "leave --start away, or go on from a run of your own"


def pretrain(settings: TrainSettings, shape: ImageShape, *, on_step: OnStep = lambda report, total: None) -> Run | None:
    """The networks that this run goes on from, made where they are not there; whoever asks meanwhile waits.

    None for runs that do not start from simulated heads.
    """
    if settings.start != SIMULATED:
        return None
    check_shape(shape)
    kept = kept_start(settings, shape)
    with _alone(kept.folder):
        if not kept.config.is_file():
            _make(kept, settings, shape, on_step)
    return kept


def check_shape(shape: ImageShape) -> None:
    """Refuse images that the simulator cannot stand for, before any is drawn."""
    if problem := check_size(shape.size):
        size = " x ".join(map(str, shape.size))
        raise ConfigError(f"--start phantoms: {problem}", value=size, remedy=REMEDY)
    for head in (True, False):
        _simulator(shape, head=head)


def simulated_heads(shape: ImageShape) -> ImageSet:
    """`PATIENTS` of them, with `SLICES` each, as an image set of phantoms."""
    images, masks = [], []
    rows: list[dict[str, str]] = []
    for head in (True, False):
        simulator, rng = _simulator(shape, head=head), np.random.default_rng([SEED, STREAM, head])
        for number in range(PATIENTS // 2):
            label = int(rng.choice(len(CLASSES), p=simulator.shares))
            name, patient = _class_name(simulator, label, rng), f"{'head' if head else 'brain'}-{number}"
            for image, mask in simulator.slices(simulator.draw(rng, label), rng, SLICES):
                images.append(image)
                masks.append(mask)
                rows.append({"case": f"{patient}-{len(rows)}", "patient": patient, "class": name})
    return ImageSet(
        header=_header(shape),
        cases=pd.DataFrame(rows).reindex(columns=list(COLUMNS), fill_value=""),
        images=np.stack(images),
        masks=np.stack(masks) if shape.n_labels else None,
    )


def _class_name(simulator: PhantomSimulator, label: int, rng: np.random.Generator) -> str:
    """Of the shape's classes the one that the phantom's is; where it knows none of them, any."""
    names = simulator.shape.class_names
    if not names:
        return ""
    known = simulator.classes.index(label) if simulator.knows_classes else int(rng.integers(len(names)))
    return names[known]


def _header(shape: ImageShape) -> Header:
    return Header(
        name="simulated heads",
        origin="real",
        channels=shape.channel_names,
        classes=shape.class_names,
        mask_labels=shape.label_names,
        spacing_mm=(FIELD_MM / shape.size[0],) * 2,
        provenance={PHANTOM: {"styles": "public", "patients": PATIENTS, "slices": SLICES, "seed": SEED}},
    )


def _simulator(shape: ImageShape, *, head: bool) -> PhantomSimulator:
    """Of images of this shape; masks that nobody asked for are drawn all the same."""
    drawn = shape if shape.n_labels else replace(shape, n_labels=2, label_names=())
    return PhantomSimulator(shape=drawn, head=head, remedy=REMEDY)


def _make(kept: Run, settings: TrainSettings, shape: ImageShape, on_step: OnStep) -> None:
    """In a folder beside it, which is renamed when it is whole."""
    own = pretraining(settings)
    aside = Path(tempfile.mkdtemp(prefix=".making-", dir=kept.folder.parent))
    try:
        run = create_run(own, generator=own.generator, seed=own.seed, folder=aside / kept.folder.name)
        run_training(simulated_heads(shape), own, run, on_step=on_step)
        run.folder.rename(kept.folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time makes this folder."""
    with atomic_files.told_when_unwritable(folder.parent):
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
