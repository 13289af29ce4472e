"""A public image set as a simulator: its patients under wide intensity maps, moved by a few pixels.

It knows no patients but those of the public set. What it draws are altered images of real people, and is said to be.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedsynth.data import ImageSet
from fedsynth.data.format import HEADER, IMAGES, MASKS, TABLE
from fedsynth.errors import ConfigError, nearest
from fedsynth.models.base import ImageShape
from fedsynth.models.image_statistics import Layout
from fedsynth.models.intensity_map import map_limits, mapped, public_knots
from fedsynth.models.pseudo_patient import PseudoPatient, Shown, Vector, near

JITTER = 0.05
"""How far each scan departs from its pseudo-patient's map (standard deviation, as a share of the range)."""
SHIFT = 0.04
"""How far an image is moved at most, as a share of the side."""
SAMPLED = 200
"""Images that tell the public intensities."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PublicSet:
    """A public image set, checked, with a digest of all that is used of it."""

    images: ImageSet
    digest: str
    marks: frozenset[bytes]

    def refuse_shared(self, images: ImageSet) -> None:
        """Refuse a set that shares images, at 8 bits, with this one: these patients would be drawn almost as they are.

        Who hands out the public set must not learn the answer: it says who is a patient.
        """
        shared = sum(mark in self.marks for mark in _marks(images) if mark)
        if shared:
            problem = f"{shared} of the images are in the public set {self.images.header.name!r} too"
            remedy = "take public images of other people, or these patients out of one of the two"
            raise ConfigError(problem, file=images.folder, remedy=remedy)


def _marks(images: ImageSet) -> Iterator[bytes]:
    """A digest of every image at 8 bits; nothing for one that shows nothing, which may be anybody's."""
    for row in range(len(images)):
        image = np.ascontiguousarray(images.images[row])
        if image.dtype != np.uint8:
            image = np.asarray(np.rint(image * 255), np.uint8)
        yield hashlib.blake2b(image.tobytes(), digest_size=16).digest() if image.min() < image.max() else b""


def open_public(folder: Path) -> PublicSet:
    """The set in `folder`; read once in a process as long as its files stay the same."""
    files = [folder / name for name in (HEADER, TABLE, IMAGES, MASKS)]
    return _opened(folder, tuple(path.stat().st_mtime_ns for path in files if path.exists()))


@lru_cache(maxsize=4)
def _opened(folder: Path, changed: tuple[int, ...]) -> PublicSet:
    images = ImageSet.load(folder)
    if images.header.dimensions != 2:
        remedy = "cut the volumes into slices when they are imported"
        raise ConfigError("the public set holds volumes, and slices are needed", file=folder, remedy=remedy)
    if not images.header.provenance:
        problem = "the public set does not say where its images come from"
        remedy = f"write source and licence under [provenance] in {HEADER}"
        raise ConfigError(problem, file=folder / HEADER, remedy=remedy)
    return PublicSet(images=images, digest=_digest(images), marks=frozenset(_marks(images)))


def _digest(images: ImageSet) -> str:
    header = images.header
    facts = (header.channels, header.classes, header.mask_labels, images.images.shape, str(images.images.dtype))
    found = hashlib.sha256(repr(facts).encode())
    found.update(images.cases[["case", "patient", "class"]].to_csv(index=False).encode())
    for stack in (images.images, images.masks):
        for start in range(0, 0 if stack is None else len(images), 256):
            found.update(np.ascontiguousarray(stack[start : start + 256]).tobytes())  # type: ignore[index]
    return found.hexdigest()


@dataclass(frozen=True, kw_only=True, eq=False)
class ImagePool:
    """Pseudo-patients that are patients of a public set, each under an intensity map; see `Simulator`.

    A pseudo-patient's number counts the public patients of its class, round and round. `lesion` names the labels that
    make up what the masks are about: all but background where nothing is named. With `flip` images may be mirrored.
    """

    shape: ImageShape
    public: PublicSet
    lesion: Sequence[str] = ()
    flip: bool = False
    seed: int = 0
    code: tuple[str, ...] = field(
        default=("models/image_pool.py", "models/intensity_map.py", "models/pseudo_patient.py"), init=False
    )

    def __post_init__(self) -> None:
        _check_alike(self.shape, self.public.images)
        _ = self.layout, self._groups

    @property
    def name(self) -> str:
        """Of the public set."""
        return self.public.images.header.name

    @property
    def content(self) -> bytes:
        """The digest of the public set."""
        return bytes.fromhex(self.public.digest)

    @property
    def source(self) -> tuple[object, ...]:
        """See `Simulator`."""
        return (sorted(asdict(self.shape).items()), self.public.digest, tuple(self.lesion), self.flip)

    @cached_property
    def layout(self) -> Layout:
        """What the statistics of images need to know."""
        names = self.public.images.header.mask_labels if self.shape.n_labels else ()
        for name in self.lesion:
            if name not in names[1:]:
                raise ConfigError("the masks have no such label", value=name, remedy=nearest(name, names[1:]))
        chosen = tuple(names.index(name) for name in self.lesion) or tuple(range(1, len(names)))
        return Layout(
            channels=self.shape.channels,
            size=self.shape.size,
            n_labels=self.shape.n_labels,
            lesion=tuple(sorted(chosen)),
        )

    @cached_property
    def limits(self) -> Vector:
        """Lowest and highest value of every number of a map."""
        return map_limits(self.shape.channels)

    @property
    def classes(self) -> tuple[int | None, ...]:
        """A pseudo-patient's label is its class of the shape."""
        return tuple(range(self.shape.n_classes))

    def draw(self, rng: np.random.Generator, label: int | None = None) -> PseudoPatient:
        """One of the public patients, of that class or of any, under a map from anywhere within the limits."""
        drawn = int(rng.integers(len(self._groups)))
        return PseudoPatient.draw(drawn if label is None else label, self.limits, rng)

    def slices(self, patient: PseudoPatient, rng: np.random.Generator, count: int) -> list[Shown]:
        """`count` images of the public patient, spread over all there are, each moved a little."""
        group = self._groups[patient.label]
        own = group[patient.number % len(group)]
        places = np.floor((np.arange(count) + rng.random(count)) / count * len(own)).astype(int)
        style = near(patient.style, self.limits, rng, JITTER)
        return [self._shown(int(own[place]), style, rng) for place in places]

    def _shown(self, row: int, style: Vector, rng: np.random.Generator) -> Shown:
        masks = self.public.images.masks if self.shape.n_labels else None
        image = np.asarray(np.rint(mapped(self._image(row), style, self._knots) * 255), np.uint8)
        mask = np.zeros(self.shape.size, np.uint8) if masks is None else masks[row]
        places = self._places(rng)
        return np.stack([one[places] for one in image]), np.asarray(mask[places], np.uint8)

    def _places(self, rng: np.random.Generator) -> tuple[NDArray[np.intp], ...]:
        """Where each pixel of the new picture lies in the old: moved by whole pixels and perhaps mirrored.

        Nothing is interpolated, which would take away grain that the fit looks at; edges are repeated.
        """
        lines = []
        for side in self.shape.size:
            most = round(SHIFT * side)
            lines.append(np.clip(np.arange(side) + rng.integers(-most, most + 1), 0, side - 1))
        if rng.random() < 0.5 and self.flip:
            lines[1] = lines[1][::-1]
        return np.ix_(*lines)

    def _image(self, row: int) -> Vector:
        found = self.public.images.images[row]
        return np.asarray(found, np.float64) / (255 if found.dtype == np.uint8 else 1)

    @cached_property
    def _knots(self) -> Vector:
        n = len(self.public.images)
        rows = np.unique(np.linspace(0, n - 1, min(n, SAMPLED)).astype(int))
        return public_knots((self._image(int(row)) for row in rows), self.shape.channels)

    @cached_property
    def _groups(self) -> list[list[NDArray[np.int64]]]:
        """The rows of every public patient, by class; an image without a patient's name is one of its own."""
        cases = self.public.images.cases
        whose = cases["patient"].where(cases["patient"] != "", "\n" + cases["case"])  # no patient is called so
        if not self.shape.n_classes:
            return [[np.asarray(rows, np.int64) for _, rows in sorted(whose.groupby(whose).indices.items())]]
        found = []
        for name in self.shape.class_names:
            rows = np.flatnonzero(cases["class"] == name)
            if not len(rows):
                problem = "the public set has no image of this class, so that none could be drawn"
                remedy = "add public images of it, or leave the class out of the hospitals' sets"
                raise ConfigError(problem, value=name, remedy=remedy)
            own = whose.iloc[rows]
            found.append([rows[places] for _, places in sorted(own.groupby(own.to_numpy()).indices.items())])
        return found


def _check_alike(shape: ImageShape, public: ImageSet) -> None:
    """Refuse a public set that is made up in another way than the hospitals' images."""
    header, remedy = public.header, "import the public set like the hospitals' images, or relabel one of them"
    pairs = {"channels": (shape.channel_names, header.channels), "size": (shape.size, public.size)}
    if shape.n_labels:
        pairs["mask-labels"] = (shape.label_names, header.mask_labels)
    for key, (wanted, found) in pairs.items():
        if tuple(wanted) != tuple(found):
            shown = f"{list(found) or 'none'} and {list(wanted) or 'none'}"
            raise ConfigError(f"the public set and the hospitals' images differ in {key} ({shown})", remedy=remedy)
