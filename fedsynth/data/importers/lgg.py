"""LGG brain MRI with tumour masks as published on Kaggle: folders `TCGA_<institution>_<patient>_<date>` of slices.

Each slice `<folder>_<k>.tif` holds T1, FLAIR and contrast-enhanced T1 as red, green and blue, and has a
`<folder>_<k>_mask.tif` of 0 and 255. `data.csv` beside the folders tells the patients' grades.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from fedsynth.data.importers import ReadOptions, chosen_channels, refuse_unused, require_folder
from fedsynth.data.importers.pictures import map_labels, open_picture
from fedsynth.data.importers.source import Plan, Raw, Source
from fedsynth.errors import ConfigError, SourceError

CHANNELS = ("t1", "flair", "t1ce")
MASK_LABELS = ("background", "tumour")
GRADES = {"": "", "1": "grade-2", "2": "grade-3"}
NOTES = {
    "site": "the institution in the TCGA barcode",
    "class": "neoplasm_histologic_grade of data.csv; 1 is WHO grade 2 and 2 is WHO grade 3, as in TCGA's tables",
    "missing-sequences": "a sequence that a patient lacks is a copy of FLAIR, as in the source",
}
FOLDER = re.compile(r"(TCGA_([A-Za-z0-9]+)_[A-Za-z0-9]+)_\w+")


@dataclass(frozen=True, kw_only=True)
class Slice:
    """One slice of a patient: its number, picture and mask."""

    number: int
    image: Path
    mask: Path


def plan(source: Path, options: ReadOptions) -> Plan:
    """The patients below `source`, which is the folder `kaggle_3m` or holds it; every folder is one source."""
    refuse_unused(options, "lgg", {"channels"})
    channels = chosen_channels(CHANNELS, options)
    require_folder(source)
    root = source / "kaggle_3m" if (source / "kaggle_3m").is_dir() else source
    grades = _read_grades(root / "data.csv")
    folders = [folder for folder in sorted(root.iterdir()) if folder.is_dir() and _is_patient(folder)]
    sources = [_source(folder, grades, channels) for folder in folders]
    classes = tuple(name for name in GRADES.values() if name) if grades else ()
    return Plan(
        channels=channels,
        classes=classes,
        mask_labels=MASK_LABELS,
        sources=sources,
        dimensions=2,
        notes=NOTES if grades else {key: note for key, note in NOTES.items() if key != "class"},
        intensity="window:0,255",
    )


def _is_patient(folder: Path) -> bool:
    if FOLDER.fullmatch(folder.name):
        return True
    if next(folder.glob("*.tif"), None) is not None:
        wanted = "name it TCGA_<institution>_<patient>_<date>, or use the reader 'folder'"
        raise SourceError("the folder's name does not tell patient and institution", file=folder, remedy=wanted)
    return False


def _source(folder: Path, grades: dict[str, str], channels: tuple[str, ...]) -> Source:
    named = FOLDER.fullmatch(folder.name)
    assert named is not None
    slices, problems = _slices(folder)
    return Source(
        patient=named[1],
        site=named[2],
        label=grades.get(named[1], ""),
        file=folder,
        decode=partial(_decode, slices, channels),
        problems=tuple(problems),
    )


def _slices(folder: Path) -> tuple[list[Slice], list[SourceError]]:
    """The slices in the order of their numbers, and those that lack one of the two files."""
    pattern = re.compile(re.escape(folder.name) + r"_(\d+)(_mask)?\.tif", re.IGNORECASE)
    images: dict[int, Path] = {}
    masks: dict[int, Path] = {}
    for file in sorted(folder.iterdir()):
        if match := pattern.fullmatch(file.name):
            (masks if match[2] else images)[int(match[1])] = file
    problems = [
        SourceError("the mask of this slice is missing", file=images[number], remedy="it is <slice>_mask.tif")
        for number in sorted(images.keys() - masks.keys())
    ]
    problems += [
        SourceError("the slice of this mask is missing", file=masks[number])
        for number in sorted(masks.keys() - images.keys())
    ]
    if not images and not masks:
        problems.append(SourceError("the folder holds no slices", file=folder, remedy=f"named {folder.name}_<k>.tif"))
    both = sorted(images.keys() & masks.keys())
    return [Slice(number=number, image=images[number], mask=masks[number]) for number in both], problems


def _decode(slices: list[Slice], channels: tuple[str, ...]) -> Iterable[Raw | SourceError]:
    """All slices of a patient at once: only together do they show which sequences are copies of FLAIR."""
    decoded = list(_decode_each(slices))
    missing = _copies_of_flair([raw for raw in decoded if isinstance(raw, Raw)])
    wanted = [CHANNELS.index(channel) for channel in channels]
    for raw in decoded:
        if isinstance(raw, SourceError):
            yield raw
        else:
            yield replace(raw, image=raw.image[wanted], missing=tuple(name for name in channels if name in missing))


def _decode_each(slices: list[Slice]) -> Iterator[Raw | SourceError]:
    for one in slices:
        try:
            yield _decode_slice(one)
        except SourceError as error:
            yield error


def _decode_slice(one: Slice) -> Raw:
    image, mask = open_picture(one.image), open_picture(one.mask)
    if len(image) != len(CHANNELS):
        raise SourceError("the picture must have three channels", file=one.image, value=len(image))
    if mask.shape != (1, *image.shape[1:]):
        problem = f"the mask must be {(1, *image.shape[1:])} like its picture"
        raise SourceError(problem, file=one.mask, value=mask.shape)
    labels = map_labels(mask[0], {0: 0, 255: 1}, one.mask)
    return Raw(case=one.image.stem, image=image, mask=labels, spacing_mm=None, slice=one.number)


def _copies_of_flair(raws: list[Raw]) -> set[str]:
    flair = CHANNELS.index("flair")
    others = {name: index for index, name in enumerate(CHANNELS) if index != flair}
    return {
        name
        for name, index in others.items()
        if raws and all(np.array_equal(raw.image[index], raw.image[flair]) for raw in raws)
    }


def _read_grades(table: Path) -> dict[str, str]:
    """Patient to class name from `data.csv`; empty when there is no such file."""
    if not table.is_file():
        return {}
    try:
        rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise SourceError(f"is no readable table: {error}", file=table) from error
    for column in ("Patient", "neoplasm_histologic_grade"):
        if column not in rows.columns:
            raise SourceError(f"the column {column!r} is missing", file=table)
    grades: dict[str, str] = {}
    for row, (patient, cell) in enumerate(
        zip(rows["Patient"], rows["neoplasm_histologic_grade"], strict=True), start=2
    ):
        grade = cell.strip().removesuffix(".0")
        if grade not in GRADES:
            raise ConfigError("unknown grade", file=table, row=row, value=cell, remedy="known: 1, 2 or empty")
        if grades.setdefault(patient, GRADES[grade]) != GRADES[grade]:
            raise ConfigError("the patient has two grades", file=table, row=row, value=patient)
    return grades
