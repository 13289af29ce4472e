import pytest
import torch
from torch import nn
from torch.nn import functional

from fedsynth.models.base import ImageShape
from fedsynth.models.layers import (
    EqualConv,
    Mapping,
    ModulatedConv,
    as_joint,
    double,
    halve,
    halving_problem,
    halvings,
    label_score,
    minibatch_deviation,
    pixel_norm,
    repeat,
    widths,
)


def test_grids_double_from_the_coarsest() -> None:
    assert halvings((32, 32)) == [(4, 4), (8, 8), (16, 16), (32, 32)]
    assert halvings((48, 64)) == [(6, 8), (12, 16), (24, 32), (48, 64)]
    assert widths(4, 8, 32) == [32, 32, 16, 8]


@pytest.mark.parametrize(
    ("size", "problem"), [((32, 32), ""), ((16,) * 3, ""), ((50, 50), "halving"), ((4, 4), "small")]
)
def test_a_size_that_cannot_be_halved_is_refused(size: tuple[int, ...], problem: str) -> None:
    assert problem in halving_problem(size)
    assert bool(problem) == bool(halving_problem(size))


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("demodulate", [True, False])
def test_modulation_equals_convolution_by_weights_of_each_sample(dimensions: int, demodulate: bool) -> None:
    torch.manual_seed(0)
    layer = ModulatedConv(dimensions, 4, 6, 5, demodulate=demodulate)
    nn.init.normal_(layer.bias)
    x, w = torch.randn(3, 4, *[5] * dimensions), torch.randn(3, 5)
    each = layer.style(w)[:, None, :, *[None] * dimensions] * layer.weight[None] * layer.gain
    if demodulate:
        each = each * torch.rsqrt(each.square().flatten(2).sum(2) + 1e-8)[:, :, None, *[None] * dimensions]
    grouped = (functional.conv2d if dimensions == 2 else functional.conv3d)(
        x.flatten(0, 1)[None], each.flatten(0, 1), padding=1, groups=3
    )
    oracle = grouped.reshape(3, 6, *[5] * dimensions) + layer.bias[None, :, *[None] * dimensions]
    assert torch.allclose(layer(x, w), oracle, atol=1e-5)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_doubling_is_zero_insertion_and_the_binomial_filter_inside(dimensions: int) -> None:
    x = torch.randn(1, 1, *[8] * dimensions)
    spaced = torch.zeros(1, 1, *[16] * dimensions)
    spaced[:, :, *[slice(0, None, 2)] * dimensions] = x
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
    kernel = taps
    for _ in range(dimensions - 1):
        kernel = kernel[..., None] * taps
    convolve = functional.conv2d if dimensions == 2 else functional.conv3d
    oracle = convolve(functional.pad(spaced, (2, 1) * dimensions), kernel[None, None])
    inside = (..., *[slice(2, -2)] * dimensions)
    assert torch.allclose(double(x)[inside], oracle[inside], atol=1e-6)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_halving_is_the_mean_of_blocks(dimensions: int) -> None:
    x = torch.randn(2, 3, *[8] * dimensions)
    pool = functional.avg_pool2d if dimensions == 2 else functional.avg_pool3d
    assert torch.allclose(halve(x), pool(x, 2), atol=1e-6)


def test_an_equalised_layer_keeps_the_variance() -> None:
    torch.manual_seed(0)
    made = EqualConv(2, 64, 64)(torch.randn(4, 64, 16, 16))[:, :, 1:-1, 1:-1]
    assert made.std().item() == pytest.approx(1, abs=0.1)


def test_pixel_norm_and_repeat() -> None:
    assert torch.allclose(pixel_norm(torch.randn(2, 5, 3, 3)).square().mean(1), torch.ones(2, 3, 3), atol=1e-4)
    assert repeat(torch.tensor([[[[1.0, 2.0]]]])).tolist() == [[[[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]]]]


def test_the_deviation_channel_mixes_samples_and_bears_equal_ones() -> None:
    x = torch.randn(3, 2, 4, 4)
    changed = torch.cat([x[:1], x[1:] * 3])
    assert not torch.allclose(minibatch_deviation(x)[0], minibatch_deviation(changed)[0])
    equal = torch.ones(3, 2, 4, 4, requires_grad=True)
    minibatch_deviation(equal).sum().backward()
    assert equal.grad is not None
    assert torch.isfinite(equal.grad).all()


def test_label_channels_are_probabilities_scaled_to_the_range_of_images() -> None:
    shape = ImageShape(channels=2, size=(4, 4), n_labels=3)
    joint = as_joint(torch.randn(2, 5, 4, 4) * 9, shape, bounded=True)
    assert joint[:, :2].abs().max() <= 1
    assert torch.allclose(((joint[:, 2:] + 1) / 2).sum(1), torch.ones(2, 4, 4))
    assert as_joint(torch.full((1, 2, 4, 4), 9.0), ImageShape(channels=2, size=(4, 4))).max() == 9


def test_a_class_chooses_its_score_and_no_class_adds_nothing() -> None:
    scores = torch.tensor([[1.0, 10.0, 20.0]] * 3)
    label = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    assert label_score(scores, label).tolist() == [11.0, 21.0, 1.0]
    assert label_score(scores[:, :1], None).tolist() == [1.0] * 3


def test_styles_depend_on_latent_and_class() -> None:
    mapping, z = Mapping(8, 2, 6, 3), torch.randn(1, 8)
    one, two = torch.eye(2)[:1], torch.eye(2)[1:]
    assert mapping(z, one).shape == (1, 6)
    assert not torch.allclose(mapping(z, one), mapping(z, two))
    assert not torch.allclose(mapping(z, one), mapping(torch.randn(1, 8), one))
