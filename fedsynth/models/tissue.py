"""Classes of tissue found in an image without anybody's labels: where a lesion map says nothing, anatomy is told.

A fixed function of the image alone, the same for every scanner: brightness in the first channel, freed of slow changes
over the image (a bias field), in shares of what is not black.
"""

import torch
from torch import Tensor
from torch.nn import functional

from fedsynth.models.texture import BLACK

SHARES = {2: (0.35,), 3: (0.2, 0.6), 4: (0.15, 0.4, 0.7)}
"""By the number of classes, up to which share of the foreground each but the last reaches, from dark to bright."""
FINE, WIDE = 3, 3
"""Voxels of the smallest window, taken twice, and how many wide windows span an image."""


def tissue_of(image: Tensor, classes: int) -> Tensor:
    """One-hot classes (n, classes, ...), dark to bright; all zero where the image is black."""
    there = (image.amax(1, keepdim=True) > BLACK).float()
    level = _mean_around(_mean_around(image[:, :1].float(), there, FINE), there, FINE)
    window = max(FINE, min(image.shape[2:]) // WIDE // 2 * 2 + 1)
    level = level - _mean_around(level, there, window)
    found = torch.zeros(len(image), *image.shape[2:], dtype=torch.int64, device=image.device)
    for number in range(len(image)):
        inside = level[number, 0][there[number, 0] > 0]
        if len(inside):
            edges = torch.quantile(inside, torch.tensor(SHARES[classes], device=image.device))
            found[number] = torch.bucketize(level[number, 0], edges)
    return functional.one_hot(found, classes).movedim(-1, 1).float() * there


def _mean_around(values: Tensor, there: Tensor, window: int) -> Tensor:
    """The mean over a window, of voxels that are there."""
    mean: Tensor = _pooled(values * there, window) / _pooled(there, window).clamp(min=1e-6)
    return mean * there


def _pooled(values: Tensor, window: int) -> Tensor:
    """The mean over a window, axis by axis: as many steps as its edges are long, not as it has voxels."""
    pool = functional.avg_pool2d if values.dim() == 4 else functional.avg_pool3d
    for axis in range(values.dim() - 2):
        size = [window if other == axis else 1 for other in range(values.dim() - 2)]
        values = pool(values, size, 1, [side // 2 for side in size])
    return values
