"""Growth follows progress alone, without jumps, and leaves what is not reached untouched."""

import pytest
import torch

from fedsynth.models.progressive_growing import GrowingGan, GrowingGenerator, Growth
from tests.models.joint import condition_for, loss_of, noise_for, tiny, train

GROWING = pytest.mark.parametrize("name", ["progan", "stylegan"])


def growing(name: str, **options: bool) -> GrowingGan:
    family = tiny(name, **options)
    assert isinstance(family, GrowingGan)
    return family


def test_the_schedule_by_hand() -> None:
    growth = Growth(n_stages=3, share=0.5)  # a unit is 0.2: stage 0 to 0.2, then 0.1 fading and 0.1 standing
    assert growth.at(0.0) == (0, 1.0)
    assert growth.at(0.199) == (0, 1.0)
    for progress, stage, share in [(0.25, 1, 0.5), (0.35, 1, 1.0), (0.45, 2, 0.5), (0.5, 2, 1.0), (1.0, 2, 1.0)]:
        assert growth.at(progress)[0] == stage
        assert growth.at(progress)[1] == pytest.approx(share)
    assert [growth.at(progress)[0] for progress in growth.stages()] == [0, 1, 2, 2]
    assert Growth(n_stages=1).at(0.0) == (0, 1.0)


@GROWING
def test_each_stage_uses_its_own_parameters_and_the_stages_use_all(name: str) -> None:
    family = growing(name)
    used: dict[float, set[str]] = {}
    for progress in family.stages():
        used[progress] = set()
        for phase in family.phases:
            parameters = dict(family.nets[phase.net].named_parameters())
            values = torch.autograd.grad(
                loss_of(family, phase, 2, 0, progress), list(parameters.values()), allow_unused=True
            )
            used[progress] |= {
                f"{phase.net}.{key}" for key, value in zip(parameters, values, strict=True) if value is not None
            }
    smallest = used[0.0]
    assert "discriminator.into.0.weight" in smallest
    assert "generator.out.0.weight" in smallest
    assert not any(part in key for key in smallest for part in ("into.1", "out.1", "discriminator.blocks.1"))
    assert set.union(*used.values()) == {key for key, _ in family.nets.named_parameters()}


@GROWING
@pytest.mark.parametrize("border", [1, 2, 3])
def test_pictures_do_not_jump_where_a_stage_begins(name: str, border: int) -> None:
    family = growing(name)
    assert isinstance(family.generator, GrowingGenerator)
    train(family, 2, progress=1.0)
    start = border * 0.5 / (family.growth.n_stages - 0.5)
    pictures = []
    for step in (-1e-6, 1e-6):
        family.generator.grown.fill_(start + step)
        noise = {**noise_for(family), "mix": torch.ones(2, 2)}
        pictures.append(family.sample(condition_for(family), noise)["image"].detach())
    difference = (pictures[0] - pictures[1]).abs().mean() / pictures[0].std()
    assert difference < (1e-3 if name == "progan" else 0.5)  # StyleGAN doubles linearly, its picture repeats pixels


@GROWING
def test_scores_do_not_jump_where_a_stage_begins(name: str) -> None:
    family, joint = growing(name, private=True), torch.randn(2, 3, 32, 32)
    for border in (1, 2, 3):
        start = border * 0.5 / (family.growth.n_stages - 0.5)
        scores = [
            family.scorer(condition_for(family)["label"], p)(family.staged(joint, p))
            for p in (start - 1e-6, start + 1e-6)
        ]
        torch.testing.assert_close(*scores, rtol=1e-3, atol=1e-4)


@GROWING
def test_unreached_stages_stand_still_and_the_state_keeps_its_shape(name: str) -> None:
    family = growing(name)
    before = {key: value.clone() for key, value in family.state_dict().items()}
    train(family, 2, progress=0.0)
    after = family.state_dict()
    assert {key: value.shape for key, value in before.items()} == {key: value.shape for key, value in after.items()}
    assert not torch.equal(before["nets.discriminator.into.0.weight"], after["nets.discriminator.into.0.weight"])
    for key in ("nets.discriminator.into.1.weight", "nets.generator.out.1.weight", "nets.discriminator.into.3.bias"):
        assert torch.equal(before[key], after[key])
    train(family, 2, progress=0.9)
    assert list(family.state_dict()) == list(before)


@GROWING
def test_samples_show_the_stage_last_trained_at_full_size(name: str) -> None:
    family = growing(name)
    blocks = []
    for progress in (0.0, 0.25, 1.0):
        train(family, 1, progress=progress)
        image = family.sample(condition_for(family), noise_for(family))["image"]
        assert image.shape[2:] == (32, 32)
        blocks.append(torch.unique(image[0, 0]).numel())
    assert blocks[0] <= 4 * 4 < blocks[1] <= 8 * 8 < blocks[2]


def test_real_images_shrink_and_fade() -> None:
    family, joint = growing("progan"), torch.randn(1, 3, 32, 32)
    assert family.staged(joint, 1.0) is joint
    torch.testing.assert_close(family.staged(joint, 0.0), torch.nn.functional.avg_pool2d(joint, 8))
    assert family.staged(joint, 0.2).shape == (1, 3, 8, 8)
