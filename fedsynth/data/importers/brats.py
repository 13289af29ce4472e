"""BraTS brain tumours as published from 2015 to 2023: four MRI sequences and a tumour mask per case.

Which patient, hospital and class a case is of is told by the folders' names alone: see `brats_names`. Label numbers
changed over the years and are translated by name.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedsynth.data.importers import ReadOptions, refuse_unused, require_folder
from fedsynth.data.importers.pictures import map_labels
from fedsynth.data.importers.source import Plan, Raw, Source
from fedsynth.data.importers.volume import Volume, kind_of, require_same_grid
from fedsynth.data.importers.volume_decoding import SIMPLEITK_KINDS, open_volume
from fedsynth.errors import ConfigError, SourceError, nearest

# What the names of BraTS files and folders say: which files make a case, of which patient, hospital and class.
#
# It opens no image. Namings: 2015 (`VSD.Brain.XX.O.MR_Flair.1.mha` below `HGG` or `LGG`, and conversions of it such as
# `Flair_normalised.nii.gz` with `OTMultiClass.nii.gz`), 2017 to 2021 (`Brats18_CBICA_AAM_1_t1ce.nii.gz`) and 2023
# (`BraTS-GLI-00000-000-t1c.nii.gz`).


Convention = Literal["2015", "2018", "2023"]
MODALITIES = ("t1", "t1ce", "t2", "flair")
MASK = "mask"
KINDS = (".nii", ".nii.gz", *SIMPLEITK_KINDS)
KIND_OF_WORD = {
    "flair": "flair", "t2f": "flair",
    "t1": "t1", "t1n": "t1",
    "t1ce": "t1ce", "t1c": "t1ce", "t1gd": "t1ce",
    "t2": "t2", "t2w": "t2",
    "seg": MASK, "segm": MASK, "ot": MASK, "otmulticlass": MASK,
}  # fmt: skip
WORD = "|".join(sorted(KIND_OF_WORD, key=len, reverse=True))
OF_2015 = re.compile(rf"vsd\.brain.*\.(?:mr_)?({WORD})(?:\..*)?", re.IGNORECASE)
AT_THE_END = re.compile(rf"(.+)[_-]({WORD})", re.IGNORECASE)
AT_THE_START = re.compile(rf"({WORD})(?:[_.-].*)?", re.IGNORECASE)
NUMBERED_OTHERWISE = re.compile(r"brats-(ped|men-rt)-", re.IGNORECASE)
"""Children (1 enhancing, 2 non-enhancing, 3 cyst, 4 edema) and meningioma radiotherapy (one volume, called gtv)."""

PATIENT = (
    re.compile(r"(BraTS-[A-Z]+-\d+)-\d+", re.IGNORECASE),
    re.compile(r"(brats_(?:2013|tcia)_pat\d+)_\d+", re.IGNORECASE),
    re.compile(r"(brats(?:20)?\d\d_(?!training|validation|testing)[a-z0-9]+_[a-z0-9]+)_\d+", re.IGNORECASE),
)
"""The patient is the group; what follows it counts the patient's time points."""

SITE = (
    re.compile(r"brats_(2013|tcia)_pat\d+.*", re.IGNORECASE),
    re.compile(r"brats(?:20)?\d\d_(?!training|validation|testing)([a-z0-9]+)_.+", re.IGNORECASE),
)
GRADE = {"hgg": "high-grade", "lgg": "low-grade"}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One scan of one patient: where each modality and the mask lie, and what the names say about it."""

    name: str
    folder: Path
    files: dict[str, Path]
    doubled: dict[str, list[Path]]
    convention: Convention
    patient: str
    site: str
    label: str


@dataclass(frozen=True, kw_only=True)
class Named:
    """One file: the folder of its case, the case's name if the file tells it, the modality and the naming."""

    file: Path
    folder: Path
    case: str
    kind: str
    convention: Convention


def find_cases(source: Path) -> list[Case]:
    """Every case below `source`, in the order of paths."""
    grouped: defaultdict[Path, list[Named]] = defaultdict(list)
    for file in sorted(source.rglob("*")):
        if file.is_file() and (named := read_name(file)):
            grouped[named.folder].append(named)
    mapped = _name_mapping(source)
    return [
        _case(name, folder, files, mapped, source)
        for folder, together in grouped.items()
        for name, files in _by_case(folder, together).items()
    ]


def read_name(file: Path) -> Named | None:
    """What the name of one file says, or None for a file that is no modality and no mask (`brainmask.nii.gz`)."""
    kind = kind_of(file, KINDS)
    if not kind or file.name.startswith("."):
        return None
    stem = file.name[: -len(kind)]
    if match := OF_2015.fullmatch(stem):
        folder = file.parent.parent if file.parent.name.lower().startswith("vsd.") else file.parent
        return _named(file, folder, "", match[1], "2015")
    if match := AT_THE_END.fullmatch(stem):
        convention: Convention = "2023" if re.fullmatch(r"brats-[a-z]+-.*", match[1], re.IGNORECASE) else "2018"
        return _named(file, file.parent, match[1], match[2], convention)
    if match := AT_THE_START.fullmatch(stem):
        return _named(file, file.parent, "", match[1], "2015")
    return None


def patient_of(name: str) -> str:
    """The case's name without the time point: two scans of one person are one patient."""
    return next((match[1] for pattern in PATIENT if (match := pattern.fullmatch(name))), name)


def site_of(name: str) -> str:
    """The contributing hospital or collection, where the case's name tells it."""
    return next((match[1] for pattern in SITE if (match := pattern.fullmatch(name))), "")


def _named(file: Path, folder: Path, case: str, word: str, convention: Convention) -> Named:
    return Named(file=file, folder=folder, case=case, kind=KIND_OF_WORD[word.lower()], convention=convention)


def _by_case(folder: Path, together: list[Named]) -> dict[str, list[Named]]:
    """One case, named by its files or its folder, or several that share a folder and are distinguished by their
    files.
    """
    kinds = [named.kind for named in together]
    names = {named.case for named in together if named.kind != MASK}
    if len(set(kinds)) == len(kinds) or len(names) == 1:
        name = names.pop() if len(names) == 1 else ""
        return {name or folder.name: together}
    cases: defaultdict[str, list[Named]] = defaultdict(list)
    for named in together:
        cases[named.case or folder.name].append(named)
    return dict(cases)


def _case(name: str, folder: Path, named: list[Named], mapped: dict[str, tuple[str, str]], source: Path) -> Case:
    if NUMBERED_OTHERWISE.match(name):
        remedy = "list it for the reader 'volumes' and name its labels with --mask-labels"
        raise SourceError(
            "this BraTS set has labels of its own and is not read", file=folder, value=name, remedy=remedy
        )
    files: defaultdict[str, list[Path]] = defaultdict(list)
    for one in named:
        files[one.kind].append(one.file)
    former, label = mapped.get(name, (name, ""))
    folders = [source.resolve().name, *folder.relative_to(source).parts]
    parents = [GRADE[part.lower()] for part in folders if part.lower() in GRADE]
    conventions = {one.convention for one in named}
    return Case(
        name=name,
        folder=folder,
        files={kind: found[0] for kind, found in files.items()},
        doubled={kind: found for kind, found in files.items() if len(found) > 1},
        convention=_convention(name, conventions),
        patient=patient_of(name),
        site=site_of(former),
        label=label or (parents[-1] if parents else ""),
    )


def _convention(name: str, of_files: set[Convention]) -> Convention:
    """The case's name decides before its files' names: converted sets keep the former."""
    if re.match(r"brats_(2013|tcia)_pat\d+", name, re.IGNORECASE):
        return "2015"
    if re.match(r"brats-[a-z]+-", name, re.IGNORECASE):
        return "2023"
    return "2018" if re.match(r"brats(20)?\d\d_", name, re.IGNORECASE) else min(of_files)


def _name_mapping(source: Path) -> dict[str, tuple[str, str]]:
    """From `name_mapping.csv` of 2019 and later: a case's name to its name of an earlier year and its class."""
    near = [*sorted(source.rglob("*name_mapping*.csv")), *sorted(source.parent.glob("*name_mapping*.csv"))]
    mapped: dict[str, tuple[str, str]] = {}
    for file in near:
        try:
            rows = pd.read_csv(file, dtype=str, keep_default_na=False)
        except (OSError, ValueError, pd.errors.ParserError) as error:
            raise SourceError(f"is no readable table: {error}", file=file) from error
        names = [column for column in rows.columns if "subject_id" in column.lower()]
        for _, row in rows.iterrows():
            label = GRADE.get(row.get("Grade", "").strip().lower(), "")
            known = [row[column] for column in names if row[column] not in ("", "NA")]
            telling = next((name for name in reversed(known) if site_of(name)), "")
            mapped |= {name: (telling or name, label) for name in known}
    return mapped


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
