"""Low-pass resampling along every axis, as small matrices: exact, separable, and the same for images and volumes.

Follows the filters of StyleGAN3 (Karras et al. 2021, appendix C). A matrix per axis replaces padded convolutions by
one-channel filters, which is several times faster on a CPU and what makes volumes possible.
"""

import math

import torch
from torch import Tensor


def low_pass(taps: int, *, cutoff: float, width: float, rate: float) -> Tensor:
    """A Kaiser-windowed sinc of `taps` values that sum to one, for a signal sampled `rate` times per unit.

    `width` is the whole transition band; from it the window's shape follows (Kaiser's formula).
    """
    if taps == 1:
        return torch.ones(1)
    attenuation = 2.285 * (taps - 1) * math.pi * width / (rate / 2) + 7.95
    at = torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2
    window = torch.kaiser_window(taps, periodic=False, beta=_beta(attenuation), dtype=torch.float64)
    taper = torch.sinc(2 * cutoff / rate * at) * window
    return (taper / taper.sum()).float()


def _beta(attenuation: float) -> float:
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    if attenuation > 21:
        return float(0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21))
    return 0.0


def upsampling(n: int, kernel: Tensor, *, factor: int, before: int, after: int) -> Tensor:
    """The matrix that inserts zeros, pads (or cuts, where negative) and filters a signal of `n` values."""
    rows = n * factor + before + after - len(kernel) + 1
    return factor * _taps(kernel, before + factor * torch.arange(n)[None] - torch.arange(rows)[:, None])


def downsampling(n: int, kernel: Tensor, *, factor: int) -> Tensor:
    """The matrix that filters a signal of `n` values and keeps every `factor`-th."""
    rows = (n - len(kernel)) // factor + 1
    return _taps(kernel, torch.arange(n)[None] - factor * torch.arange(rows)[:, None])


def _taps(kernel: Tensor, index: Tensor) -> Tensor:
    inside = (index >= 0) & (index < len(kernel))
    return torch.where(inside, kernel[index.clamp(0, len(kernel) - 1)], torch.zeros(()))


def along_axes(x: Tensor, matrix: Tensor) -> Tensor:
    """`matrix` applied to every spatial axis of (n, C, ...)."""
    x = x @ matrix.T
    for axis in range(2, x.dim() - 1):
        before, after = x.shape[:axis], x.shape[axis + 1 :]
        rows = torch.matmul(matrix, x.reshape(-1, x.shape[axis], after.numel()))
        x = rows.reshape(*before, len(matrix), *after)
    return x
