"""How alike the images of one set are: MS-SSIM between random pairs (Odena et al. 2017), and the Inception Score."""

import numpy as np
import torch
from monai.metrics.regression import compute_ssim_and_cs
from numpy.typing import NDArray
from torch.nn import functional

from fedsynth.data import ImageSet

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the five scales, Wang et al. (2003), table in section 3."""

WINDOW, SPREAD = 11, 1.5


def ms_ssim_of_pairs(images: ImageSet, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """MS-SSIM of each pair (m, 2) of row numbers, in [0, 1]; 1 is the same image.

    As many of the five scales as leave a window of eleven pixels (images of 176 pixels have all); their weights are
    brought to a sum of one, so that numbers compare at one size of images only.
    """
    scales = 1
    while scales < len(WEIGHTS) and min(images.size) // 2**scales >= WINDOW:
        scales += 1
    weights = np.array(WEIGHTS[:scales]) / sum(WEIGHTS[:scales])
    found = []
    for start in range(0, len(pairs), 32):
        first, second = (_unit(images, pairs[start : start + 32, side]) for side in (0, 1))
        found.append(ms_ssim(first, second, weights))
    return np.concatenate(found)


def ms_ssim(first: torch.Tensor, second: torch.Tensor, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of images in [0, 1], (n, channels, ...) each: contrast and structure at every scale, luminance at the last.

    As Wang et al. (2003), equation 7, have it; below zero counts as zero. Images smaller than the window get a smaller
    one, which MONAI's own metric refuses, as it does four scales of 88 pixels.
    """
    pool = functional.avg_pool2d if first.dim() == 4 else functional.avg_pool3d
    total = np.ones(len(first))
    for scale, weight in enumerate(weights):
        last = scale == len(weights) - 1
        whole, contrast = _ssim_and_contrast(first, second)
        alike = (whole if last else contrast).flatten(1).mean(1).clamp(min=0)
        total *= alike.double().numpy() ** weight
        if not last:
            first, second = pool(first, 2), pool(second, 2)
    return total


def pairs_within(classes: NDArray[np.str_], among: NDArray[np.str_], count: int, seed: int) -> NDArray[np.int64]:
    """`count` pairs of different rows of one class, shared out evenly over `among`; without any, of all rows."""
    if not len(among):
        return random_pairs(len(classes), count, seed)
    shares = [len(part) for part in np.array_split(np.arange(count), len(among))]
    rows = [np.flatnonzero(classes == name) for name in among]
    return np.concatenate([own[random_pairs(len(own), share, seed)] for own, share in zip(rows, shares, strict=True)])


def random_pairs(n: int, count: int, seed: int) -> NDArray[np.int64]:
    """`count` pairs of different rows."""
    rng = np.random.default_rng([seed, *b"pairs"])
    first = rng.integers(0, n, count)
    return np.stack([first, (first + rng.integers(1, n, count)) % n], 1)


def inception_score(chances: NDArray[np.floating]) -> float:
    """exp of the mean divergence of an image's class probabilities from the set's (Salimans et al. 2016).

    With a task classifier in Inception's place: 1 where all images look the same to it, at best the number of classes.
    """
    p = np.asarray(chances, np.float64) + 1e-12
    mean = p.mean(0, keepdims=True)
    return float(np.exp((p * (np.log(p) - np.log(mean))).sum(1).mean()))


def _ssim_and_contrast(first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    dimensions = first.dim() - 2
    window = min(WINDOW, *first.shape[2:])
    sizes, spreads = [window] * dimensions, [SPREAD] * dimensions
    return compute_ssim_and_cs(first, second, dimensions, kernel_size=sizes, kernel_sigma=spreads)


def _unit(images: ImageSet, rows: NDArray[np.int64]) -> torch.Tensor:
    values = np.asarray(images.images[rows])
    scale = np.float32(255) if values.dtype == np.uint8 else np.float32(1)
    return torch.from_numpy(np.asarray(values, np.float32) / scale)
