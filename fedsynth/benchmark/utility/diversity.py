"""How alike the images of one set are: MS-SSIM between random pairs (Odena et al. 2017), and the Inception Score."""

import numpy as np
import torch
from monai.metrics.regression import SSIMMetric
from numpy.typing import NDArray
from torch.nn import functional

from fedsynth.images import ImageSet

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the five scales, Wang et al. (2003), table in section 3."""

WINDOW = 7


def ms_ssim_of_pairs(images: ImageSet, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """MS-SSIM of each pair (m, 2) of row numbers, in [0, 1]; 1 is the same image.

    As many of the five scales as leave a window of seven pixels; their weights are brought to a sum of one.
    """
    scales = 1
    while scales < len(WEIGHTS) and min(images.size) // 2**scales >= WINDOW:
        scales += 1
    weights = np.array(WEIGHTS[:scales]) / sum(WEIGHTS[:scales])
    found = []
    for start in range(0, len(pairs), 32):
        first, second = (_unit(images, pairs[start : start + 32, side]) for side in (0, 1))
        found.append(_ms_ssim(first, second, weights))
    return np.concatenate(found)


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


def _ms_ssim(first: torch.Tensor, second: torch.Tensor, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    dimensions = first.dim() - 2
    metric = SSIMMetric(dimensions, data_range=1.0, kernel_type="uniform", win_size=WINDOW)
    pool = functional.avg_pool2d if dimensions == 2 else functional.avg_pool3d
    total = torch.ones(len(first), dtype=torch.float64)
    for weight in weights:
        alike = metric._compute_metric(first, second).reshape(len(first)).double().clamp(0, 1)
        total *= alike ** float(weight)
        first, second = pool(first, 2), pool(second, 2)
    return np.asarray(total.numpy())


def _unit(images: ImageSet, rows: NDArray[np.int64]) -> torch.Tensor:
    values = np.asarray(images.images[rows])
    scale = np.float32(255) if values.dtype == np.uint8 else np.float32(1)
    return torch.from_numpy(np.asarray(values, np.float32) / scale)
