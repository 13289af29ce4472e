"""A cohort of phantom patients over several hospitals, written as an image set."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedsynth.atomic_files import refuse_existing
from fedsynth.config import as_table
from fedsynth.data.format import COLUMNS, HEADER, Header
from fedsynth.data.image_set import ImageSet
from fedsynth.data.parallel import Progress, ordered_map, silent
from fedsynth.data.phantoms.acquisition import CHANNELS
from fedsynth.data.phantoms.atlas import load_atlas
from fedsynth.data.phantoms.patient import (
    chosen_planes,
    draw_class,
    draw_patient,
    show_plane,
    stream,
    style_patient,
)
from fedsynth.data.phantoms.random_fields import Viewport, as_volume
from fedsynth.data.phantoms.scanner import CLASSES, Hospital, default_hospitals
from fedsynth.data.phantoms.settings import LABELS, PhantomSettings
from fedsynth.data.phantoms.style import PUBLIC, draw_style
from fedsynth.data.roles import Split
from fedsynth.data.split import draw_roles
from fedsynth.data.writer import ImageSetWriter
from fedsynth.errors import ConfigError

FEW = 16
"""Fewer patients than this are made before other processes would have started."""


def make_phantoms(
    out: Path,
    settings: PhantomSettings,
    hospitals: Sequence[Hospital] | None = None,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> ImageSet:
    """Write the cohort to the folder `out` and open it.

    Patient i goes to hospital i modulo their number and is the same whatever the number of patients and of `workers`
    (processes; default: one per core). `hospitals` replace the default ones, one per site.
    """
    if workers is not None and workers < 1:
        raise ConfigError("'workers' must be at least 1", value=workers)
    if workers is None and settings.patients < FEW:
        workers = 1
    hospitals = tuple(default_hospitals(settings.sites) if hospitals is None else hospitals)
    _check_hospitals(hospitals, settings)
    refuse_existing(out, marker=HEADER, overwrite=overwrite)
    view = Viewport(size=settings.size)
    shape = (len(CHANNELS), *[settings.size] * settings.dimensions)
    make = partial(phantom_images, settings=settings, hospitals=hospitals)
    with ImageSetWriter(out, shape, np.uint8, masks=True, overwrite=overwrite) as writer:
        for done, images in enumerate(ordered_map(make, range(settings.patients), workers=workers, processes=True), 1):
            for one in images:
                writer.append(one.row, one.image, one.mask)
            progress(done, settings.patients)
        cases, split = draw_roles(writer.cases(), settings.shares, settings.seed)
        writer.finish(_header(settings, hospitals, view, split), cases)
    return ImageSet.load(out, every_voxel=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class PhantomImage:
    """One image of one patient with its mask and its row of `cases.csv`, the role still empty."""

    row: dict[str, str]
    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]


def phantom_images(index: int, settings: PhantomSettings, hospitals: Sequence[Hospital]) -> list[PhantomImage]:
    """All images of patient `index`: slices, or one volume."""
    view = Viewport(size=settings.size)
    atlas = load_atlas(view.spacing_mm)
    hospital = hospitals[index % len(hospitals)]
    if settings.styles == "public":
        style = draw_style(stream(settings.seed, index, "style"), head=settings.head)
        patient = style_patient(settings.seed, index, hospital.case_mix, style, atlas)
    else:
        patient = draw_patient(settings.seed, index, hospital, atlas, head=settings.head)
    name = f"phantom-{index:05d}"
    row = {"case": name, "patient": name, "site": hospital.name, "role": "", "class": patient.label, "slice": ""}
    volume = settings.dimensions == 3
    chosen = range(view.size) if volume else chosen_planes(patient, view, settings.slices)
    shown = [show_plane(patient, atlas, view, plane, settings.labels) for plane in chosen]
    if volume:
        images, masks = (as_volume(np.stack(part)) for part in zip(*shown, strict=True))
        return [PhantomImage(row=row, image=images, mask=masks)]
    rows = [row | {"case": f"{name}-{plane:03d}", "slice": str(plane)} for plane in chosen]
    return [PhantomImage(row=r, image=image, mask=mask) for r, (image, mask) in zip(rows, shown, strict=True)]


def _check_hospitals(hospitals: Sequence[Hospital], settings: PhantomSettings) -> None:
    names = [hospital.name for hospital in hospitals]
    if len(hospitals) != settings.sites:
        raise ConfigError(f"{settings.sites} sites need as many hospitals", value=len(hospitals))
    if len(set(names)) != len(names) or "" in names:
        raise ConfigError("every hospital needs a name of its own", value=names)


def _header(settings: PhantomSettings, hospitals: Sequence[Hospital], view: Viewport, split: Split) -> Header:
    made = {key: value for key, value in as_table(settings).items() if key != "shares"}
    surroundings = "with skull, scalp and eyes of nobody" if settings.head else "skull-stripped"
    looks: dict[str, Any] = {"hospitals": [as_table(hospital) for hospital in hospitals]}
    if settings.styles == "public":
        looks = {"style-family": {part: {k: list(v) for k, v in r.items()} for part, r in PUBLIC.items()}}
    return Header(
        name="phantom",  # not the folder's: the same seed gives the same bytes wherever they are written
        origin="real",
        channels=CHANNELS,
        classes=CLASSES,
        mask_labels=LABELS[settings.labels],
        spacing_mm=(view.spacing_mm,) * settings.dimensions,
        split=split,
        provenance={
            "phantom": made,
            "anatomy": f"MNI152 nonlinear symmetric 2009a, as shipped inside nilearn; {surroundings}",
            **looks,
        },
    )


# What a phantom cohort will hold, told in a moment without drawing a single image.


def expected_cases(settings: PhantomSettings, hospitals: Sequence[Hospital]) -> pd.DataFrame:
    """The table that `make_phantoms` will write, in its order; only case names and slice numbers are not known yet."""
    rows = []
    for index in range(settings.patients):
        hospital = hospitals[index % len(hospitals)]
        label, _ = draw_class(settings.seed, index, hospital.case_mix)
        named = {"patient": f"phantom-{index:05d}", "site": hospital.name, "role": "", "class": label, "slice": ""}
        count = settings.slices if settings.dimensions == 2 else 1
        rows += [named | {"case": f"phantom-{index:05d} image {k + 1}"} for k in range(count)]
    return draw_roles(pd.DataFrame(rows, columns=list(COLUMNS), dtype=str), settings.shares, settings.seed)[0]
