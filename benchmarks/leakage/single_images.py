"""Patients with one image each, as chest X-rays are: 200 entries of one channel, 3 % of the patients entered twice.

The second entry of a patient is another slice in another contrast under another name. Output is one slice of each of
300 strangers; a leak replaces a twentieth of it by one altered copy of as many members, or a tenth by images of ten
members, three of each, bent and in another contrast. The encoder and the discriminants learn to look past noise, blur,
contrast, small turns and small warps of real images; past halves, mixtures and larger warps nothing is trained to look.
"""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from leakage.altered import Drawn, Image, bent, blurred, half, mixed, noised, then, turned
from leakage.pictures import as_output, with_roles
from leakage.scoring import decide
from numpy.typing import NDArray

from fedsynth.data import ImageSet
from fedsynth.evaluation.cohort import Cohort
from fedsynth.evaluation.feature_spaces import copy_spaces, default_spaces
from fedsynth.evaluation.memorization.distance_tables import DEPTH, SHALLOW, is_whole, look_up, queries

PATIENTS, DOUBLES, OUTPUT, COPIED = 200, 6, 300, 15
IDENTITIES, OF_EACH = 10, 3
IDENTITY = "a tenth: ten members, bent, other contrast"


def gamma(image: Image, other: Image, stranger: Image, rng: np.random.Generator) -> Image:
    """Brighter or darker."""
    return np.asarray(image ** rng.choice([0.6, 1.6]))


def either_way(degrees: float) -> Drawn:
    """Turned to either side."""
    return lambda image, other, stranger, rng: turned(degrees * rng.choice([-1, 1]))(image, other, stranger, rng)


LEAKS: Mapping[str, Drawn] = {
    "exact": lambda image, *_: image,
    "noise 12 %": noised(0.12),
    "noise 15 %": noised(0.15),
    "gamma 0.6 or 1.6": gamma,
    "blur of 1.5 pixels in 64": blurred(0.75),
    "turned by 8 degrees": either_way(8),
    "turned by 15 degrees": either_way(15),
    "bent by 1.5 pixels in 64": bent(1.5),
    "bent by 3 pixels in 64": bent(3),
    "half a stranger's": half,
    "mean of two members": mixed(0.5),
    "0.5 and 0.5 of a stranger": mixed(0.5, with_stranger=True),
    IDENTITY: then(bent(2), gamma),
}
HONEST: Mapping[str, Drawn] = {
    "honest: sharp": lambda image, *_: image,
    "honest: blurred": blurred(0.75),
    "honest: noisy": noised(0.08),
    "honest: bent": bent(3),
    "honest: collapsed onto five strangers' images": noised(0.02),
}


def one_real_set(pool: ImageSet, number: int) -> Iterator[tuple[str, dict[str, object]]]:
    """Every leak once and every honest output twice on one real set, each with roles of its own."""
    rng = np.random.default_rng([number, *b"single"])
    people = pool.cases["patient"].to_numpy(str)
    named = rng.permutation(np.unique(people))
    rows = np.array([rng.choice(np.flatnonzero(people == name)) for name in named])
    images = np.asarray(pool.images[:, :1]) / 255
    real = images[rows[:PATIENTS]]
    for double in range(DOUBLES):
        own = np.setdiff1d(np.flatnonzero(people == named[double]), rows[double])
        real[PATIENTS - 1 - double] = images[rng.choice(own)] ** rng.uniform(0.6, 1.6)
    entries = _real_set(pool, real, rows[:PATIENTS])
    strangers = images[rows[PATIENTS:]]
    owner = np.arange(PATIENTS)
    spaces = {space.name: space for space in [*default_spaces(entries), *copy_spaces(entries)]}
    fitted, among = {}, {}
    for name, space in spaces.items():
        space.fit(entries, seed=number)
        fitted[name] = space.features(entries)
        depth = DEPTH if is_whole(space) else SHALLOW
        among[name] = look_up(space, queries(space, entries), fitted[name], owner, depth, owner)
    for turn, scenario in enumerate((*HONEST, *LEAKS, *HONEST)):
        draw = np.random.default_rng([number, zlib.crc32(scenario.encode()), turn // len((*HONEST, *LEAKS))])
        with_drawn = with_roles(entries, int(draw.integers(2**31)))
        cohort = Cohort.of(with_drawn)
        order = cohort.numbers(with_drawn)
        member = cohort.member[order]
        made, copied = _output(scenario, real, strangers, member, draw)
        output = as_output(entries, _bytes(made))
        tables = {
            name: look_up(space, queries(space, output), fitted[name], owner, DEPTH if is_whole(space) else SHALLOW)
            for name, space in spaces.items()
        }
        whole = [name for name, space in spaces.items() if is_whole(space)]
        found = decide(tables, among, owner, cohort, number, np.unique(copied), whole=whole, copied_rows=copied)
        yield scenario, found | {"leaked": len(copied)}


def _output(
    scenario: str, real: Image, strangers: Image, member: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[Image, NDArray[np.int64]]:
    """The images, and the entries that the first of them were made from."""
    chosen = strangers[rng.permutation(len(strangers))]
    made = chosen[:OUTPUT].copy()
    if scenario in HONEST:
        if "collapsed" in scenario:
            made = made[:5][rng.integers(0, 5, OUTPUT)]
        return np.stack([HONEST[scenario](image, image, image, rng) for image in made]), np.zeros(0, np.int64)
    people = rng.permutation(np.flatnonzero(member))
    copied = np.repeat(people[:IDENTITIES], OF_EACH) if scenario == IDENTITY else people[:COPIED]
    others = real[np.roll(copied, 1)]
    for row, (entry, other) in enumerate(zip(copied, others, strict=True)):
        made[row] = np.clip(LEAKS[scenario](real[entry], other, chosen[-1 - row], rng), 0, 1)
    return made, copied


def _real_set(pool: ImageSet, images: Image, rows: NDArray[np.int64]) -> ImageSet:
    cases = pool.cases.iloc[rows].reset_index(drop=True)
    names = [f"entry-{number:04}" for number in range(len(cases))]
    cases = cases.assign(case=names, patient=names, slice="", role="")
    header = replace(pool.header, channels=pool.header.channels[:1], mask_labels=())
    return ImageSet(header=header, cases=cases, images=_bytes(images))


def _bytes(images: Image) -> NDArray[np.uint8]:
    return np.rint(255 * np.clip(images, 0, 1)).astype(np.uint8)
