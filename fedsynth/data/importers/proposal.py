"""What a folder or file holds, and how it could be imported: a reader, whose image is whose, masks, classes, a size.

A proposal is read off names, headers and a few masks. It is a start for a person who knows the data: nothing is
imported by it, and whose image is whose stays for that person to confirm.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedsynth.data.importers import ReadOptions, reader
from fedsynth.data.importers.folder import GREY, Gathered, Picture, gather, walk
from fedsynth.data.importers.picture_survey import survey
from fedsynth.data.importers.pictures import PICTURES, open_mask, picture_size
from fedsynth.data.importers.volume import kind_of
from fedsynth.data.importers.volume_table import VOLUME_KINDS, Table, tabulate
from fedsynth.errors import FedSynthError, SourceError

SIZE = 64
LOOKED_AT = 200
"""So many pictures are asked for their size, so many masks for their numbers."""
PATTERNS = (
    r"(?:^|/)(sub-[A-Za-z0-9]+)",
    r"(?i)(?:^|[/_-])((?:patient|subject|subj|pat|pt)[-_ ]?\d+)",
    r"(?i)(?:^|[/_-])((?:case|p|id)[-_ ]?\d+)",
    r"^[^/]+/([^/]+)/",
    r"(?:^|/)([^/]+?)[-_ ][^-_ /]+\.\w+$",
)
"""Where names tend to tell the patient: BIDS, a word with a number, a folder below the class, all before the last part
of the name.
"""
NAMED = 3
"""So many of them name a patient in words, and are believed even where nobody has two pictures."""
UNUSUAL_MASKS = re.compile(r"(_seg|_segmentation|_label|_labels|_gt|_roi)$|^(masks?|labels?|segmentations?)/", re.I)


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A reader with its options, what was `seen`, and what a person must `confirm`.

    Volumes are listed in a `table`, which has to be written before they can be imported.
    """

    reader: str
    options: ReadOptions = field(default_factory=ReadOptions)
    size: int = SIZE
    seen: tuple[str, ...] = ()
    confirm: tuple[str, ...] = ()
    table: Table | None = None
    intensity: str = ""

    def arguments(self, source: Path, out: str) -> list[str]:
        """Those of `fedsynth import`, ready to paste."""
        said = self.options
        shown = f"./{source}" if str(source).startswith("-") else str(source)
        given = ["import", shown, out, "--reader", self.reader, "--size", str(self.size)]
        for name in ("channels", "patient_pattern", "mask_labels"):
            if value := getattr(said, name):
                given += ["--" + name.replace("_", "-"), value if isinstance(value, str) else ",".join(value)]
        given += ["--intensity", self.intensity] if self.intensity else []
        for name in ("one_image_per_patient", "unmasked_is_background"):
            given += ["--" + name.replace("_", "-")] if getattr(said, name) else []
        return given


def propose(source: Path) -> Proposal:
    """Look at `source` and say how it could be imported.

    Raises:
        SourceError: There is nothing that a reader can read.
    """
    if not source.exists():
        raise SourceError("there is no such file or folder", file=source)
    if source.is_file():
        return _of_file(source)
    files = sorted(file for file in walk(source) if file.is_file())
    for name, word, what in (("lgg", "tcga_", "folders of kaggle_3m"), ("brats", "brats", "scans named as BraTS does")):
        named = any(word in file.relative_to(source.parent).as_posix().lower() for file in files)
        if named and (n_sources := _planned(name, source)):
            return Proposal(reader=name, seen=(f"{n_sources} {what}",))
    volumes = [file for file in files if kind_of(file, VOLUME_KINDS) or _is_dicom(file)]
    pictures = [file for file in files if kind_of(file, PICTURES)]
    if len(volumes) > len(pictures):
        return _of_volumes(source, volumes, pictures)
    if not pictures:
        endings = Counter(file.suffix.lower() or file.name for file in files).most_common(3)
        found = ", ".join(f"{count} {ending}" for ending, count in endings) or "nothing"
        remedy = f"there is {found}; pictures, NIfTI, MetaImage, NRRD and DICOM can be read"
        raise SourceError("holds no images that a reader knows", file=source, remedy=remedy)
    return _of_pictures(source)


def _is_dicom(file: Path) -> bool:
    """Files of a scanner often have no ending; DICOM says its name after 128 bytes."""
    if (file.suffix and not file.suffix[1:].isdigit()) or file.name.upper() == "DICOMDIR":
        return False
    try:
        with file.open("rb") as opened:
            return opened.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _planned(name: str, source: Path) -> int:
    try:
        return len(reader(name)(source, ReadOptions()).sources)
    except (FedSynthError, OSError):
        return 0


def _of_file(source: Path) -> Proposal:
    if source.suffix.lower() == ".npz":
        seen, confirm = ("a file of NumPy arrays",), ("each image is another person's: the file does not tell it",)
        return Proposal(
            reader="medmnist", options=ReadOptions(one_image_per_patient=True), seen=seen, confirm=confirm, size=28
        )
    if source.suffix.lower() == ".csv":
        return Proposal(reader="volumes", seen=("a table; its columns name patients, channels and masks",))
    raise SourceError("is one file where a data set is expected", file=source, remedy="name the folder that it lies in")


def _of_volumes(source: Path, volumes: Sequence[Path], pictures: Sequence[Path]) -> Proposal:
    table = tabulate(source, volumes)
    seen = [f"{len(volumes)} files of volumes: {table.described}"]
    if pictures:
        seen.append(f"{len(pictures)} pictures beside them are left out")
    masks = ("the numbers in the masks: --mask-labels background,NAME,... if they are not 0 and 1",)
    confirm = (f"whose volume is whose: {table.patients_from}", *(masks if "mask" in table.columns else ()))
    return Proposal(reader="volumes", seen=tuple(seen), confirm=confirm, table=table)


def _of_pictures(source: Path) -> Proposal:
    found = gather(source)
    sides, shapes = _sizes(found.pictures)
    seen = [f"{len(found.pictures)} pictures, {shapes}"]
    if found.classes:
        counts = Counter(picture.label for picture in found.pictures)
        seen.append("classes: " + ", ".join(f"{name} {counts[name]}" for name in found.classes))
    seen += [f"{count} {ending} files are left out" for ending, count in sorted(found.ignored.items())]
    pattern, whose = _pattern(found.pictures)
    confirm = [whose]
    if len(found.pictures) == 1:
        confirm.append("one picture is a whole data set")
    labels, unmasked = _masks(found, seen, confirm)
    channels, intensity = _channels(found.pictures, confirm)
    options = ReadOptions(
        channels=channels,
        patient_pattern=pattern,
        mask_labels=labels,
        unmasked_is_background=unmasked,
    )
    size = min(SIZE, max(16, int(np.median(sides)))) if sides else SIZE
    return Proposal(
        reader="folder", options=options, size=size, seen=tuple(seen), confirm=tuple(confirm), intensity=intensity
    )


def _sizes(pictures: Sequence[Picture]) -> tuple[list[int], str]:
    shapes: Counter[tuple[int, int]] = Counter()
    for picture in _some(pictures):
        with suppress(SourceError):
            shapes[picture_size(picture.file)] += 1
    sides = [max(shape) for shape, count in shapes.items() for _ in range(count)]
    if len(shapes) == 1:
        return sides, "{} x {} pixels".format(*next(iter(shapes)))
    return sides, f"{min(sides)} to {max(sides)} pixels on the longer side" if sides else "none of them readable"


def _channels(pictures: Sequence[Picture], confirm: list[str]) -> tuple[tuple[str, ...], str]:
    """Grey for all where some are coloured, else nothing; and the window of values that are stored in 16 bits."""
    seen = survey([picture.file for picture in _some(pictures)], colours_matter=True)
    window = f"window:0,{(1 << seen.depth) - 1}" if seen.wide and seen.depth <= 16 else ""
    if window:
        confirm.append(f"the scanner's values use {seen.depth} of 16 bits; all hospitals give the same {window}")
    try:
        seen.coloured  # noqa: B018
    except SourceError as error:
        confirm.append(f"all shall be read in grey ({str(error).partition(';')[0]})")
        return (GREY,), window
    return (), window


def _some(items: Sequence[Any]) -> Sequence[Any]:
    return [items[i] for i in np.linspace(0, len(items) - 1, min(len(items), LOOKED_AT)).astype(int)]


def _pattern(pictures: Sequence[Picture]) -> tuple[str, str]:
    """A pattern that finds a patient in every name, and in words what it finds; none where no name repeats."""
    names = [picture.name for picture in pictures]
    for place, pattern in enumerate(PATTERNS):
        patients = patients_of(pattern, names)
        if len(set(patients)) < 2 or (len(set(patients)) == len(names) and place >= NAMED):
            continue
        each = Counter(patients).values()
        known = f"{len(each)} patients with {min(each)} to {max(each)} pictures" if max(each) > 1 else "nobody has two"
        said = f"whose picture is whose: {names[0]} would be of {patients[0]!r}; {known}"
        labels = {(patient, picture.label) for patient, picture in zip(patients, pictures, strict=True)}
        shared = len(labels) - len(each)
        return pattern, said + (f"; names in several classes are taken for one person ({shared})" if shared else "")
    told = "the names do not tell: add --patient-pattern REGEX, or --one-image-per-patient if nobody has two pictures"
    return "", f"whose picture is whose: {told}"


def patients_of(pattern: str, names: Iterable[str]) -> list[str]:
    """The pattern's group in every name; nothing if one does not match."""
    found = [re.search(pattern, name) for name in names]
    return [match[1] for match in found if match] if all(found) else []


def _masks(found: Gathered, seen: list[str], confirm: list[str]) -> tuple[tuple[str, ...], bool]:
    """The names of the masks' numbers, where they need any, and whether pictures without a mask show no lesion."""
    masked = [picture for picture in found.pictures if picture.masks]
    if not masked:
        unusual = [name for name in (picture.case for picture in found.pictures) if UNUSUAL_MASKS.search(name)]
        if unusual:
            confirm.append(f"{len(unusual)} pictures look like masks ({unusual[0]}): call them NAME_mask beside NAME")
        return (), False
    bare = len(found.pictures) - len(masked)
    seen.append(f"{len(masked)} pictures have masks")
    if bare:
        confirm.append(f"the {bare} pictures without a mask show no lesion")
    numbers: set[int] = set()
    for picture in _some(masked):
        for file in picture.masks:
            try:
                numbers |= {int(number) for number in np.unique(open_mask(file))}
            except SourceError as error:
                confirm.append(f"a mask cannot be read, --skip-corrupt leaves such pictures out ({error})")
    if numbers <= {0, 1} or (numbers <= {0, 255}) or len(numbers) > 32:
        return (), bool(bare)
    confirm.append(f"the names of the masks' numbers {', '.join(map(str, sorted(numbers)))}")
    return ("background=0", *(f"label-{number}={number}" for number in sorted(numbers - {0}))), bool(bare)
