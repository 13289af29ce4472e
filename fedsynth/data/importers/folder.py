"""Pictures (PNG, JPEG, TIFF, BMP) in one folder per class, with optional `*_mask` files beside them.

Whose picture is whose must be said: by a pattern over the file names, or by stating that nobody has two.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsynth.data.importers import ReadOptions, chosen_channels
from fedsynth.data.importers.dicom import DICOM_KINDS
from fedsynth.data.importers.mask_labels import MaskLabels, declared_labels
from fedsynth.data.importers.picture_survey import survey
from fedsynth.data.importers.pictures import PICTURES, open_mask, open_picture
from fedsynth.data.importers.source import Plan, Raw, Source
from fedsynth.data.importers.volume import kind_of
from fedsynth.errors import ConfigError, SourceError

# Finds the pictures below a folder, the class of each, and the masks that belong to it. It opens none of them.


MASK = re.compile(r"(?P<stem>.+)_mask(_?\d+)?$", re.IGNORECASE)
SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
LITTER = {"thumbs.db", "desktop.ini", "__macosx"}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture: its file, its name relative to the source (with /), its class and its masks."""

    file: Path
    name: str
    label: str
    masks: tuple[Path, ...]

    @property
    def case(self) -> str:
        """The name without its ending."""
        return self.name.removesuffix(self.file.suffix)


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """The pictures in the order of their names, the classes, how many other files of which ending lay between them,
    and whether train and test folders stood above the classes.
    """

    pictures: list[Picture]
    classes: tuple[str, ...]
    ignored: dict[str, int]
    was_split: bool


def gather(source: Path) -> Gathered:
    """Everything below `source`: one folder per class, or pictures without classes.

    Where the first folders are called train, val or test, the classes are the folders inside them.
    """
    if not source.is_dir():
        problem = "is a file where a folder is expected" if source.exists() else "there is no such folder"
        raise SourceError(problem, file=source, remedy="name the folder that holds the class folders")
    files = sorted(walk(source), key=lambda file: file.relative_to(source).as_posix())
    pictures = [file for file in files if kind_of(file, PICTURES)]
    ignored = Counter(file.suffix.lower() or file.name for file in files if not kind_of(file, PICTURES))
    if not pictures:
        raise SourceError("the folder holds no pictures", file=source, remedy=_other_reader(ignored))
    images, masks = _pair(pictures)
    label_of, was_split = _classes(source, images)
    _refuse_empty_classes(source, set(label_of.values()), was_split)
    found_pictures = [
        Picture(file=file, name=file.relative_to(source).as_posix(), label=label_of[file], masks=tuple(masks[file]))
        for file in images
    ]
    _refuse_twice(found_pictures)
    classes = tuple(sorted(set(label_of.values()) - {""}))
    return Gathered(pictures=found_pictures, classes=classes, ignored=dict(ignored), was_split=was_split)


def _other_reader(found: Counter[str]) -> str:
    """What to do about a folder in which other files than pictures lie."""
    other = f"there are {', '.join(f'{n} {end}' for end, n in found.most_common(3))}; " if found else ""
    if any(end.endswith(VOLUMES) or end == ".gz" for end in found):
        return f"{other}DICOM, NIfTI, MetaImage and NRRD files are read with --reader volumes and a table of them"
    return f"{other}pictures are {', '.join(PICTURES)}"


def walk(folder: Path) -> Iterator[Path]:
    """Every file that is not hidden; links to folders are followed, but no folder is entered twice."""
    seen = set()
    for top, below, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(top)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if not _is_litter(name))
        yield from (Path(top) / name for name in names if not _is_litter(name))


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name.lower() in LITTER


def _pair(pictures: list[Path]) -> tuple[list[Path], dict[Path, list[Path]]]:
    """Images, and the masks of each: `a_mask.png` and `a_mask_1.png` beside `a.jpg`."""
    found = {file: MASK.fullmatch(file.stem) for file in pictures}
    images = [file for file, mask in found.items() if mask is None]
    by_stem = defaultdict(list)
    for image in images:
        by_stem[image.parent, image.stem].append(image)
    masks: dict[Path, list[Path]] = {image: [] for image in images}
    for file, mask in found.items():
        if mask is None:
            continue
        owners = by_stem.get((file.parent, mask["stem"]), [])
        if not owners:
            remedy = f"put it beside its image, called {mask['stem']!r}, or remove it"
            raise SourceError("is a mask without an image", file=file, remedy=remedy)
        masks[owners[0]].append(file)
    return images, masks


def _classes(source: Path, images: list[Path]) -> tuple[dict[Path, str], bool]:
    folders = {file: file.relative_to(source).parts[:-1] for file in images}
    first = {parts[0].lower() for parts in folders.values() if parts}
    was_split = bool(first) and first <= SPLITS
    level = 1 if was_split else 0
    label_of = {file: parts[level] if len(parts) > level else "" for file, parts in folders.items()}
    bare = [file for file, label in label_of.items() if not label]
    if bare and len(bare) < len(images):
        remedy = "move it into the folder of its class"
        raise SourceError("lies beside the class folders, not in one", file=bare[0], remedy=remedy)
    return label_of, was_split


def _refuse_empty_classes(source: Path, classes: set[str], was_split: bool) -> None:
    if was_split or classes == {""}:
        return
    for folder in sorted(source.iterdir()):
        if folder.is_dir() and not _is_litter(folder.name) and folder.name not in classes:
            raise SourceError("the class folder holds no pictures", file=folder, remedy="fill or remove it")


def _refuse_twice(pictures: list[Picture]) -> None:
    seen: dict[str, Picture] = {}
    for picture in pictures:
        other = seen.setdefault(picture.case, picture)
        if other is not picture:
            problem = f"two pictures have the same name but for the ending: {other.file.name} is the other"
            raise SourceError(problem, file=picture.file, remedy="rename or remove one of them")


# Whose picture is whose, as the user states it: read off the file names, or one picture per patient.


@dataclass(frozen=True, kw_only=True)
class People:
    """How a picture's patient and site are known: by `pattern` over its name, or, without one, each its own patient."""

    pattern: re.Pattern[str] | None
    site: str

    @classmethod
    def said(cls, options: ReadOptions) -> "People":
        """What the user said; silence is refused, because a patient must never be split."""
        text = options.patient_pattern
        if options.one_image_per_patient and text:
            raise ConfigError("--one-image-per-patient and --patient-pattern contradict each other", value=text)
        if not options.one_image_per_patient and not text:
            problem = "whose picture is whose is not known, and a patient must never be split over members and holdout"
            remedy = "give --patient-pattern REGEX with a group for the patient, "
            raise ConfigError(problem, remedy=remedy + "or say --one-image-per-patient if nobody has two")
        try:
            pattern = re.compile(text) if text else None
        except re.error as error:
            raise ConfigError(f"the patient pattern is no regular expression: {error}", value=text) from error
        if pattern and options.site and "site" in pattern.groupindex:
            raise ConfigError("the patient pattern has a group 'site' already", value=options.site)
        return cls(pattern=pattern, site=options.site)

    def named(self, source: Path, pictures: list[Picture]) -> list[tuple[str, str]]:
        """Patient and site of every picture; no patient has two sites."""
        people = [self._named(picture) for picture in pictures]
        first: dict[str, tuple[str, Picture]] = {}
        for (patient, site), picture in zip(people, pictures, strict=True):
            before, other = first.setdefault(patient, (site, picture))
            if before != site:
                problem = f"the patient {patient!r} has two sites: {before!r} in {other.name} and {site!r} here"
                raise SourceError(problem, file=picture.file, remedy="all images of a patient belong to one hospital")
        return people

    def _named(self, picture: Picture) -> tuple[str, str]:
        if self.pattern is None:
            return picture.case.strip(), self.site
        found = self.pattern.search(picture.name)
        if not found:
            problem = f"the patient pattern {self.pattern.pattern!r} does not match"
            raise SourceError(problem, file=picture.file, value=picture.name, remedy="mend the pattern or the name")
        groups = found.groupdict()
        patient = ((groups["patient"] if "patient" in groups else self._first(found)) or "").strip()
        site = (groups.get("site", self.site) or "").strip()
        if not patient or ("site" in groups and not site):
            problem = f"the patient pattern {self.pattern.pattern!r} leaves patient or site empty"
            raise SourceError(problem, file=picture.file, value=picture.name, remedy="mend the pattern or the name")
        return patient, site

    def _first(self, found: re.Match[str]) -> str | None:
        named = set((self.pattern.groupindex if self.pattern else {}).values())
        numbers = [number for number in range(1, (found.re.groups or 0) + 1) if number not in named]
        return found[numbers[0]] if numbers else found[0]


GREY, COLOURS = "gray", ("red", "green", "blue")
LUMA = np.array([0.299, 0.587, 0.114])
VOLUMES = (*DICOM_KINDS, ".nii", ".nii.gz", ".mha", ".mhd", ".nrrd")


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """How the pictures of one source are decoded: the same channels and the same range, `bits`, for all."""

    channels: tuple[str, ...]
    bits: int
    labels: MaskLabels | None

    def decode(self, picture: Picture) -> Iterator[Raw]:
        """The one image of `picture` and its mask."""
        image = self._channels(self._widened(open_picture(picture.file), picture.file))
        mask = None if self.labels is None else self._mask(picture, image.shape[1:], self.labels)
        yield Raw(case=picture.case, image=image, mask=mask, spacing_mm=None)

    def _widened(self, image: NDArray[Any], file: Path) -> NDArray[Any]:
        """8 bits beside more are stretched to the same full range: beside 16 bits 255 becomes 65535."""
        if image.dtype == np.uint8 and 8 < self.bits <= 16:
            return np.rint(image * (_full(self.bits) / 255)).astype(np.uint16)
        if (image.dtype.itemsize * 8 > max(self.bits, 16)) or (image.dtype.itemsize < 4 and self.bits == 32):
            remedy = "save all pictures with 8 or 16 bits"
            raise SourceError("has other bits per value than the other pictures", file=file, remedy=remedy)
        return image

    def _channels(self, image: NDArray[Any]) -> NDArray[Any]:
        if self.channels == (GREY,):
            return image if len(image) == 1 else np.rint(np.tensordot(LUMA, image, 1)[None]).astype(image.dtype)
        wanted = [COLOURS.index(name) for name in self.channels]
        return image[wanted] if len(image) == len(COLOURS) else np.repeat(image, len(wanted), axis=0)

    def _mask(self, picture: Picture, shape: tuple[int, ...], labels: MaskLabels) -> NDArray[np.uint8]:
        whole = np.zeros(shape, np.uint8)
        for file in picture.masks:
            drawn = open_mask(file)
            if drawn.shape != shape:
                problem = f"the mask has another shape than {picture.file.name}, {shape}"
                raise SourceError(problem, file=file, value=drawn.shape, remedy="draw the mask on the image's pixels")
            if labels.yes_or_no and file.suffix.lower() in (".jpg", ".jpeg"):
                drawn = (drawn > 127).astype(np.uint8)  # JPEG blurs 0 and 255 into their neighbours
            np.maximum(whole, labels.translate(drawn, file), out=whole)
        return whole


def plan(source: Path, options: ReadOptions) -> Plan:
    """Look at names and headers of the pictures below `source`; none is decoded before its turn."""
    if options.dimensions != 2:
        raise ConfigError("pictures have two dimensions", value=options.dimensions, remedy="leave --dimensions out")
    people = People.said(options)
    found = gather(source)
    labels = _labels(found, options)
    seen = survey([picture.file for picture in found.pictures], colours_matter=not options.channels)
    bits = seen.depth
    channels = _channels(options, coloured=not options.channels and seen.coloured)
    reading = Pictures(channels=channels, bits=bits, labels=labels)
    sources = [
        Source(
            patient=patient, site=site, label=picture.label, file=picture.file, decode=partial(reading.decode, picture)
        )
        for picture, (patient, site) in zip(found.pictures, people.named(source, found.pictures), strict=True)
    ]
    return Plan(
        channels=reading.channels,
        classes=found.classes,
        mask_labels=labels.names if labels else (),
        sources=sources,
        dimensions=2,
        notes=_notes(found, people) | seen.notes(),
        intensity=f"window:0,{_full(bits)}" if bits <= 16 else "percentile:1,99",
    )


def _labels(found: Gathered, options: ReadOptions) -> MaskLabels | None:
    bare = [picture for picture in found.pictures if not picture.masks]
    if len(bare) == len(found.pictures):
        if options.mask_labels:
            raise ConfigError("mask labels are named, but there are no *_mask files", value=options.mask_labels)
        return None
    if bare and not options.unmasked_is_background:
        problem = f"has no mask, as {len(bare)} of {len(found.pictures)} pictures"
        remedy = "add the masks, or say --unmasked-is-background if such images show no lesion"
        raise SourceError(problem, file=bare[0].file, remedy=remedy)
    return declared_labels(options.mask_labels)


def _full(bits: int) -> int:
    return (1 << bits) - 1


def _channels(options: ReadOptions, *, coloured: bool) -> tuple[str, ...]:
    if not options.channels:
        return COLOURS if coloured else (GREY,)
    chosen = chosen_channels((GREY, *COLOURS), options)
    if GREY in chosen and len(chosen) > 1:
        raise ConfigError(f"{GREY!r} does not go with colours", value=",".join(chosen))
    return chosen


def _notes(found: Gathered, people: People) -> dict[str, Any]:
    stated = f"pattern {people.pattern.pattern}" if people.pattern else "stated by the user: one image per patient"
    notes: dict[str, Any] = {"patients": stated}
    if found.ignored:
        notes["files-ignored"] = found.ignored
    if found.was_split:
        notes["former-split"] = "train, val and test folders were pooled; each case keeps its folder in its name"
    return notes
