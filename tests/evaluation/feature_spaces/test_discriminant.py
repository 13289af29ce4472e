"""Discriminants look past what they learnt, and past one alteration that was left out as well."""

import numpy as np
import pytest
from scipy import ndimage

from fedsynth.evaluation.feature_spaces.discriminant import ALTERATIONS, Discriminant, _discriminants
from fedsynth.evaluation.feature_spaces.grid_space import principal_axes
from fedsynth.evaluation.memorization.distance_tables import look_up, queries
from tests.evaluation.feature_spaces.test_registered import bent, image_set, noisy, textures  # noqa: F401

CHANGES = {
    "noise": noisy,
    "blur": lambda image, rng: ndimage.gaussian_filter(image, (0, 0.75, 0.75)),
    "contrast": lambda image, rng: np.clip(image, 0, 1) ** 1.6,
    "turn": lambda image, rng: ndimage.rotate(image, 4, (1, 2), False, order=1, mode="nearest"),
    "warp": lambda image, rng: 0.5 * (bent(image, rng) + image),
}


def test_what_alterations_change_counts_little_by_hand():
    """Both axes spread alike, alterations move the second: nine tenths of its spread are theirs."""
    found = _discriminants(np.diag([1.0, 1.0]), np.diag([0.0, 0.9]))
    lengths = np.square(found).sum(axis=1)  # what a unit along each axis counts
    ridge = 0.1 * 0.45
    assert lengths == pytest.approx([1 / (1 + ridge), 1 / (0.9 + ridge) / (1 + 1 / (0.9 + ridge))])
    assert lengths[0] > 1.8 * lengths[1]


@pytest.mark.parametrize("kind", ["intensity", "detail"])
@pytest.mark.parametrize("left_out", [(), *((name,) for name in ALTERATIONS)])
def test_altered_images_are_nearest_to_their_own(textures, kind, left_out):  # noqa: F811
    space = Discriminant(kind, left_out)
    real = image_set(textures)
    space.fit(real, seed=0)
    rng = np.random.default_rng(1)
    for name in left_out or ALTERATIONS:
        made = image_set(np.stack([CHANGES[name](image, rng) for image in textures]))
        table = look_up(space, queries(space, made), space.features(real), np.arange(len(textures)), 2)
        assert (table.patients[:, 0] == np.arange(len(textures))).mean() >= 0.9, name


@pytest.mark.parametrize("shape", [(30, 200), (200, 30)])
def test_principal_axes_are_those_of_a_singular_value_decomposition(shape):
    rows = np.random.default_rng(2).normal(size=shape).astype(np.float32) * np.linspace(
        1, 3, shape[1], dtype=np.float32
    )
    rows -= rows.mean(axis=0)
    spread, axes = principal_axes(rows, 12)
    _, expected, right = np.linalg.svd(rows.astype(np.float64), full_matrices=False)
    assert spread == pytest.approx(expected[:12], rel=1e-5)
    assert np.abs((axes * right[:12].T).sum(axis=0)) == pytest.approx(np.ones(12), abs=1e-5)  # but for the sign
