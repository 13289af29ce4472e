"""Pictures (PNG, JPEG, TIFF, BMP) in one folder per class, with optional `*_mask` files beside them.

Whose picture is whose must be said: by a pattern over the file names, or by stating that nobody has two.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsynth.errors import ConfigError, SourceError
from fedsynth.images.readers import ReadOptions, chosen_channels
from fedsynth.images.readers.gathering import Gathered, Picture, gather
from fedsynth.images.readers.masks import MaskLabels, declared_labels
from fedsynth.images.readers.people import People
from fedsynth.images.readers.pictures import open_mask, open_picture, picture_kind
from fedsynth.images.source import Plan, Raw, Source

GREY, COLOURS = "gray", ("red", "green", "blue")
LUMA = np.array([0.299, 0.587, 0.114])
FULL = {8: 255, 16: 65535}


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """How the pictures of one source are decoded: the same channels and the same range for all."""

    channels: tuple[str, ...]
    bits: int
    labels: MaskLabels | None

    def decode(self, picture: Picture) -> Iterator[Raw]:
        """The one image of `picture` and its mask."""
        image = self._channels(self._widened(open_picture(picture.file), picture.file))
        mask = None if self.labels is None else self._mask(picture, image.shape[1:], self.labels)
        yield Raw(case=picture.case, image=image, mask=mask, spacing_mm=None)

    def _widened(self, image: NDArray[Any], file: Path) -> NDArray[Any]:
        """8 bits beside 16 are stretched to the same full range: 255 becomes 65535."""
        if image.dtype == np.uint8 and self.bits == 16:
            return image.astype(np.uint16) * np.uint16(257)
        if (image.dtype.itemsize * 8 > self.bits) or (image.dtype.itemsize < 4 and self.bits == 32):
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
    coloured, bits = _survey(found.pictures)
    reading = Pictures(channels=_channels(options, coloured), bits=bits, labels=labels)
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
        notes=_notes(found, people, bits),
        intensity=f"window:0,{FULL[bits]}" if bits in FULL else "percentile:1,99",
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


def _survey(pictures: list[Picture]) -> tuple[bool, int]:
    """Whether any picture has colours, and the bits that hold all of them; damaged ones speak when they are decoded."""
    kinds: Counter[tuple[bool, int]] = Counter()
    for picture in pictures:
        try:
            kinds[picture_kind(picture.file)] += 1
        except SourceError:
            continue
    bits = {bits for _, bits in kinds} or {8}
    if 32 in bits and len(bits) > 1:
        raise SourceError("some pictures have 32 bits per value and others fewer", remedy="save all with 8 or 16 bits")
    return any(coloured for coloured, _ in kinds), max(bits)


def _channels(options: ReadOptions, coloured: bool) -> tuple[str, ...]:
    if not options.channels:
        return COLOURS if coloured else (GREY,)
    chosen = chosen_channels((GREY, *COLOURS), options)
    if GREY in chosen and len(chosen) > 1:
        raise ConfigError(f"{GREY!r} does not go with colours", value=",".join(chosen))
    return chosen


def _notes(found: Gathered, people: People, bits: int) -> dict[str, Any]:
    stated = f"pattern {people.pattern.pattern}" if people.pattern else "stated by the user: one image per patient"
    notes: dict[str, Any] = {"patients": stated, "bits": bits}
    if found.ignored:
        notes["files-ignored"] = found.ignored
    if found.was_split:
        notes["former-split"] = "train, val and test folders were pooled; each case keeps its folder in its name"
    return notes
