"""Pairings: what part of an image set is the source of a paired family, and what part it has to make from it.

Label to image, image to label, one MR contrast to another, low to high resolution and noisy to clean are all the same
families under another pairing. It knows names of channels and tensors, not files or patients.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from fedsynth.errors import ConfigError, nearest
from fedsynth.models.base import ImageShape, RandomSource, Tensors

GRAMMAR = "label-to-image, image-to-label, CHANNEL[+CHANNEL]-to-CHANNEL, super-resolution[:FACTOR], denoising[:SIGMA]"
LABEL, IMAGE = "label", "image"
LABEL_TO_IMAGE = "label-to-image"
DEFAULTS = {"super-resolution": 2.0, "denoising": 0.1}


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """Which channels (by name; none: the mask) make the source, and which the target.

    `factor` above 1 lowers the source's resolution; `sigma` above 0 adds Rician noise to it (1 is full intensity).
    """

    name: str
    source_channels: tuple[str, ...]
    target_channels: tuple[str, ...]
    factor: float = 1.0
    sigma: float = 0.0

    def shape(self, shape: ImageShape, mask_labels: tuple[str, ...]) -> ImageShape:
        """What a family has to make: `shape` describes the whole set, its images and masks together."""
        return replace(
            shape,
            channels=len(self.target_channels),
            n_labels=0 if self.target_channels else len(mask_labels),
            source_channels=len(self.source_channels) or len(mask_labels),
            channel_names=self.target_channels,
            source_names=self.source_channels or mask_labels,
        )

    def pair(self, batch: Tensors, channels: tuple[str, ...], rng: RandomSource) -> Tensors:
        """The batch that a paired family reads: `source`, `image` (no channels if only a mask is made), `mask`."""
        paired = {"source": self.source(batch, channels, rng), "image": _pick(batch, self.target_channels, channels)}
        if not self.target_channels:
            paired["mask"] = batch["mask"]
        if "label" in batch:
            paired["label"] = batch["label"]
        return paired

    def source(self, batch: Tensors, channels: tuple[str, ...], rng: RandomSource) -> Tensor:
        """The source alone, (n, S, ...): all that synthesis needs; `channels` names those of `batch["image"]`."""
        if not self.source_channels:
            return batch["mask"]
        source = _pick(batch, self.source_channels, channels)
        if self.factor > 1:
            source = lower_resolution(source, self.factor)
        if self.sigma > 0:
            source = add_rician_noise(source, self.sigma, rng)
        return source


def read_pairing(text: str, channels: tuple[str, ...], mask_labels: tuple[str, ...]) -> Pairing:
    """The pairing that `text` names, for a set with these channels and labels."""
    kind, _, amount = text.partition(":")
    if kind in DEFAULTS:
        return _degrading(kind, amount, channels)
    left, separator, right = text.partition("-to-")
    if not separator or not left or not right:
        raise ConfigError("the pairing cannot be read", value=text, remedy=f"write {GRAMMAR}")
    pairing = Pairing(
        name=text,
        source_channels=_names(left, channels, mask_labels),
        target_channels=_names(right, channels, mask_labels),
    )
    if set(pairing.source_channels) == set(pairing.target_channels):
        raise ConfigError("the pairing has the same source and target", value=text, remedy=f"write {GRAMMAR}")
    return pairing


def one_hot(labels: Tensor, n_labels: int) -> Tensor:
    """(n, ...) whole numbers as (n, n_labels, ...) float32; runs under vmap, which `F.one_hot` does not."""
    numbers = torch.arange(n_labels, device=labels.device).reshape(-1, *[1] * (labels.dim() - 1))
    return (labels[:, None] == numbers).float()


def label_source(masks: NDArray[np.uint8], n_labels: int) -> Tensor:
    """Label maps (n, height, width[, depth]) as the one-hot source that label-to-image families read."""
    highest = int(masks.max(initial=0))
    if highest >= n_labels:
        raise ConfigError(f"a label map holds a label that the {n_labels} known ones do not name", value=highest)
    return one_hot(torch.from_numpy(np.ascontiguousarray(masks, dtype=np.int64)), n_labels)


def lower_resolution(images: Tensor, factor: float) -> Tensor:
    """The images averaged over blocks of `factor` voxels and interpolated back to their grid."""
    size = images.shape[2:]
    small = [max(1, math.ceil(side / factor)) for side in size]
    mode = "bilinear" if len(size) == 2 else "trilinear"
    return F.interpolate(F.interpolate(images, size=small, mode="area"), size=size, mode=mode, align_corners=False)


def add_rician_noise(images: Tensor, sigma: float, rng: RandomSource) -> Tensor:
    """Magnitude images in [-1, 1] with complex Gaussian noise of `sigma` times full intensity, clipped at 1."""
    real, imaginary = (rng.normal(tuple(images.shape)).to(images) * sigma for _ in range(2))
    return torch.hypot((images + 1) / 2 + real, imaginary).clamp(max=1) * 2 - 1


def _degrading(kind: str, amount: str, channels: tuple[str, ...]) -> Pairing:
    try:
        value = float(amount) if amount else DEFAULTS[kind]
    except ValueError as error:
        raise ConfigError(f"{kind} takes a number after the colon", value=amount) from error
    name = f"{kind}:{value:g}"
    if kind == "super-resolution":
        if not 1 < value <= 8:
            raise ConfigError("super-resolution takes a factor above 1 and at most 8", value=value)
        return Pairing(name=name, source_channels=channels, target_channels=channels, factor=value)
    if not 0 < value <= 1:
        raise ConfigError("denoising takes a noise level above 0 and at most 1 (full intensity)", value=value)
    return Pairing(name=name, source_channels=channels, target_channels=channels, sigma=value)


def _names(text: str, channels: tuple[str, ...], mask_labels: tuple[str, ...]) -> tuple[str, ...]:
    """The channels that one side of a pairing names; empty for the mask."""
    if text == LABEL and LABEL not in channels:
        if not mask_labels:
            raise ConfigError("the pairing needs masks, and the set has none", value=text)
        return ()
    if text == IMAGE and IMAGE not in channels:
        return channels
    names = tuple(text.split("+"))
    for name in names:
        if name not in channels:
            raise ConfigError("the pairing names an unknown channel", value=name, remedy=nearest(name, channels))
    if len(set(names)) != len(names):
        raise ConfigError("the pairing names a channel twice", value=text)
    return names


def _pick(batch: Tensors, names: tuple[str, ...], channels: tuple[str, ...]) -> Tensor:
    """The named channels of the images, none for no names."""
    for name in names:
        if name not in channels:
            raise ConfigError("the images lack a channel that the pairing needs", value=name)
    return batch["image"][:, [channels.index(name) for name in names]]
