"""What the pictures of a folder have in common: whether they show colours, and how many bits their values use.

Headers do not tell it: grey pictures are often saved in colours, and radiographs of 12 bits in files of 16. Pictures
whose header leaves the question open are decoded for it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedsynth.data.importers.pictures import open_picture, picture_kind
from fedsynth.data.parallel import ordered_map
from fedsynth.errors import SourceError

DEPTHS = (8, 10, 12, 14, 16)
TINT = 8
"""Channels that differ by so little (of 255) show no colour: JPEG rounds them apart."""
TINTED_SHARE = 0.001
"""A picture is grey where no more of its pixels than these show colour."""

Kind = Literal["grey", "grey in colours", "colours"]


@dataclass(frozen=True, kw_only=True)
class Looked:
    """One picture: its colours and the bits that its largest value needs; 32 for numbers without a fixed range.

    A `wide` one is stored in 16.
    """

    kind: Kind
    bits: int
    wide: bool = False


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Files by kind, and how many use how many bits; whether some are stored in 16. Damaged files are left out."""

    files: dict[Kind, list[Path]] = field(default_factory=dict)
    bits: Counter[int] = field(default_factory=Counter)
    wide: bool = False

    @property
    def coloured(self) -> bool:
        """Whether pictures show colours. Where only some do the user must say what is wanted."""
        colours = self.files.get("colours", [])
        grey = [file for kind, files in self.files.items() if kind != "colours" for file in files]
        if colours and grey:
            few, what = (colours, "in colours") if len(colours) <= len(grey) else (grey, "grey")
            problem = f"{len(few)} of {len(colours) + len(grey)} pictures are {what}, this one for example"
            remedy = "say --channels gray or --channels red,green,blue, or take those files away"
            raise SourceError(problem, file=few[0], remedy=remedy)
        return bool(colours)

    @property
    def depth(self) -> int:
        """The bits that hold all values: 8, 10, 12, 14 or 16, or 32 where there is no fixed range."""
        if 32 in self.bits and len(self.bits) > 1:
            raise SourceError("some pictures have 32 bits per value, others fewer", remedy="save all with 8 or 16 bits")
        return max(self.bits, default=8)

    def notes(self) -> dict[str, Any]:
        """What the provenance of the set tells of it."""
        told: dict[str, Any] = {"bits": self.depth} | ({"bits-of-files": 16} if self.wide else {})
        if len(self.bits) > 1:
            told["bits-of-pictures"] = {str(bits): count for bits, count in sorted(self.bits.items())}
        if grey := self.files.get("grey in colours"):
            told["grey-saved-in-colours"] = len(grey)
        return told


def survey(files: Sequence[Path], *, colours_matter: bool) -> Survey:
    """Look at every picture; at the pixels only of those in colours (if they matter) and those of more than 8 bits.

    The bits of 16-bit files are those that the largest value of all of them needs: a scanner's 12 bits stay 12, and a
    dark picture keeps its darkness beside the others.
    """
    looked = list(ordered_map(lambda file: _look(file, colours_matter), files))
    found: dict[Kind, list[Path]] = {}
    bits: Counter[int] = Counter()
    deep = max((one.bits for one in looked if one and one.wide), default=0)
    for file, one in zip(files, looked, strict=True):
        if one is not None:
            found.setdefault(one.kind, []).append(file)
            bits[deep if one.wide else one.bits] += 1
    return Survey(files=found, bits=bits, wide=deep > 0)


def _look(file: Path, colours_matter: bool) -> Looked | None:
    try:
        coloured, bits = picture_kind(file)
        pixels = open_picture(file) if bits == 16 or (coloured and colours_matter) else None
    except SourceError:
        return None
    kind, wide = _kind(coloured), False
    if pixels is not None and coloured and colours_matter and not _shows_colour(pixels):
        kind = "grey in colours"
    if pixels is not None and bits == 16:
        needed = int(pixels.max()).bit_length()
        bits = next(depth for depth in DEPTHS if depth >= needed)
        wide = True
    return Looked(kind=kind, bits=bits, wide=wide)


def _kind(coloured: bool) -> Kind:
    return "colours" if coloured else "grey"


def _shows_colour(pixels: NDArray[Any]) -> bool:
    spread = pixels.max(0).astype(np.int64) - pixels.min(0)
    return bool((spread > TINT).mean() > TINTED_SHARE)
