"""Pictures as numbers, without any trained network: what stands where, and what random filters answer.

Neither knows who was trained on. Both work for any channels, two or three dimensions.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fedsynth.data import ImageSet
from fedsynth.data.lazy_arrays import blocks

Features = NDArray[np.float64]
GRID = {2: 8, 3: 4}
WIDTHS = (16, 32, 64)


@dataclass(frozen=True, kw_only=True)
class FeatureSpace:
    """A name, and a function from an image set to a row of numbers per image."""

    name: str
    of: Callable[[ImageSet], Features]


def spaces() -> tuple[FeatureSpace, ...]:
    """Those that need no download."""
    return FeatureSpace(name="grid", of=grid_features), FeatureSpace(name="filters", of=filter_features)


def grid_features(images: ImageSet) -> Features:
    """Per cell of a coarse grid and channel the mean and the contrast; and the share of each label."""
    rows = []
    for start, batch in _batches(images):
        cells = GRID[batch.dim() - 2]
        means = _pooled(batch, cells)
        contrast = (_pooled(batch**2, cells) - means**2).clamp(min=0).sqrt()
        parts = [means.flatten(1), contrast.flatten(1)]
        if images.masks is not None:
            labels = np.asarray(images.masks[np.arange(start, start + len(batch))]).reshape(len(batch), -1)
            shares = [(labels == number).mean(1) for number in range(1, len(images.header.mask_labels))]
            parts.append(torch.from_numpy(np.stack(shares, 1)).float())
        rows.append(torch.cat(parts, 1).double().numpy())
    return np.concatenate(rows)


def filter_features(images: ImageSet) -> Features:
    """Mean and spread of what each filter of a fixed random convolutional network answers, layer by layer."""
    network = _RandomFilters(len(images.header.channels), len(images.size))
    with torch.no_grad():
        return np.concatenate([network(batch).double().numpy() for _, batch in _batches(images)])


class _RandomFilters(nn.Module):
    """Weights drawn from a fixed seed: the same numbers on every machine and in every year."""

    def __init__(self, channels: int, dimensions: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.convolve = functional.conv2d if dimensions == 2 else functional.conv3d
        self.pool = functional.avg_pool2d if dimensions == 2 else functional.avg_pool3d
        self.kernels = []
        for inputs, outputs in zip((channels, *WIDTHS[:-1]), WIDTHS, strict=True):
            shape = (outputs, inputs, *[3] * dimensions)
            kernel = torch.randn(shape, generator=generator)
            self.kernels.append(kernel / (inputs * 3**dimensions) ** 0.5 * 2**0.5)

    def forward(self, images: Tensor) -> Tensor:
        """(n, features)."""
        found, x = [], images * 2 - 1
        for kernel in self.kernels:
            x = functional.leaky_relu(self.convolve(x, kernel, padding=1), 0.2)
            flat = x.flatten(2)
            found += [flat.mean(2), flat.std(2)]
            if min(x.shape[2:]) >= 2:
                x = self.pool(x, 2)
        return torch.cat(found, 1)


def _batches(images: ImageSet) -> Iterator[tuple[int, Tensor]]:
    for start, block in blocks(images.images):
        scale = np.float32(255) if block.dtype == np.uint8 else np.float32(1)
        yield start, torch.from_numpy(np.asarray(block, np.float32) / scale)


def _pooled(batch: Tensor, cells: int) -> Tensor:
    size = [min(side, cells) for side in batch.shape[2:]]
    pool = functional.adaptive_avg_pool2d if len(size) == 2 else functional.adaptive_avg_pool3d
    return pool(batch, size)  # type: ignore[arg-type]
