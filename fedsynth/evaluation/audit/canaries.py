"""Canary patients: black and white patterns of which a secret coin decides, before the training, who takes part.

Nobody's image goes into them, whatever set they resemble. They know nothing of training, scores or claims.
"""

import secrets
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedsynth import atomic_files
from fedsynth.data import ImageSet
from fedsynth.data.format import COLUMNS
from fedsynth.data.image_set import concatenate
from fedsynth.privacy.secure_rng import Randomness, SecretRandomness

FEWEST, IMAGES = 20, 4

Canary = tuple[NDArray[np.uint8], NDArray[np.uint8], str]
"""Images (n, channels, ...), masks (n, ...) and the class of one canary."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Canaries:
    """All canaries, taking part or not. `images` holds every one's images, canary after canary, equally many each.

    The other two have an item per canary. `included` is the secret of the coin: what scores a canary must not see it.
    """

    images: ImageSet
    sites: tuple[str, ...]
    included: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.sites)

    @property
    def images_each(self) -> int:
        """Images of one canary."""
        return len(self.images) // len(self)

    @property
    def names(self) -> list[str]:
        """The canaries' names as patients, in their order."""
        return list(self.images.cases["patient"].iloc[:: self.images_each])

    def of(self, site: str) -> "Canaries":
        """Those of one site."""
        chosen = np.flatnonzero(np.array(self.sites) == site)
        rows = (chosen[:, None] * self.images_each + np.arange(self.images_each)).flatten()
        return Canaries(images=self.images.rows(rows), sites=(site,) * len(chosen), included=self.included[chosen])

    def joined(self, members: ImageSet) -> ImageSet:
        """The training set: `members` and the canaries whose coin fell so."""
        rows = np.flatnonzero(np.repeat(self.included, self.images_each))
        bare = members.with_cases(members.cases, split=None)
        return concatenate([bare, self.images.rows(rows)], name=members.header.name)

    def record(self, path: Path) -> None:
        """Write the coins, before the training, so that nobody can say they were chosen afterwards."""
        table = {"canary": self.names, "site": self.sites, "included": self.included.astype(int)}
        atomic_files.write_text(path, pd.DataFrame(table).to_csv(index=False, lineterminator="\n"))


def make_canaries(like: ImageSet, count: int, *, seed: int, randomness: Randomness | None = None) -> Canaries:
    """`count` canaries for the members `like`: their sizes, channels, classes, labels and sites, none of their images.

    The canaries follow from the seed, their names and coins do not: those come from the operating system, and no two
    audits share a name, so that a ledger takes every audit's canaries for patients of their own.
    """
    secret = SecretRandomness() if randomness is None else randomness
    each = IMAGES if like.header.dimensions == 2 else 1
    named = sorted(set(like.cases["site"]))
    sites = tuple(named[i % len(named)] for i in range(count))
    made = [_pattern(like, each, np.random.default_rng([seed, *b"canary", i])) for i in range(count)]
    token = secrets.token_hex(4)
    rows = []
    for number, (site, (_, _, label)) in enumerate(zip(sites, made, strict=True)):
        name = f"canary-{token}-{number:05d}"
        shared = {"patient": name, "site": site, "role": _role(like), "class": label}
        rows += [shared | {"case": f"{name}-{i}", "slice": str(i) if each > 1 else ""} for i in range(each)]
    images = ImageSet(
        header=replace(like.header, name="canaries", split=None),
        cases=pd.DataFrame(rows, columns=list(COLUMNS), dtype=str),
        images=_as_kind(np.concatenate([one for one, _, _ in made]), like),
        masks=np.concatenate([mask for _, mask, _ in made]) if like.masks is not None else None,
    )
    return Canaries(images=images, sites=sites, included=secret.integers(2, (count,)).numpy() == 1)


def _role(like: ImageSet) -> str:
    return "" if set(like.cases["role"]) == {""} else "member"


def _pattern(like: ImageSet, each: int, rng: np.random.Generator) -> Canary:
    """Black and white blocks, coarse or fine, much or little of either; the same picture in all its slices."""
    image = np.stack([_blocks(like.size, [rng.random()], rng) * 255 for _ in like.header.channels])
    n_labels = max(1, len(like.header.mask_labels))
    mask = _blocks(like.size, [1 / n_labels] * (n_labels - 1), rng)
    classes = like.header.classes
    label = str(rng.choice(classes)) if classes else ""
    return np.repeat(image[None], each, 0).astype(np.uint8), np.repeat(mask[None], each, 0).astype(np.uint8), label


def _blocks(size: tuple[int, ...], shares: list[float], rng: np.random.Generator) -> NDArray[np.int64]:
    """Blocks numbered 0, 1, ... with the given shares of 1, 2, ...; 0 takes the rest."""
    counts = [int(rng.integers(2, min(16, n) + 1)) for n in size]
    drawn = np.digitize(rng.random(counts), np.cumsum([1 - sum(shares), *shares])[:-1])
    return drawn[np.ix_(*[np.arange(n) * count // n for n, count in zip(size, counts, strict=True)])]


def _as_kind(images: NDArray[np.uint8], like: ImageSet) -> NDArray[np.uint8] | NDArray[np.float32]:
    """As the set stores its images: bytes, or numbers between zero and one."""
    return images if like.images.dtype == np.uint8 else np.asarray(images / np.float32(255), np.float32)
