"""Copies altered in many ways, and honest output of many fidelities, through every space that looks for copies.

Each way is drawn on its own: sixty copies of as many members, seven of which are one per cent of 700 images.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from leakage.pictures import Hospitals, as_output, hospitals
from numpy.typing import NDArray
from scipy import ndimage

from fedsynth.data import ImageSet
from fedsynth.data.lazy_arrays import blocks
from fedsynth.evaluation.feature_spaces import Space, copy_spaces, default_spaces
from fedsynth.evaluation.feature_spaces.pixels import REGIONS
from fedsynth.evaluation.memorization.distance_tables import SHALLOW, look_up, queries
from fedsynth.evaluation.memorization.replication import Reference, find_copies, learn_reference
from fedsynth.evaluation.nearest_neighbours import PatientDistances

COPIES, OF_ONE_PER_CENT, SYNTHETIC = 60, 7, 700
DEPTH = 16
BEFORE = ("pixels", "components", "encoder", *REGIONS)
"""The spaces that stood before those for altered copies were added."""

Image = NDArray[np.float64]
Drawn = Callable[[Image, Image, Image, np.random.Generator], Image]
"""A member's image, another member's, a stranger's (channels, height, width) in [0, 1]: what is passed off."""


def resampled(image: Image, places: Callable[[Image], Image]) -> Image:
    """Every pixel from where `places` says, counted from the centre."""
    size = image.shape[1:]
    centre = (np.array(size) - 1).reshape(-1, 1, 1) / 2
    where = places(np.indices(size) - centre) + centre
    return np.stack([ndimage.map_coordinates(channel, where, order=1, mode="nearest") for channel in image])


def turned(degrees: float) -> Drawn:
    """Turned about the centre."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return lambda image, other, stranger, rng: resampled(image, lambda where: np.tensordot(turn, where, 1))


def zoomed(factor: float) -> Drawn:
    """Shrunk below one, cropped above it."""
    return lambda image, other, stranger, rng: resampled(image, lambda where: where / factor)


def shifted(share: float) -> Drawn:
    """Moved along a diagonal by a share of the frame."""

    def draw(image: Image, other: Image, stranger: Image, rng: np.random.Generator) -> Image:
        by = rng.choice([-1, 1], 2).reshape(-1, 1, 1) * share * image.shape[1]
        return resampled(image, lambda where: where + by)

    return draw


def bent(amount: float) -> Drawn:
    """Smooth displacements of `amount` pixels in 64 (deviation), over an eighth of the frame."""

    def draw(image: Image, other: Image, stranger: Image, rng: np.random.Generator) -> Image:
        size = image.shape[1:]
        fields = np.stack([ndimage.gaussian_filter(rng.normal(size=size), size[0] / 8, mode="wrap") for _ in size])
        return resampled(image, lambda where: where + fields * (size[0] / 64 * amount / fields.std()))

    return draw


def noised(deviation: float) -> Drawn:
    """White noise of a share of the range."""
    return lambda image, other, stranger, rng: image + rng.normal(0, deviation, image.shape)


def salted(share: float) -> Drawn:
    """A share of the pixels black or white, in every channel alike."""

    def draw(image: Image, other: Image, stranger: Image, rng: np.random.Generator) -> Image:
        lot = rng.random(image.shape[1:])
        return np.where(lot < share / 2, 0, np.where(lot > 1 - share / 2, 1, image))

    return draw


def shaded(strength: float) -> Drawn:
    """A smooth bias field, at most by a factor of e to the `strength`."""

    def draw(image: Image, other: Image, stranger: Image, rng: np.random.Generator) -> Image:
        field = ndimage.gaussian_filter(rng.normal(size=image.shape[1:]), image.shape[1] / 4, mode="reflect")
        return image * np.exp(strength * field / np.abs(field).max())

    return draw


def blurred(pixels: float) -> Drawn:
    """A blur of so many pixels in 32."""
    return lambda image, other, stranger, rng: ndimage.gaussian_filter(image, (0, *[pixels * image.shape[1] / 32] * 2))


def levels(n: int) -> Drawn:
    """So many grey levels in every channel."""

    def draw(image: Image, other: Image, stranger: Image, rng: np.random.Generator) -> Image:
        top = image.max(axis=(1, 2), keepdims=True) + 1e-6
        return np.asarray(np.floor(np.minimum(image / top, 0.9999) * n) / (n - 1))

    return draw


def mixed(share: float, with_stranger: bool = False) -> Drawn:
    """Blended with another member's image, or with a stranger's."""
    return lambda image, other, stranger, rng: share * image + (1 - share) * (stranger if with_stranger else other)


def coarser(image: Image, other: Image, stranger: Image, rng: np.random.Generator) -> Image:
    """Half the pixels along each axis."""
    small = image.reshape(len(image), image.shape[1] // 2, 2, image.shape[2] // 2, 2).mean(axis=(2, 4))
    return np.kron(small, np.ones((1, 2, 2)))


def hidden(share: float) -> Drawn:
    """A square of `share` of the frame's edge painted black."""

    def draw(image: Image, other: Image, stranger: Image, rng: np.random.Generator) -> Image:
        edge = int(share * image.shape[1])
        row, column = rng.integers(0, image.shape[1] - edge, 2)
        made = image.copy()
        made[:, row : row + edge, column : column + edge] = 0
        return made

    return draw


def half(image: Image, other: Image, stranger: Image, rng: np.random.Generator) -> Image:
    """The right half is a stranger's."""
    made = image.copy()
    made[..., image.shape[2] // 2 :] = stranger[..., image.shape[2] // 2 :]
    return made


def one_channel(image: Image, other: Image, stranger: Image, rng: np.random.Generator) -> Image:
    """A stranger's image with one channel of a member's."""
    made = stranger.copy()
    made[0] = image[0]
    return made


def then(*steps: Drawn) -> Drawn:
    """One after the other."""

    def draw(image: Image, other: Image, stranger: Image, rng: np.random.Generator) -> Image:
        for step in steps:
            image = np.clip(step(image, other, stranger, rng), 0, 1)
        return image

    return draw


COPIED: Mapping[str, Drawn] = {
    "exact": lambda image, other, stranger, rng: image,
    "noise 5 %": noised(0.05),
    "noise 10 %": noised(0.1),
    "noise 15 %": noised(0.15),
    "salt and pepper 5 %": salted(0.05),
    "salt and pepper 15 %": salted(0.15),
    "blur of 1 pixel in 32": blurred(1),
    "blur of 2 pixels in 32": blurred(2),
    "half resolution": coarser,
    "bias field, up to 1.5": shaded(0.4),
    "bias field, up to 2.2": shaded(0.8),
    "gamma 2": lambda image, other, stranger, rng: image**2,
    "five grey levels": levels(5),
    "three grey levels": levels(3),
    "inverted": lambda image, other, stranger, rng: 1 - image,
    "mean of two members": mixed(0.5),
    "0.7 and 0.3 of two members": mixed(0.7),
    "0.7 and 0.3 of a stranger": mixed(0.7, with_stranger=True),
    "0.5 and 0.5 of a stranger": mixed(0.5, with_stranger=True),
    "zoom 0.7": zoomed(0.7),
    "zoom 1.2": zoomed(1.2),
    "zoom 1.43": zoomed(1.43),
    "turned by 10 degrees": turned(10),
    "turned by 30 degrees": turned(30),
    "shifted by 10 %": shifted(0.1),
    "bent by 1.5 pixels in 64": bent(1.5),
    "bent by 3 pixels in 64": bent(3),
    "a third of each axis hidden": hidden(0.3),
    "half a stranger's": half,
    "one channel of four": one_channel,
    "mirrored, turned by 8, zoom 0.9, noise 7 %": then(
        lambda image, *_: image[..., ::-1], turned(8), zoomed(0.9), noised(0.07)
    ),
    "mirrored, gamma 0.6, blur, shaded": then(lambda image, *_: image[..., ::-1] ** 0.6, blurred(0.7), shaded(0.3)),
}
HONEST: Mapping[str, Drawn] = {
    "sharp": lambda image, other, stranger, rng: stranger,
    "blurred": lambda image, other, stranger, rng: blurred(0.75)(stranger, other, image, rng),
    "very blurred": lambda image, other, stranger, rng: blurred(2)(stranger, other, image, rng),
    "noisy": lambda image, other, stranger, rng: noised(0.08)(stranger, other, image, rng),
    "very noisy": lambda image, other, stranger, rng: noised(0.15)(stranger, other, image, rng),
    "salted": lambda image, other, stranger, rng: salted(0.05)(stranger, other, image, rng),
    "shaded": lambda image, other, stranger, rng: shaded(0.6)(stranger, other, image, rng),
    "zoomed out": lambda image, other, stranger, rng: zoomed(0.75)(stranger, other, image, rng),
    "bent": lambda image, other, stranger, rng: bent(3)(stranger, other, image, rng),
    "four grey levels": lambda image, other, stranger, rng: levels(4)(stranger, other, image, rng),
}
COLLAPSED, MEANS = "collapsed onto five strangers' images", "means of two strangers"


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What was found on one real set: of a way to copy, or of a fidelity, with the spaces of before or of now."""

    scenario: str
    spaces: str
    images: int
    found: int
    wrong: int
    sets: int
    sets_found: int


def one_real_set(pool: ImageSet, number: int) -> Iterator[Looked]:
    """Every way to copy and every fidelity against one real set of phantoms from `pool`."""
    of = hospitals(pool, number)
    spaces = [*default_spaces(of.real), *copy_spaces(of.real)]
    fitted: dict[str, tuple[Space, NDArray[np.float32]]] = {}
    among: dict[str, PatientDistances] = {}
    for space in spaces:
        space.fit(of.real, seed=number)
        fitted[space.name] = (space, space.features(of.real))
        asked = queries(space, of.real)
        among[space.name] = look_up(space, asked, fitted[space.name][1], of.owner, DEPTH, of.owner)
    now = tuple(fitted)
    references = {
        name: learn_reference({s: among[s] for s in names}, of.owner, len(of.cohort), SYNTHETIC)
        for name, names in (("before", BEFORE), ("now", now))
    }
    for scenario, images, sources in released(of, number):
        made = as_output(of.pool, np.rint(255 * np.clip(images, 0, 1)).astype(np.uint8))
        tables = {
            name: look_up(space, queries(space, made), features, of.owner, SHALLOW)
            for name, (space, features) in fitted.items()
        }
        for when, reference in references.items():
            yield _looked(scenario, when, tables, reference, sources)


def smaller(pool: ImageSet, size: int) -> ImageSet:
    """The same phantoms with images of `size` pixels, by means."""
    factor = pool.images.shape[-1] // size
    parts = []
    for _, block in blocks(pool.images):
        cells = block.reshape(*block.shape[:2], size, factor, size, factor)
        parts.append(np.rint(cells.mean(axis=(3, 5))).astype(np.uint8))
    return replace(pool, images=np.concatenate(parts))


def released(of: Hospitals, number: int) -> Iterator[tuple[str, Image, NDArray[np.int64]]]:
    """Every scenario with its images and the members copied (n, 2); honest ones copy nobody."""
    images = np.asarray(of.pool.images)
    for scenario, draw in COPIED.items():
        rng = np.random.default_rng([number, zlib.crc32(scenario.encode())])
        chosen = of.members(rng, COPIES)
        others = np.roll(chosen, 1)
        strangers = images[rng.choice(of.strangers, COPIES)] / 255
        drawn = [of.image_of(who, rng) / 255 for who in (chosen, others)]
        made = [np.clip(draw(*three, rng), 0, 1) for three in zip(*drawn, strangers, strict=True)]
        yield scenario, np.stack(made), np.stack([chosen, others], axis=1)
    for scenario in (*HONEST, COLLAPSED, MEANS):
        rng = np.random.default_rng([number, zlib.crc32(scenario.encode())])
        own = of.honest(rng) / 255
        if scenario == COLLAPSED:
            made_of = own[rng.permutation(len(own))[:5]][rng.integers(0, 5, SYNTHETIC)]
            made_of = made_of + rng.normal(0, 0.02, made_of.shape)
        elif scenario == MEANS:
            made_of = (own + own[rng.permutation(len(own))]) / 2
        else:
            made_of = np.stack([HONEST[scenario](image, image, image, rng) for image in own])
        yield f"honest: {scenario}", np.clip(made_of, 0, 1), np.zeros((0, 2), np.int64)


def _looked(
    scenario: str,
    when: str,
    tables: Mapping[str, PatientDistances],
    reference: Reference,
    sources: NDArray[np.int64],
) -> Looked:
    found = find_copies({name: tables[name] for name in reference.thresholds}, reference)
    n = len(next(iter(tables.values())).distances)
    if not len(sources):
        hit = int(len(found.rows) > 0)
        return Looked(scenario=scenario, spaces=when, images=n, found=0, wrong=len(found.rows), sets=1, sets_found=hit)
    right = (found.patients[:, None] == sources[found.rows]).any(axis=1)
    seen = np.zeros(n, bool)
    seen[found.rows[right]] = True
    sets = seen[: n // OF_ONE_PER_CENT * OF_ONE_PER_CENT].reshape(-1, OF_ONE_PER_CENT).any(axis=1)
    return Looked(
        scenario=scenario,
        spaces=when,
        images=n,
        found=int(seen.sum()),
        wrong=int((~right).sum()),
        sets=len(sets),
        sets_found=int(sets.sum()),
    )
