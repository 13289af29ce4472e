import math

import pytest
import torch
from torch.nn import functional

from fedsynth.models.generators.stylegan3 import along_axes, downsampling, low_pass, upsampling


def test_the_low_pass_keeps_what_is_slow_and_stops_what_is_fast() -> None:
    kernel = low_pass(24, cutoff=4.0, width=4.0, rate=32.0)
    assert kernel.sum().item() == pytest.approx(1)
    assert torch.allclose(kernel, kernel.flip(0))
    at = torch.arange(24) - 11.5

    def response(frequency: float) -> float:
        return float((kernel * torch.cos(2 * math.pi * frequency / 32 * at)).sum().abs())

    assert response(1) == pytest.approx(1, abs=0.03)
    assert response(4) == pytest.approx(0.5, abs=0.05)
    assert response(8) < 0.03
    assert low_pass(1, cutoff=1, width=1, rate=2).tolist() == [1]


@pytest.mark.parametrize(("before", "after"), [(3, 2), (0, 0), (-2, 1)])
def test_upsampling_equals_insertion_padding_and_convolution(before: int, after: int) -> None:
    x, kernel = torch.randn(1, 1, 7), low_pass(6, cutoff=1, width=1, rate=8)
    spaced = torch.zeros(1, 1, 14)
    spaced[..., ::2] = x
    oracle = functional.conv1d(functional.pad(spaced, (before, after)), 2 * kernel[None, None])
    ours = x @ upsampling(7, kernel, factor=2, before=before, after=after).T
    assert torch.allclose(ours, oracle, atol=1e-6)


@pytest.mark.parametrize("factor", [1, 2])
def test_downsampling_equals_a_convolution_with_stride(factor: int) -> None:
    x, kernel = torch.randn(1, 1, 15), low_pass(6, cutoff=1, width=1, rate=8)
    oracle = functional.conv1d(x, kernel[None, None], stride=factor)
    assert torch.allclose(x @ downsampling(15, kernel, factor=factor).T, oracle, atol=1e-6)


def test_a_matrix_works_along_every_axis() -> None:
    x, matrix = torch.randn(2, 3, 4, 4, 4), torch.randn(5, 4)
    expected = torch.einsum("nkxyz,ax,by,cz->nkabc", x, matrix, matrix, matrix)
    assert torch.allclose(along_axes(x, matrix), expected, atol=1e-4)
