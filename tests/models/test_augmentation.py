"""Augmentation by hand: identity at zero strength, exact shifts, and the same result sample by sample."""

import torch

from fedsynth.models.augmentation import CUT, LIGHT, SHIFT, Augmentation
from fedsynth.models.base import SeededSource


def test_half_of_every_parameter_and_no_cut_is_the_identity() -> None:
    images = torch.rand(2, 3, 8, 8) * 2 - 1
    middle = {SHIFT: torch.full((2, 2), 0.5), CUT: torch.full((2, 2), 0.5), LIGHT: torch.full((2, 2), 0.5)}
    torch.testing.assert_close(Augmentation(image_channels=2, cut=0.0)(images, middle), images)


def test_a_shift_moves_whole_pixels_and_fills_with_background() -> None:
    images = torch.arange(16.0).reshape(1, 1, 4, 4) / 8 - 1
    noise = {SHIFT: torch.tensor([[1.0, 0.5]]), CUT: torch.zeros(1, 2), LIGHT: torch.full((1, 2), 0.5)}
    moved = Augmentation(image_channels=1, shift=0.25, cut=0.0)(images, noise)
    torch.testing.assert_close(moved[0, 0, 1:], images[0, 0, :-1])
    assert moved[0, 0, 0].eq(-1).all()


def test_a_cut_is_background_and_as_large_as_said() -> None:
    images = torch.ones(1, 1, 8, 8)
    noise = {SHIFT: torch.full((1, 2), 0.5), CUT: torch.full((1, 2), 0.5), LIGHT: torch.full((1, 2), 0.5)}
    shown = Augmentation(image_channels=1, cut=0.5)(images, noise)
    assert int(shown.eq(-1).sum()) == 16


def test_brightness_leaves_masks_alone() -> None:
    images = torch.rand(1, 2, 8, 8)
    noise = {SHIFT: torch.full((1, 2), 0.5), CUT: torch.full((1, 2), 0.5), LIGHT: torch.ones(1, 2)}
    shown = Augmentation(image_channels=1, cut=0.0)(images, noise)
    torch.testing.assert_close(shown[:, 1], images[:, 1])
    torch.testing.assert_close(shown[:, 0], (images[:, 0] + 1) * 1.1 + 0.1 - 1)


def test_samples_do_not_mix_and_vmap_agrees() -> None:
    augment = Augmentation(image_channels=1)
    for dimensions in (2, 3):
        images = torch.rand(3, 2, *[8] * dimensions) * 2 - 1
        noise = augment.noise(3, dimensions, SeededSource(0))
        batched = augment(images, noise)
        single = torch.func.vmap(lambda x, n: augment(x[None], {k: v[None] for k, v in n.items()})[0])(images, noise)
        torch.testing.assert_close(batched, single)
