"""SPADE: what a label does to a voxel hangs on the label and not on its area; the private one keeps its distance."""

import pytest
import torch
from torch.nn import functional

from fedsynth.models.base import ImageShape, SeededSource
from fedsynth.models.generators.catalog import build
from fedsynth.models.generators.spade import Generator, Modulation
from fedsynth.models.image_to_image import PatchGanDiscriminator, feature_distance, over_patches
from fedsynth.models.pairing import one_hot

SHAPE = ImageShape(channels=1, size=(32, 32), source_channels=3)


def a_lesion(side: int, size: int = 32) -> torch.Tensor:
    labels = torch.ones(1, size, size, dtype=torch.int64)
    start = (size - side) // 2
    labels[:, start : start + side, start : start + side] = 2
    return one_hot(labels, 3)


def test_the_modulation_of_a_lesion_does_not_depend_on_its_area() -> None:
    torch.manual_seed(0)
    modulation = Modulation(2, 8, 3, 16)
    with torch.no_grad():
        at_centre = [torch.cat(modulation.scale_and_shift(a_lesion(side)), 1)[..., 16, 16] for side in (6, 16, 28)]
        elsewhere = torch.cat(modulation.scale_and_shift(a_lesion(6)), 1)[..., 2, 2]
    for other in at_centre[1:]:
        torch.testing.assert_close(other, at_centre[0])
    assert (elsewhere - at_centre[0]).abs().max() > 0.01


def test_the_modulation_is_equation_1() -> None:
    torch.manual_seed(0)
    modulation, source = Modulation(2, 2, 3, 4), a_lesion(8)
    x = torch.randn(1, 2, 32, 32)
    gamma, beta = modulation.scale_and_shift(source)
    mean, deviation = x.mean((2, 3), keepdim=True), x.std((2, 3), keepdim=True, correction=0)
    torch.testing.assert_close(modulation(x, source), (x - mean) / deviation * (1 + gamma) + beta, rtol=1e-3, atol=1e-3)


def test_small_lesions_reach_every_grid() -> None:
    torch.manual_seed(0)
    generator = Generator(SHAPE, 8, 8)
    seen: list[torch.Tensor] = []
    for block in generator.blocks:
        block.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[1]))
    with torch.no_grad():
        generator(torch.zeros(1, 64), {"source": a_lesion(1)})
    assert [tuple(source.shape[2:]) for source in seen] == [(4, 4), (8, 8), (16, 16), (32, 32)]
    assert all(source[:, 2].sum() > 0 for source in seen)
    assert all(source.sum(1) == pytest.approx(1) for source in seen)  # shares of labels


def test_feature_distance_by_hand() -> None:
    made = [torch.zeros(2, 1, 2), torch.ones(2, 3, 1), torch.full((2, 1, 1), 7.0)]
    real = [torch.tensor([[[1.0, 3.0]], [[0.0, 0.0]]]), torch.ones(2, 3, 1), torch.zeros(2, 1, 1)]
    assert feature_distance(made, real).tolist() == [1.0, 0.0]  # the last, the scores, does not count
    real[0].requires_grad_(True)
    assert not feature_distance(made, real).requires_grad


def test_patches_are_judged_one_by_one() -> None:
    scores = torch.tensor([[[[-2.0, 3.0]]], [[[0.0, 0.0]]]])
    assert over_patches(lambda s: functional.relu(1 - s), [scores]).tolist() == [1.5, 1.0]  # not relu(1 - mean)


def test_private_discriminators_have_no_norm() -> None:
    kinds = {
        private: {type(m).__name__ for m in PatchGanDiscriminator(SHAPE, 8, norm=not private).modules()}
        for private in (False, True)
    }
    assert "InstanceNorm2d" in kinds[False]
    assert not any("Norm" in kind for kind in kinds[True])


def test_the_private_generator_never_reads_a_patient() -> None:
    family = build("spade", SHAPE, private=True, base=8)
    assert [(phase.net, phase.reads_patients) for phase in family.phases] == [
        ("discriminator", True),
        ("generator", False),
    ]
    assert [phase.reads_patients for phase in build("spade", SHAPE, base=8).phases] == [True, True]


def test_the_private_fake_half_hangs_on_the_public_condition_alone() -> None:
    torch.manual_seed(0)
    family = build("spade", SHAPE, private=True, base=8)
    discriminator = family.phases[0]
    batch = {"image": torch.zeros(1, 1, 32, 32), "source": a_lesion(8)}
    noise = [family.noise(1, SeededSource(seed)) for seed in (0, 1)]
    real = [family.real_loss(discriminator, batch, one, 1.0).item() for one in noise]
    assert real[0] == real[1]  # no fake in it
    fake = [family.fake_loss(discriminator, {"source": a_lesion(8)}, one, 1.0).item() for one in noise]
    assert fake[0] != fake[1]


def test_one_map_has_many_images() -> None:
    torch.manual_seed(0)
    family = build("spade", SHAPE, base=8)
    with torch.no_grad():
        made = family.sample({"source": a_lesion(8).expand(4, -1, -1, -1)}, family.noise(4, SeededSource(0)))["image"]
    assert made.std(0).mean() > 1e-3
