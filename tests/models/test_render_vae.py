"""The renderer: what it learns from a map, and what is fitted to it by sums."""

import math

import numpy as np
import pytest
import torch

from fedsynth.errors import ConfigError
from fedsynth.models.base import ImageShape, SeededSource, Tensors, global_randomness
from fedsynth.models.generators.catalog import build
from fedsynth.models.generators.render_vae import PRIOR, Prior, RenderVae, features, folded, seen_anew, unfolded
from fedsynth.models.texture import Texture, missing_spectrum

SHAPE = ImageShape(channels=2, size=(16, 16), n_classes=2, source_channels=2)


def renderer(shape: ImageShape = SHAPE) -> RenderVae:
    with global_randomness(0):
        family = build("render-vae", shape, base=4, latent=4)
    assert isinstance(family, RenderVae)
    return family


def batch(n: int = 16) -> Tensors:
    """Bright squares on grey."""
    rng = np.random.default_rng(0)
    masks = np.zeros((n, 16, 16), np.int64)
    for mask, (y, x) in zip(masks, rng.integers(0, 11, (n, 2)), strict=True):
        mask[y : y + 5, x : x + 5] = 1
    source = torch.eye(2)[torch.from_numpy(masks)].movedim(-1, 1)
    image = source[:, 1:] * 1.2 - 0.4 + torch.from_numpy(rng.normal(0, 0.02, (n, 1, 16, 16))).float()
    return {"image": image.expand(-1, 2, -1, -1).clone(), "source": source, "label": torch.eye(2)[torch.arange(n) % 2]}


def test_it_learns_to_brighten_what_the_map_names() -> None:
    family, shown = renderer(), batch()
    (phase,) = family.phases
    optimiser = torch.optim.Adam(family.nets[phase.net].parameters(), 5e-3)
    losses = []
    for step in range(120):
        loss = family.real_loss(phase, shown, family.noise(16, SeededSource(step)), step / 120).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    family.fit(0, family.sums(0, shown))
    with torch.no_grad():
        made = family.sample(shown, family.noise(16, SeededSource(9)))["image"]
    inside = shown["source"][:, 1:].expand_as(made) > 0
    assert made[inside].mean() > made[~inside].mean() + 0.5


@pytest.mark.parametrize("size", [(16, 16), (8, 8, 8)])
def test_every_label_has_a_level_by_code_and_class_with_soft_edges(size: tuple[int, ...]) -> None:
    decoder = renderer(ImageShape(channels=2, size=size, source_channels=2)).autoencoder.decoder
    code, source = torch.tensor([[1.0, 0, 0, 0], [2.0, 0, 0, 0]]), torch.zeros(2, 2, *size)
    source[:, 0, : size[0] // 2], source[:, 1, size[0] // 2 :] = 1, 1
    with torch.no_grad():
        assert not decoder.levels(code).any(), "before training no number of the code makes anything brighter"
        for value in decoder.parameters():
            value.zero_()
        decoder.levels.weight[:, 0] = torch.tensor([0.1, 0.5, -0.2, 0.3])  # channel by label
        made = decoder(code, {"source": source}, torch.zeros(2, 1, *size)).reshape(2, 2, size[0], -1)
    torch.testing.assert_close(made[0, :, 0], torch.tensor([0.1, -0.2])[:, None].expand(-1, made.shape[3]))
    torch.testing.assert_close(made[0, :, -1], torch.tensor([0.5, 0.3])[:, None].expand(-1, made.shape[3]))
    torch.testing.assert_close(made[1], 2 * made[0])
    edge = made[0, 0, size[0] // 2 - 1, 0]
    assert 0.1 < edge < 0.5


@pytest.mark.parametrize("size", [(16, 16), (8, 8, 8), (12, 24)])
def test_images_and_volumes_of_every_size_that_halves(size: tuple[int, ...]) -> None:
    shape = ImageShape(channels=1, size=size, source_channels=3)
    family = renderer(shape)
    source = torch.zeros(2, 3, *size)
    source[:, 0] = 1
    shown = {"image": torch.zeros(2, 1, *size), "source": source}
    noise = family.noise(2, SeededSource(0))
    assert family.real_loss(family.phases[0], shown, noise, 0.5).shape == (2,)
    family.fit(0, family.sums(0, shown))
    assert family.sample({"source": source}, noise)["image"].shape == (2, 1, *size)


def test_no_sample_sees_another() -> None:
    family, shown = renderer(), batch(4)
    noise = family.noise(4, SeededSource(0))
    losses = family.real_loss(family.phases[0], shown, noise, 1.0)
    shown["image"][1] += 1
    again = family.real_loss(family.phases[0], shown, noise, 1.0)
    assert (losses == again).tolist() == [True, False, True, True]


def test_the_code_prior_is_least_squares_by_sums() -> None:
    rng = np.random.default_rng(0)
    f = np.c_[np.ones(400), rng.normal(size=(400, SHAPE.n_classes + 6))]
    z = f @ rng.normal(size=(f.shape[1], 3)) + 0.1 * rng.normal(size=(400, 3))
    prior = Prior(SHAPE, 3)
    ff, fz, zz = (torch.from_numpy(value) for value in (f.T @ f, f.T @ z, z.T @ z))
    prior.fit(ff, fz, zz, torch.full((3,), 400 * 0.04, dtype=torch.float64))
    np.testing.assert_allclose(prior.weight.numpy(), np.linalg.lstsq(f, z, rcond=None)[0], atol=1e-3)
    spread = (prior.root @ prior.root.T).numpy()
    np.testing.assert_allclose(spread.diagonal(), 0.01 + 0.04, atol=3e-3)


def test_features_tell_class_area_and_place() -> None:
    source = torch.zeros(1, 2, 16, 16)
    source[:, 1, 12:, 6:10] = 1
    found = features({"source": source, "label": torch.tensor([[0.0, 1.0]])}, SHAPE)[0].tolist()
    y = (13.5 - 7.5) / 16
    assert found == pytest.approx([1, 1, 16 / 16, y, y * y, 0, 0, 0, 1])


def test_the_texture_has_the_spectrum_that_is_missing() -> None:
    rng = SeededSource(0)
    real = 0.2 * rng.normal((64, 2, 16, 16))
    real[:, 1] = real[:, 0]  # both channels alike
    found = missing_spectrum(real, torch.zeros_like(real))
    texture = Texture(SHAPE)
    texture.fit(found["spectrum"], found["brain"])
    field = texture.field(torch.zeros(64, 2, 16, 16), rng.normal((64, 2, 16, 16)))
    assert float(field[..., 3:-3, 3:-3].std()) == pytest.approx(0.2, rel=0.15)
    assert torch.corrcoef(field.movedim(1, 0).flatten(1))[0, 1] > 0.95


def test_the_texture_holds_coarse_structure_but_no_overall_brightness() -> None:
    """Waves as long as the image: the field has their power, and next to no mean of its own."""
    rng = SeededSource(0)
    across = torch.arange(32) * (2 * math.pi / 32)
    wave = 0.3 * torch.sin(across + 6.3 * rng.uniform((64, 1, 1, 1)))
    real = wave.expand(64, 1, 32, 32) + rng.uniform((64, 1, 1, 1)) - 0.5
    shape = ImageShape(channels=1, size=(32, 32), n_labels=0, source_channels=3, n_classes=2)
    found = missing_spectrum(real, torch.zeros_like(real))
    texture = Texture(shape)
    texture.fit(found["spectrum"], found["brain"])
    field = texture.field(torch.zeros(64, 1, 32, 32), rng.normal((64, 1, 32, 32)))[..., 3:-3, 3:-3]
    assert float(field.std()) == pytest.approx(0.3 / math.sqrt(2), rel=0.2)
    assert float(field.mean((2, 3)).std()) < 0.1


def test_folding_turns_blocks_into_channels_and_back() -> None:
    for size in ((4, 6), (4, 6, 2)):
        x = torch.arange(2 * 3 * int(np.prod(size)), dtype=torch.float32).reshape(2, 3, *size)
        assert folded(x).shape == (2, 3 * 2 ** len(size), *(side // 2 for side in size))
        assert torch.equal(unfolded(folded(x)), x)


def test_a_small_change_moves_map_and_image_alike() -> None:
    shown = batch(2)
    still = seen_anew(shown["source"], shown["image"], torch.zeros(2, 4))
    assert torch.equal(still[0], shown["source"])
    torch.testing.assert_close(still[1], shown["image"])
    view = torch.tensor([[0.0, 1.0, 0.0, 0.0]]).expand(2, -1)
    source, image = seen_anew(shown["source"], shown["image"], view)
    assert torch.equal(source.sum(1), torch.ones(2, 16, 16))
    assert not torch.equal(source, shown["source"])
    inside = (source[:, 1:] > 0).expand_as(image)
    assert image[inside].mean() > image[~inside].mean() + 0.8


def test_what_it_cannot_make_is_said() -> None:
    with pytest.raises(ConfigError, match="every side must be even and at least 8"):
        build("render-vae", ImageShape(channels=1, size=(15, 15), source_channels=2))
    with pytest.raises(ConfigError, match="makes images of label maps; give --pairing label-to-image"):
        build("render-vae", ImageShape(channels=1, size=(16, 16), source_channels=1))
    assert renderer().fitted == (PRIOR,)
