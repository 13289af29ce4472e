"""BraTS brain tumours as published from 2015 to 2023: four MRI sequences and a tumour mask per case.

Which patient, hospital and class a case is of is told by the folders' names alone: see `brats_names`. Label numbers
changed over the years and are translated by name.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsynth.errors import ConfigError, SourceError, nearest
from fedsynth.images.readers import ReadOptions, refuse_unused, require_folder
from fedsynth.images.readers.brats_names import MASK, MODALITIES, Case, find_cases
from fedsynth.images.readers.decoding import open_volume
from fedsynth.images.readers.pictures import map_labels
from fedsynth.images.readers.volume import Volume, require_same_grid
from fedsynth.images.source import Plan, Raw, Source

MASK_LABELS = ("background", "edema", "core", "enhancing")
CLASSES = ("low-grade", "high-grade")
LABELS = {
    "2015": {0: "background", 1: "core", 2: "edema", 3: "core", 4: "enhancing"},
    "2018": {0: "background", 1: "core", 2: "edema", 4: "enhancing"},
    "2023": {0: "background", 1: "core", 2: "edema", 3: "enhancing"},
}
"""Per naming: the published number of each label. Core is necrosis and non-enhancing tumour together."""
CAVITY_SINCE_2024 = 4
"""Sets after treatment (2024) keep the numbers of 2023 and add the resection cavity, which is no part of the tumour."""


def plan(source: Path, options: ReadOptions) -> Plan:
    """The cases anywhere below `source`; the channels are those named, or all that any case has."""
    refuse_unused(options, "brats", {"dimensions", "channels", "site"})
    require_folder(source)
    cases = find_cases(source)
    channels = _channels(cases, options, source)
    with_masks = any(MASK in case.files for case in cases)
    sources = [_source(case, channels, with_masks, options.site or "brats") for case in cases]
    conventions = sorted({case.convention for case in cases})
    notes: dict[str, Any] = {"naming": conventions, "orientation": "RAS"}
    if with_masks:
        notes["labels-of"] = {
            year: {str(number): name for number, name in LABELS[year].items()} for year in conventions
        }
    return Plan(
        channels=channels,
        classes=CLASSES if any(case.label for case in cases) else (),
        mask_labels=MASK_LABELS if with_masks else (),
        sources=sources,
        dimensions=3,
        notes=notes,
        intensity="percentile:1,99",
    )


def _channels(cases: list[Case], options: ReadOptions, source: Path) -> tuple[str, ...]:
    present = tuple(name for name in MODALITIES if any(name in case.files for case in cases))
    for channel in options.channels:
        if channel not in MODALITIES:
            raise ConfigError("unknown channel", value=channel, remedy=nearest(channel, MODALITIES))
        if cases and channel not in present:
            remedy = f"there are: {', '.join(present) or 'none'}"
            raise SourceError(f"no case has the modality {channel!r}", file=source, remedy=remedy)
    if len(set(options.channels)) != len(options.channels):
        raise ConfigError("a channel is named twice", value=",".join(options.channels))
    return options.channels or present


def _source(case: Case, channels: tuple[str, ...], with_masks: bool, other_site: str) -> Source:
    return Source(
        patient=case.patient,
        site=case.site or other_site,
        label=case.label,
        file=case.folder,
        decode=partial(_decode, case, channels, with_masks),
        problems=tuple(_problems(case, channels, with_masks)),
    )


def _problems(case: Case, channels: tuple[str, ...], with_masks: bool) -> Iterator[SourceError]:
    for channel in channels:
        if channel not in case.files:
            others = ",".join(name for name in channels if name in case.files)
            remedy = f"add it, or choose others with --channels {others}"
            yield SourceError(
                f"the modality {channel!r} of case {case.name!r} is missing", file=case.folder, remedy=remedy
            )
    if with_masks and MASK not in case.files:
        remedy = "other cases have one: import those without apart"
        yield SourceError(f"the mask of case {case.name!r} is missing", file=case.folder, remedy=remedy)
    for kind, files in case.doubled.items():
        names = " and ".join(file.name for file in files)
        yield SourceError(f"case {case.name!r} has several files for {kind!r}: {names}", file=case.folder)


def _decode(case: Case, channels: tuple[str, ...], with_masks: bool) -> Iterable[Raw]:
    if any(True for _ in _problems(case, channels, with_masks)):
        return
    first = open_volume(case.files[channels[0]])
    arrays = [first.array, *(_on_grid_of(first, case.files[channel]).array for channel in channels[1:])]
    mask = _mask(_on_grid_of(first, case.files[MASK]), case.convention) if with_masks else None
    yield Raw(case=case.name, image=np.stack(arrays), mask=mask, spacing_mm=first.spacing_mm)


def _on_grid_of(first: Volume, file: Path) -> Volume:
    volume = open_volume(file)
    require_same_grid(first, volume)
    return volume


def _mask(volume: Volume, convention: str) -> NDArray[np.uint8]:
    table = {number: MASK_LABELS.index(name) for number, name in LABELS[convention].items()}
    if convention == "2023" and (volume.array == CAVITY_SINCE_2024).any():
        remedy = "list such sets for the reader 'volumes', with --mask-labels background,core,edema,enhancing,cavity"
        problem = "the mask has a resection cavity, as BraTS after treatment (2024) has"
        raise SourceError(problem, file=volume.file, value=CAVITY_SINCE_2024, remedy=remedy)
    return map_labels(volume.array, table, volume.file)
