"""Finds the pictures below a folder, the class of each, and the masks that belong to it. It opens none of them."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fedsynth.errors import SourceError
from fedsynth.images.readers.pictures import PICTURES
from fedsynth.images.readers.volume import kind_of

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
    files = sorted(_walk(source), key=lambda file: file.relative_to(source).as_posix())
    pictures = [file for file in files if kind_of(file, PICTURES)]
    ignored = Counter(file.suffix.lower() or file.name for file in files if not kind_of(file, PICTURES))
    if not pictures:
        found = (
            f"; other files there: {', '.join(f'{n} {end}' for end, n in ignored.most_common(3))}" if ignored else ""
        )
        remedy = f"pictures are {', '.join(PICTURES)}{found}"
        raise SourceError("the folder holds no pictures", file=source, remedy=remedy)
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


def _walk(folder: Path) -> Iterator[Path]:
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
