"""What is particular to one GAN family each."""

import math

import pytest
import torch

from fedsynth.models.base import SeededSource
from fedsynth.models.generators.r3gan import R3Gan
from fedsynth.models.generators.stylegan2 import PATHS, SkipGenerator
from fedsynth.models.generators.stylegan3 import AliasFreeGenerator, rotations
from fedsynth.models.style_mapping import Styles
from tests.models.joint import batch_for, condition_for, noise_for, tiny, train


def test_weights_of_a_wgan_discriminator_stay_cut() -> None:
    family = tiny("wgan", limit=0.03)
    assert max(p.abs().max().item() for p in family.nets["discriminator"].parameters()) <= 0.03
    train(family, 4, rate=0.02)
    assert max(p.abs().max().item() for p in family.nets["discriminator"].parameters()) == pytest.approx(0.03)
    assert max(p.abs().max().item() for p in family.generator.parameters()) > 0.03


def test_dcgan_starts_from_small_normal_weights() -> None:
    family = tiny("dcgan", base=16)
    weights = torch.cat([p.flatten() for p in family.nets["discriminator"].parameters() if p.dim() > 1])
    assert weights.std().item() == pytest.approx(0.02, rel=0.05)


def test_a_dcgan_discriminator_is_a_chain_of_plain_layers() -> None:
    names = {type(module).__name__ for module in tiny("dcgan").nets["discriminator"].modules()}
    assert names == {"ConvDiscriminator", "Sequential", "Conv2d", "LeakyReLU", "Flatten", "Linear"}


def test_path_lengths_are_the_norm_of_the_pictures_slope() -> None:
    family = tiny("stylegan2")
    generator = family.generator
    assert isinstance(generator, SkipGenerator)
    condition, noise = condition_for(family), noise_for(family)
    loss = family.fake_loss(PATHS, condition, noise, 1.0)
    lengths = generator.path_lengths(condition["label"], noise)
    ws = generator.styles.mixed(condition["label"], noise, len(generator.layers) + 1).detach().requires_grad_()
    moved = (generator.synthesize(ws, noise) * noise["path"] / 32).sum()
    (slope,) = torch.autograd.grad(moved, ws)
    torch.testing.assert_close(lengths, slope.square().sum(2).mean(1).sqrt(), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(loss, 16 * lengths.square())
    assert (lengths > 0).all()
    gradient = torch.autograd.grad(loss.mean(), [generator.constant, generator.styles.map.layers[0].weight])
    assert all(value.isfinite().all() and value.abs().max() > 0 for value in gradient)


def test_the_mean_path_length_is_kept_and_moves_only_after_updates() -> None:
    family = tiny("stylegan2")
    generator = family.generator
    assert isinstance(generator, SkipGenerator)
    first = family.fake_loss(PATHS, condition_for(family), noise_for(family), 1.0)
    assert generator.path_mean == 0
    family.after_update("generator")
    torch.testing.assert_close(generator.path_mean, (first / 16).sqrt().mean().detach())
    kept = generator.path_mean.clone()
    family.after_update("generator")
    assert torch.equal(generator.path_mean, kept)
    assert "nets.generator.path_mean" in family.state_dict()


def test_styles_mix_in_nine_of_ten_samples_at_every_place() -> None:
    styles = Styles(latent=8, n_classes=0, style=8, depth=2)
    noise = styles.noise(2000, SeededSource(0))
    ws = styles.mixed(None, noise, 6)
    first, second = (styles.map(noise[key], None) for key in ("z", "second-z"))
    from_second = (ws == second[:, None]).all(2)
    assert (from_second | (ws == first[:, None]).all(2)).all()
    place = from_second.sum(1)
    assert not from_second[:, 0].any()
    assert (place > 0).float().mean().item() == pytest.approx(0.9, abs=0.02)
    assert place.unique().tolist() == [0, 1, 2, 3, 4, 5]
    assert not (from_second[:, 1:].int().diff(dim=1) < 0).any()


def test_truncation_draws_styles_to_the_centre_of_their_class() -> None:
    label, none = torch.eye(2)[[0, 1, 1]], None
    for n_classes, given in ((2, label), (0, none)):
        styles = Styles(latent=8, n_classes=n_classes, style=8, depth=2, truncation=0.0)
        noise = styles.noise(3, SeededSource(0))
        centre = styles.truncated(given, noise, 4)
        assert centre.shape == (3, 4, 8)
        torch.testing.assert_close(centre[1], centre[2])
        styles.truncation = 0.5
        torch.testing.assert_close(
            styles.truncated(given, noise, 1)[:, 0], (centre[:, 0] + styles.map(noise["z"], given)) / 2
        )
        styles.truncation = 1.0
        assert torch.equal(styles.truncated(given, noise, 1)[:, 0], styles.map(noise["z"], given))


def test_stylegan_layers_take_noise_by_a_learned_strength() -> None:
    family = tiny("stylegan2")
    noise, condition = noise_for(family), condition_for(family)
    other = {**noise, "layer-0": -noise["layer-0"]}
    assert isinstance(family.generator, SkipGenerator)
    assert torch.equal(family.sample(condition, noise)["image"], family.sample(condition, other)["image"])
    family.generator.strength.data.fill_(0.5)
    assert not torch.equal(family.sample(condition, noise)["image"], family.sample(condition, other)["image"])


def alias_free(**options: int) -> AliasFreeGenerator:
    generator = tiny("stylegan3", **{"base": 8, "layers": 5, "margin": 6, **options}).generator
    assert isinstance(generator, AliasFreeGenerator)
    return generator


def moved(generator: AliasFreeGenerator, w: torch.Tensor, pixels: float) -> torch.Tensor:
    bias = generator.input.place.bias
    with torch.no_grad():
        bias[-1] = -pixels / 32
        picture = generator.synthesize(w)
        bias[-1] = 0
    return picture


@pytest.mark.parametrize("margin", [4, 6])
def test_stylegan3_moves_its_picture_with_its_waves(margin: int) -> None:
    generator, w = alias_free(margin=margin), SeededSource(0).normal((2, 8))
    still, whole, half = (moved(generator, w, pixels) for pixels in (0, 4, 2))

    def gain(picture: torch.Tensor, by: int) -> float:
        """How much nearer the picture is to the still one when that is moved too, in decibels."""
        seen, shifted = picture[..., 6:-2], still[..., 6 - by : -2 - by]
        return 10 * math.log10((seen - still[..., 6:-2]).square().mean() / (seen - shifted).square().mean())

    assert gain(whole, 4) > 25
    assert gain(half, 2) > 25
    assert gain(half, 4) < 3


def test_stylegan3_is_band_limited_where_stylegan2_is_not() -> None:
    w = SeededSource(0).normal((2, 8))
    picture = alias_free().synthesize(w).detach()
    spectrum = torch.fft.fft2(picture - picture.mean((2, 3), keepdim=True)).abs().square().mean((0, 1))
    share = spectrum[12:21, 12:21].sum() / spectrum.sum()
    assert share < 0.05


def test_rotations_of_the_input_are_rotations() -> None:
    for size in (2, 4):
        unit = torch.nn.functional.normalize(torch.randn(5, size), dim=1)
        matrix = rotations(unit)
        torch.testing.assert_close(matrix @ matrix.transpose(1, 2), torch.eye(matrix.shape[1]).expand_as(matrix))
        assert torch.allclose(torch.linalg.det(matrix), torch.ones(5), atol=1e-5)
        assert torch.equal(rotations(torch.eye(size)[:1])[0], torch.eye(matrix.shape[1]))


def test_stylegan3_tracks_the_power_of_its_layers_after_the_generators_update_only() -> None:
    family = tiny("stylegan3")
    before = {key: value.clone() for key, value in family.named_buffers() if key.endswith("power")}
    family.fake_loss(family.phases[1], condition_for(family), noise_for(family), 1.0)
    assert all(torch.equal(value, before[key]) for key, value in family.named_buffers() if key in before)
    family.after_update("discriminator")
    assert all(torch.equal(value, before[key]) for key, value in family.named_buffers() if key in before)
    family.after_update("generator")
    assert not any(torch.equal(value, before[key]) for key, value in family.named_buffers() if key in before)


def test_r3gan_compares_each_real_image_with_one_made_image() -> None:
    family = tiny("r3gan", gamma=0.0)
    batch, noise = batch_for(family), noise_for(family)
    scorer = family.scorer(batch["label"], 1.0)
    joint = torch.cat([batch["image"], batch["mask"] * 2 - 1], 1)
    apart = scorer(joint) - scorer(family.fakes(batch["label"], noise, 1.0))
    discriminator, generator = family.phases
    torch.testing.assert_close(family.real_loss(discriminator, batch, noise, 1.0), (1 + (-apart).exp()).log())
    torch.testing.assert_close(family.real_loss(generator, batch, noise, 1.0), (1 + apart.exp()).log())
    assert family.fake_loss(discriminator, condition_for(family), noise, 1.0).tolist() == [0, 0]


def test_r3gans_generator_reads_patients_in_plain_runs_and_none_in_private_ones() -> None:
    plain, private = tiny("r3gan"), tiny("r3gan", private=True)
    assert plain.phases[1].reads_patients
    assert not private.phases[1].reads_patients
    loss = private.fake_loss(private.phases[1], condition_for(private), noise_for(private), 1.0)
    score = private.scorer(condition_for(private)["label"], 1.0)(
        private.fakes(condition_for(private)["label"], noise_for(private), 1.0)
    )
    torch.testing.assert_close(loss, (1 + (-score).exp()).log())


def test_the_burn_in_falls_from_ten_times_gamma() -> None:
    family = tiny("r3gan", gamma=2.0)
    assert isinstance(family, R3Gan)
    assert [round(family.burnt_in(p), 3) for p in (0.0, 0.1, 0.2, 1.0)] == [20.0, 6.325, 2.0, 2.0]


def test_a_new_r3gan_block_adds_nothing() -> None:
    family = tiny("r3gan")
    block = family.generator.get_submodule("stages.0.1")
    x = torch.randn(1, 24, 4, 4)
    assert torch.equal(block(x), x)


def test_the_private_mlp_discriminator_sees_averaged_blocks() -> None:
    family = tiny("mlp", private=True)
    batch, noise = batch_for(family), noise_for(family)
    smooth = torch.nn.functional.interpolate(torch.nn.functional.avg_pool2d(batch["image"], 2), scale_factor=2)
    discriminator = family.phases[0]
    torch.testing.assert_close(
        family.real_loss(discriminator, batch, noise, 1.0),
        family.real_loss(discriminator, {**batch, "image": smooth}, noise, 1.0),
    )
