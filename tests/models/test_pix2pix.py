"""pix2pix: the distance to the target by hand, for intensities and labels; the U-Net's grid and reach."""

import math

import pytest
import torch
from torch import nn

from fedsynth.models.base import ImageShape, SeededSource
from fedsynth.models.generators.catalog import build
from fedsynth.models.image_to_image import UNet
from fedsynth.models.pairing import one_hot


class Constant(nn.Module):
    """Says the same value everywhere, channel by channel."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.values.reshape(1, -1, 1, 1).expand(len(x), -1, *x.shape[2:])


def test_the_generators_loss_by_hand() -> None:
    family = build("pix2pix", ImageShape(channels=1, size=(16, 16), source_channels=1), base=8)
    family.nets["generator"] = Constant(0.0)
    batch = {"image": torch.full((2, 1, 16, 16), 0.25), "source": torch.zeros(2, 1, 16, 16)}
    batch["image"][1] = -0.5
    noise = family.noise(2, SeededSource(0))
    loss = family.real_loss(family.phases[1], batch, noise, 1.0)
    # both generated images are alike, so the discriminator's part is the same and only 100 times the distance differs
    assert (loss[1] - loss[0]).item() == pytest.approx(100 * (0.5 - 0.25), rel=1e-4)
    scores = family.nets["discriminator"](torch.zeros(1, 2, 16, 16), {})[-1]
    assert loss[0].item() == pytest.approx(25 + (scores - 1).square().mean().item(), rel=1e-4)


def test_labels_are_compared_by_cross_entropy() -> None:
    shape = ImageShape(channels=0, size=(16, 16), n_labels=2, source_channels=1)
    family = build("pix2pix", shape, base=8, closeness=10)
    family.nets["generator"] = Constant(0.0, math.log(3))  # probabilities 1/4 and 3/4
    labels = torch.zeros(2, 16, 16, dtype=torch.int64)
    labels[1] = 1
    batch = {"image": torch.zeros(2, 0, 16, 16), "mask": one_hot(labels, 2), "source": torch.zeros(2, 1, 16, 16)}
    noise = family.noise(2, SeededSource(0))
    loss = family.real_loss(family.phases[1], batch, noise, 1.0)
    assert (loss[0] - loss[1]).item() == pytest.approx(10 * math.log(3), rel=1e-4)
    made = family.sample(batch, noise)
    assert made["mask"][0, :, 0, 0].tolist() == pytest.approx([0.25, 0.75])
    assert made["image"].shape == (2, 0, 16, 16)


def test_both_turns_read_patients_and_the_free_half_is_empty() -> None:
    for private in (False, True):
        family = build("pix2pix", ImageShape(channels=1, size=(16, 16), source_channels=1), base=8, private=private)
        assert all(phase.reads_patients for phase in family.phases)
        noise = family.noise(2, SeededSource(0))
        assert family.fake_loss(family.phases[1], {}, noise, 1.0).tolist() == [0, 0]


@pytest.mark.parametrize("size", [(16, 16), (32, 48), (40, 24), (16, 16, 24)])
def test_the_unet_keeps_the_grid_and_sees_all_of_it(size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    unet = UNet(size, 2, 3, 8)
    x = torch.randn(1, 2, *size, requires_grad=True)
    values = unet(x)
    assert values.shape == (1, 3, *size)
    corner = (0, 0, *[0] * len(size))
    (slope,) = torch.autograd.grad(values[corner], x)
    assert slope[(0, 0, *[-1] * len(size))] != 0  # the opposite corner
