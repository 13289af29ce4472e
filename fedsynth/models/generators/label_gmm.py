"""Label maps to images without training, in the manner of SynthSeg (Billot et al. 2023): what privacy at no cost buys.

Each label gets a Gaussian of intensities per image and channel; then partial volume, texture, a bias field, blur and
noise. Nothing is learnt: where names of contrasts and labels are known, the priors are textbook appearances of tissue
in MR; otherwise they are uniform. It looks best on maps that name the tissues besides the tumour.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from fedsynth.models.base import Family, ImageShape, Phase, RandomSource, Tensors
from fedsynth.models.generators.catalog import Entry, register

CONTRASTS = ("t1", "t1ce", "t2", "flair")
APPEARANCE = {
    # label: typical intensity in T1, T1 with contrast agent, T2 and FLAIR, 0 black to 1 white
    "csf": (0.18, 0.18, 0.85, 0.15),
    "grey": (0.45, 0.47, 0.48, 0.40),
    "white": (0.66, 0.66, 0.35, 0.34),
    "edema": (0.40, 0.41, 0.66, 0.72),
    "core": (0.33, 0.30, 0.66, 0.50),
    "enhancing": (0.44, 0.88, 0.55, 0.60),
    "tumour": (0.38, 0.50, 0.64, 0.66),
}
SAME_CONTRAST = {"t1c": "t1ce", "t1gd": "t1ce", "t1-gd": "t1ce", "t1n": "t1", "t1w": "t1", "t2w": "t2", "t2f": "flair"}
SAME_LABEL = {"gray": "grey", "gm": "grey", "wm": "white", "oedema": "edema", "necrosis": "core", "tumor": "tumour"}
ALIASES = {"whole-tumour": "tumour", "ventricles": "csf", "grey-matter": "grey", "white-matter": "white"}


class LabelGmm(Family):
    """Draws images for label maps; it has no networks and takes no phases."""

    phases: tuple[Phase, ...] = ()
    shared: tuple[str, ...] = ()
    sampler: tuple[str, ...] = ()
    low: Tensor
    high: Tensor

    def __init__(self, shape: ImageShape, *, spread: float) -> None:
        super().__init__(shape, {})
        self.spread = spread
        low, high = prior(shape)
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("high", high, persistent=False)

    def noise(self, n: int, rng: RandomSource) -> Tensors:
        """Intensities per label, fields over the image at three scales, and the strength of each disturbance."""
        channels, size = self.shape.channels, self.shape.size
        return {
            "level": rng.uniform((n, channels, self.shape.source_channels)),
            "deviation": rng.uniform((n, channels, self.shape.source_channels)),
            "texture": rng.normal((n, channels, *size)),
            "real": rng.normal((n, channels, *size)),
            "imaginary": rng.normal((n, channels, *size)),
            "bias": rng.normal((n, channels, *[3] * len(size))),
            "strength": rng.uniform((n, 4)),
        }

    def sample(self, condition: Tensors, noise: Tensors) -> Tensors:
        """An image for each label map, which comes one-hot as `source`."""
        share = noise["strength"].T.reshape(4, -1, *[1] * (self.shape.dimensions + 1))
        labels = _blurred(condition["source"], 0.45 + 0.2 * noise["strength"][:, 0])  # partial volume at borders
        labels = labels / labels.sum(1, keepdim=True).clamp(min=1e-6)
        level = self.low + (self.high - self.low) * noise["level"]
        image = torch.einsum("ncl,nl...->nc...", level, labels)
        deviation = torch.einsum("ncl,nl...->nc...", self.spread * noise["deviation"] * (level > 0.05), labels)
        image = image + deviation * _textured(noise["texture"])
        image = image * torch.exp(0.3 * share[1] * _smooth_field(noise["bias"], self.shape.size))
        image = _blurred(image, 0.2 + 0.3 * noise["strength"][:, 2])
        sigma = 0.005 + 0.025 * share[3]
        image = torch.hypot(image.clamp(min=0) + sigma * noise["real"], sigma * noise["imaginary"])
        return {"image": image.clamp(0, 1) * 2 - 1}


def prior(shape: ImageShape) -> tuple[Tensor, Tensor]:
    """The lowest and highest mean intensity of each label in each channel, (1, channels, labels) each."""
    low = torch.full((1, shape.channels, shape.source_channels), 0.1)
    high = torch.full_like(low, 0.9)
    low[..., 0], high[..., 0] = 0.0, 0.02  # air around the head
    for c, contrast in enumerate(shape.channel_names):
        for number, label in enumerate(shape.source_names):
            typical = _typical(contrast.lower().replace("_", "-"), label.lower().replace("_", "-"))
            if typical is not None and number:
                low[0, c, number], high[0, c, number] = 0.82 * typical, min(1.0, 1.18 * typical)
    return low, high


def _typical(contrast: str, label: str) -> float | None:
    contrast, label = SAME_CONTRAST.get(contrast, contrast), (SAME_LABEL | ALIASES).get(label, label)
    if contrast not in CONTRASTS or label not in APPEARANCE:
        return None
    return APPEARANCE[label][CONTRASTS.index(contrast)]


def _textured(noise: Tensor) -> Tensor:
    """Noise smoothed to grains of about two voxels, brought back to unit deviation."""
    smooth = _blurred(noise, torch.full((len(noise),), 0.8, device=noise.device))
    return smooth / smooth.flatten(2).std(2).clamp(min=1e-6).reshape(*smooth.shape[:2], *[1] * (smooth.dim() - 2))


def _smooth_field(coarse: Tensor, size: tuple[int, ...]) -> Tensor:
    """A coarse field interpolated over the image."""
    mode = "bicubic" if len(size) == 2 else "trilinear"
    return functional.interpolate(coarse, size=size, mode=mode, align_corners=True)


def _blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur by `sigma` voxels per sample (n,), one matrix per axis; borders repeat what is inside."""
    for axis in range(2, images.dim()):
        place = torch.arange(images.shape[axis], device=images.device, dtype=images.dtype)
        apart = (place[:, None] - place[None, :]) / math.sqrt(2)
        weight = torch.exp(-(apart[None] / sigma.to(images.dtype).clamp(min=1e-3)[:, None, None]).square())
        weight = weight / weight.sum(2, keepdim=True)
        images = torch.einsum("nc...s,nts->nc...t", images.movedim(axis, -1), weight).movedim(-1, axis)
    return images


def build(shape: ImageShape, *, private: bool = False, spread: float = 0.06) -> LabelGmm:
    """A new one. `spread` is the largest deviation of intensities within a label."""
    return LabelGmm(shape, spread=spread)


register(
    Entry(
        name="label-gmm",
        summary="no training and no privacy cost: random MR appearance for each label of a given map",
        kind="training-free",
        private="reads no patient",
        build=build,
        check_size=lambda size: "" if min(size) >= 8 else "sides below 8 are too small",
    )
)
