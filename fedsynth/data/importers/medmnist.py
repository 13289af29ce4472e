"""MedMNIST .npz files: pictures or volumes of 28 (or 64, 128, 224) pixels with a class number each.

The files name no patients, so the user must state that nobody has two; for several of the sets that is known to be
untrue, which the notes then say.
"""

import threading
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal
from zipfile import is_zipfile

import numpy as np
from numpy.typing import NDArray

from fedsynth.data.importers import ReadOptions, chosen_channels
from fedsynth.data.importers.source import Plan, Raw, Source
from fedsynth.data.importers.volume import unreadable
from fedsynth.errors import ConfigError, SourceError

# What is published about the MedMNIST sets: the names of their classes, and where patients have several images.
#
# From https://github.com/MedMNIST/MedMNIST, `medmnist/info.py` of versions 2 and 3. Class i is entry i.


_ORGANS = (
    "bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver", "lung-left", "lung-right",
    "pancreas", "spleen",
)  # fmt: skip

CLASSES: dict[str, tuple[str, ...]] = {
    "adrenalmnist3d": ("normal", "hyperplasia"),
    "bloodmnist": (
        "basophil", "eosinophil", "erythroblast", "immature granulocyte", "lymphocyte", "monocyte", "neutrophil",
        "platelet",
    ),
    "breastmnist": ("malignant", "normal or benign"),
    "dermamnist": (
        "actinic keratosis", "basal cell carcinoma", "benign keratosis", "dermatofibroma", "melanoma", "nevus",
        "vascular lesion",
    ),
    "fracturemnist3d": ("buckle", "nondisplaced", "displaced"),
    "nodulemnist3d": ("benign", "malignant"),
    "octmnist": ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
    "organamnist": _ORGANS,
    "organcmnist": _ORGANS,
    "organsmnist": _ORGANS,
    "organmnist3d": (
        "liver", "kidney-right", "kidney-left", "femur-right", "femur-left", "bladder", "heart", "lung-right",
        "lung-left", "spleen", "pancreas",
    ),
    "pathmnist": (
        "adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle", "normal colon mucosa",
        "cancer-associated stroma", "colorectal adenocarcinoma epithelium",
    ),
    "pneumoniamnist": ("normal", "pneumonia"),
    "retinamnist": ("grade-0", "grade-1", "grade-2", "grade-3", "grade-4"),
    "synapsemnist3d": ("inhibitory", "excitatory"),
    "vesselmnist3d": ("vessel", "aneurysm"),
}  # fmt: skip

SEVERAL_PER_PATIENT: dict[str, str] = {
    "adrenalmnist3d": "1,584 glands of 792 patients",
    "bloodmnist": "many cells of each blood donor",
    "breastmnist": "780 images of 600 patients",
    "chestmnist": "112,120 images of 30,805 patients",
    "dermamnist": "HAM10000 has several images of some lesions",
    "fracturemnist3d": "several fractures of each of 660 scans",
    "nodulemnist3d": "several nodules of many patients",
    "octmnist": "about 109,000 scans of fewer than 6,000 patients",
    "organamnist": "several organs of each of 201 scans",
    "organcmnist": "several organs of each of 201 scans",
    "organsmnist": "several organs of each of 201 scans",
    "organmnist3d": "several organs of each of 201 scans",
    "pathmnist": "many patches of each slide",
    "pneumoniamnist": "several radiographs of many children",
    "retinamnist": "several views of both eyes of each patient",
    "synapsemnist3d": "all synapses are of one animal",
    "tissuemnist": "all cells are of three specimens",
    "vesselmnist3d": "many segments of each of 103 vessel trees",
}
"""Published counts that contradict one image per patient."""


# Reads one array of an .npz file item by item, in bounded memory, though the archive is compressed.


KEPT = 256


class Stream:
    """The array `name` of the archive `file`; `shape` is that of one item.

    Items asked for in about their order cost one pass over the file. What is passed over is kept for a while, because
    several threads ask at once; going further back starts the pass again.
    """

    _member: IO[bytes] | None
    _passed: OrderedDict[int, NDArray[Any]]

    def __init__(self, file: Path, name: str) -> None:
        self.file, self.name = file, name
        with zipfile.ZipFile(file) as archive, archive.open(f"{name}.npy") as member:
            shape, fortran, self.dtype = _header(member)
        if fortran or not shape or self.dtype.hasobject:
            raise SourceError(f"the array {name} holds objects, or is stored column by column", file=file)
        self._n, self.shape = int(shape[0]), tuple(int(size) for size in shape[1:])
        self._reset()

    def __len__(self) -> int:
        return self._n

    def read(self, index: int) -> NDArray[Any]:
        """Item `index`."""
        with self._lock:
            if index in self._passed:
                return self._passed.pop(index)
            try:
                return self._advance(index)
            except SourceError:
                self._close()
                raise
            except Exception as error:  # a damaged archive may raise anything
                self._close()
                raise unreadable(self.file, error) from error

    def _advance(self, index: int) -> NDArray[Any]:
        member = self._start() if self._member is None or index < self._next else self._member
        while True:
            item = self._one(member)
            self._next += 1
            if self._next > index:
                if self._next == self._n:
                    self._close()
                return item
            self._passed[self._next - 1] = item
            if len(self._passed) > KEPT:
                self._passed.popitem(last=False)

    def _start(self) -> IO[bytes]:
        self._close()
        self._passed.clear()
        self._next = 0
        with zipfile.ZipFile(self.file) as archive:
            self._member = archive.open(f"{self.name}.npy")  # keeps the file open until it is closed itself
        _header(self._member)
        return self._member

    def _close(self) -> None:
        if self._member is not None:
            self._member.close()
        self._member = None

    def __del__(self) -> None:
        if hasattr(self, "_member"):
            self._close()

    def _one(self, member: IO[bytes]) -> NDArray[Any]:
        size = int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize
        content = member.read(size)
        if len(content) < size:
            raise SourceError(f"the array {self.name} ends at item {self._next} of {self._n}", file=self.file)
        return np.frombuffer(content, self.dtype).reshape(self.shape)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._member = None
        self._next = 0
        self._passed = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {key: self.__dict__[key] for key in ("file", "name", "dtype", "shape", "_n")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(member)


SPLITS = ("train", "val", "test")
AGAIN = "fetch the file again"
GREY, COLOURS = ("gray",), ("red", "green", "blue")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One of the file's own splits: its images, unread, and the class number of each."""

    name: str
    images: Stream
    labels: NDArray[np.int64]


def plan(source: Path, options: ReadOptions) -> Plan:
    """Read the labels and the sizes of the images in `source`."""
    _refuse_options(options)
    parts = _parts(source)
    shape = parts[0].images.shape
    coloured = len(shape) == 3 and shape[2] == 3
    dimensions: Literal[2, 3] = 2 if len(shape) == 2 or coloured else 3
    if options.dimensions > dimensions:
        raise ConfigError("the images have two dimensions", file=source, value=shape, remedy="leave --dimensions out")
    known = COLOURS if coloured else GREY
    channels = chosen_channels(known, options)
    wanted = [known.index(channel) for channel in channels]
    names = _class_names(source, parts)
    sources = [
        Source(
            patient=f"{part.name}-{index:06d}",
            site=options.site,
            label=names[int(number)],
            file=source,
            decode=partial(_decode, part.images, index, f"{part.name}-{index:06d}", coloured, wanted),
        )
        for part in parts
        for index, number in enumerate(part.labels)
    ]
    return Plan(
        channels=channels,
        classes=tuple(names[number] for number in sorted(names)),
        mask_labels=(),
        sources=sources,
        dimensions=dimensions,
        notes=_notes(source, parts),
        intensity="window:0,255",
    )


def _decode(stream: Stream, index: int, case: str, coloured: bool, wanted: list[int]) -> Iterator[Raw]:
    stored = stream.read(index)
    if coloured:
        image = np.moveaxis(stored, -1, 0)[wanted]
    elif stored.ndim == 3:  # the file does not name its axes: its planes, as they are stored, become the axial slices
        image = stored[:, ::-1].transpose(2, 1, 0)[None]
    else:
        image = stored[None]
    yield Raw(case=case, image=image, mask=None, spacing_mm=None)


def _refuse_options(options: ReadOptions) -> None:
    if options.patient_pattern:
        raise ConfigError("MedMNIST names no patients that a pattern could find", value=options.patient_pattern)
    if options.mask_labels:
        raise ConfigError("MedMNIST has no masks", value=",".join(options.mask_labels))
    if not options.one_image_per_patient:
        problem = "MedMNIST names no patients, and a patient must never be split over members and holdout"
        raise ConfigError(problem, remedy="say --one-image-per-patient if you accept each image as another patient")


def _parts(source: Path) -> list[Part]:
    if source.is_dir():
        found = sorted(file.name for file in source.glob("*.npz"))
        remedy = f"give the file itself: {found[0]}" if found else "give a MedMNIST .npz file"
        raise SourceError("is a folder where an .npz file is expected", file=source, remedy=remedy)
    if not source.is_file():
        raise SourceError("there is no such file", file=source, remedy="check the spelling")
    if not is_zipfile(source):
        raise SourceError("is no .npz archive", file=source, remedy=AGAIN)
    try:
        with source.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            keys = list(arrays.files)
            labels = {name: arrays[f"{name}_labels"] for name in SPLITS if f"{name}_labels" in keys}
        streams = {name: Stream(source, f"{name}_images") for name in SPLITS if f"{name}_images" in keys}
    except SourceError:
        raise
    except Exception as error:  # a damaged archive, or arrays that only pickle could open
        raise unreadable(source, error) from error
    if not streams:
        remedy = "a MedMNIST file holds train_images, train_labels, val_images and so on"
        raise SourceError("holds no MedMNIST arrays", file=source, value=", ".join(keys), remedy=remedy)
    if not any(len(stream) for stream in streams.values()):
        raise SourceError("holds no images", file=source)
    for name in streams:
        _check(source, name, streams[name], next(iter(streams.values())), labels.get(name))
    return [
        Part(name=name, images=stream, labels=labels[name].reshape(-1).astype(np.int64))
        for name, stream in streams.items()
        if len(stream)
    ]


def _check(source: Path, name: str, images: Stream, first: Stream, labels: NDArray[Any] | None) -> None:
    if images.dtype != np.uint8:
        raise SourceError(f"{name}_images must be uint8", file=source, value=str(images.dtype))
    if len(images.shape) not in (2, 3) or 0 in images.shape or images.shape != first.shape:
        wanted = "(n, height, width[, 3]) or (n, depth, height, width), the same in all parts"
        raise SourceError(f"{name}_images must be {wanted}", file=source, value=(len(images), *images.shape))
    if labels is None:
        raise SourceError(f"the array {name}_labels is missing", file=source)
    if labels.ndim == 2 and labels.shape[1] > 1:
        remedy = "an image set has one class per image: choose a single-label set, or save one label as (n, 1)"
        raise SourceError(
            f"{name}_labels gives several labels per image", file=source, value=labels.shape, remedy=remedy
        )
    if labels.size != len(images):
        problem = f"{name}_labels must hold {len(images)} numbers, one per image"
        raise SourceError(problem, file=source, value=labels.shape)
    if labels.dtype.kind not in "iu" or (labels.size and labels.min() < 0):
        raise SourceError(f"{name}_labels must be class numbers from 0", file=source, value=str(labels.dtype))


def _class_names(source: Path, parts: list[Part]) -> dict[int, str]:
    """Class number to name: those of the published set where the file has its name and all numbers fit."""
    found = sorted({int(number) for part in parts for number in np.unique(part.labels)})
    published = CLASSES.get(_published(source), ())
    if found[-1] < len(published):
        return dict(enumerate(published))
    return {number: f"class-{number}" for number in found}


def _published(source: Path) -> str:
    """`pneumoniamnist` for `PneumoniaMNIST_224.npz`."""
    return source.stem.lower().partition("_")[0]


def _notes(source: Path, parts: list[Part]) -> dict[str, Any]:
    notes: dict[str, Any] = {
        "patients": "stated by the user: one image per patient (the file names no patients)",
        "former-split": {part.name: len(part.labels) for part in parts},
    }
    if truth := SEVERAL_PER_PATIENT.get(_published(source)):
        notes["patients-warning"] = f"not true of this set: {truth}"
    return notes
