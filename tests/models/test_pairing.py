"""Pairings: who becomes source and target, the shapes that follow, the degradations by hand, every wrong text."""

import numpy as np
import pytest
import torch

from fedsynth.errors import ConfigError
from fedsynth.models.base import ImageShape, SeededSource, Tensors
from fedsynth.models.pairing import add_rician_noise, label_source, lower_resolution, one_hot, read_pairing

CHANNELS = ("t1", "t2", "flair")
LABELS = ("background", "edema", "core")


def a_batch(size: tuple[int, ...]) -> Tensors:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (4, *size), generator=generator)
    image = torch.rand((4, 3, *size), generator=generator) * 2 - 1
    return {"image": image, "mask": one_hot(labels, 3), "label": torch.eye(2)[[0, 1, 0, 1]]}


@pytest.mark.parametrize("size", [(8, 8), (4, 6, 8)])
@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("label-to-image", {"channels": 3, "n_labels": 0, "source_channels": 3, "source_names": LABELS}),
        ("label-to-t2", {"channels": 1, "n_labels": 0, "source_channels": 3, "channel_names": ("t2",)}),
        ("image-to-label", {"channels": 0, "n_labels": 3, "source_channels": 3, "source_names": CHANNELS}),
        ("t1-to-flair", {"channels": 1, "n_labels": 0, "source_channels": 1, "source_names": ("t1",)}),
        ("t1+t2-to-flair", {"channels": 1, "n_labels": 0, "source_channels": 2}),
        ("super-resolution", {"channels": 3, "n_labels": 0, "source_channels": 3}),
        ("super-resolution:4", {"channels": 3, "n_labels": 0, "source_channels": 3}),
        ("denoising:0.2", {"channels": 3, "n_labels": 0, "source_channels": 3}),
    ],
)
def test_the_pair_has_the_shape_that_follows(text: str, made: dict[str, object], size: tuple[int, ...]) -> None:
    pairing = read_pairing(text, CHANNELS, LABELS)
    shape = pairing.shape(ImageShape(channels=3, size=size, n_classes=2, n_labels=3), LABELS)
    assert {key: getattr(shape, key) for key in made} == made
    assert (shape.n_classes, shape.size) == (2, size)
    pair = pairing.pair(a_batch(size), CHANNELS, SeededSource(0))
    assert pair["source"].shape == (4, shape.source_channels, *size)
    assert pair["image"].shape == (4, shape.channels, *size)
    assert pair["label"].shape == (4, 2)
    assert ("mask" in pair) == (shape.n_labels > 0)
    assert pair["source"].min() >= -1
    assert pair["source"].max() <= 1


def test_channels_are_picked_by_name_in_any_set() -> None:
    batch = a_batch((8, 8))
    pair = read_pairing("flair-to-t1", CHANNELS, LABELS).pair(batch, CHANNELS, SeededSource(0))
    assert torch.equal(pair["source"], batch["image"][:, 2:3])
    assert torch.equal(pair["image"], batch["image"][:, 0:1])
    lone = {"image": batch["image"][:, 2:3]}  # a set to be translated holds the source alone
    source = read_pairing("flair-to-t1", CHANNELS, LABELS).source(lone, ("flair",), SeededSource(0))
    assert torch.equal(source, lone["image"])
    with pytest.raises(ConfigError, match=r"lack a channel that the pairing needs \(found 'flair'\)"):
        read_pairing("flair-to-t1", CHANNELS, LABELS).source(lone, ("t1",), SeededSource(0))


def test_label_to_image_copies_the_mask_and_the_image() -> None:
    batch = a_batch((8, 8))
    pair = read_pairing("label-to-image", CHANNELS, LABELS).pair(batch, CHANNELS, SeededSource(0))
    assert torch.equal(pair["source"], batch["mask"])
    assert torch.equal(pair["image"], batch["image"])


def test_a_channel_called_label_wins_over_the_mask() -> None:
    assert read_pairing("label-to-t1", ("label", "t1"), LABELS).source_channels == ("label",)


def test_lower_resolution_by_hand() -> None:
    image = torch.tensor([[[[0.0, 2.0, 4.0, 6.0]] * 4]])
    lowered = lower_resolution(image, 2)
    # blocks of two hold 1 and 5; between their centres (0.5 and 2.5) it is linear, outside it is flat
    assert lowered[0, 0, 0].tolist() == pytest.approx([1.0, 2.0, 4.0, 5.0])


def test_noise_is_rician_and_repeats_with_the_draws() -> None:
    air, full = torch.full((1, 1, 200, 200), -1.0), torch.full((1, 1, 200, 200), 0.0)
    noisy = (add_rician_noise(air, 0.1, SeededSource(0)) + 1) / 2
    assert noisy.mean().item() == pytest.approx(0.1 * np.sqrt(np.pi / 2), rel=0.02)  # Rayleigh where there is no signal
    assert ((add_rician_noise(full, 0.1, SeededSource(0)) + 1) / 2).std().item() == pytest.approx(0.1, rel=0.05)
    assert torch.equal(add_rician_noise(air, 0.1, SeededSource(3)), add_rician_noise(air, 0.1, SeededSource(3)))


def test_label_source_by_hand() -> None:
    source = label_source(np.array([[[0, 2], [1, 0]]], np.uint8), 3)
    assert source.tolist() == [[[[1, 0], [0, 1]], [[0, 0], [1, 0]], [[0, 1], [0, 0]]]]
    with pytest.raises(ConfigError, match=r"a label that the 3 known ones do not name \(found 3\)"):
        label_source(np.array([[[3]]], np.uint8), 3)


def test_one_hot_runs_sample_by_sample() -> None:
    labels = torch.randint(0, 3, (5, 4, 4))
    mapped = torch.func.vmap(lambda one: one_hot(one[None], 3)[0])(labels)
    assert torch.equal(mapped, one_hot(labels, 3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("labels", "the pairing cannot be read"),
        ("-to-t1", "the pairing cannot be read"),
        ("t1-to-flare", r"an unknown channel \(found 'flare'\); did you mean 'flair'\?"),
        ("t1-to-t1", "the same source and target"),
        ("image-to-image", "the same source and target"),
        ("t1+t1-to-t2", "names a channel twice"),
        ("super-resolution:much", r"takes a number after the colon \(found 'much'\)"),
        ("super-resolution:1", "above 1 and at most 8"),
        ("denoising:nan", "above 0 and at most 1"),
        ("denoising:-1", "above 0 and at most 1"),
    ],
)
def test_a_wrong_pairing_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_pairing(text, CHANNELS, LABELS)


def test_labels_are_needed_where_the_mask_is() -> None:
    with pytest.raises(ConfigError, match="needs masks, and the set has none"):
        read_pairing("label-to-image", CHANNELS, ())
