"""Detail sees copies through noise, speckles, shading and few grey levels, and blank images as nobody's."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from scipy import ndimage

from fedsynth.data import ImageSet
from fedsynth.evaluation.feature_spaces.appearance import medians
from fedsynth.evaluation.feature_spaces.detail import Detail, Kind, _blur
from fedsynth.evaluation.feature_spaces.pixels import Pixels
from fedsynth.evaluation.feature_spaces.space import copy_spaces
from tests.evaluation.feature_spaces.test_spaces import as_float, blob_patients, owners, ratios, with_images

KINDS = get_args(Kind)


@pytest.fixture(scope="module")
def real() -> ImageSet:
    """Sixty images, so that there are fifteen components."""
    return blob_patients(30)


@pytest.fixture(scope="module", params=KINDS)
def fitted(request: pytest.FixtureRequest, real: ImageSet) -> Detail:
    space = Detail(request.param)
    space.fit(real, seed=0)
    return space


def speckled(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    drawn = rng.random(images.shape)
    return np.where(drawn < 0.025, 0, np.where(drawn > 0.975, 1, images))


def shaded(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    slope = np.linspace(0.6, 1.4, images.shape[-1])
    return images * slope * slope[:, None]


CHANGES = {
    "exact": (lambda images, rng: images, KINDS),
    "mirrored": (lambda images, rng: images[..., ::-1], KINDS),
    "noisy": (lambda images, rng: images + rng.normal(0, 0.1, images.shape), ("detail", "evened", "mixtures")),
    "speckled": (speckled, ("detail", "evened", "mixtures")),
    "blurred": (lambda images, rng: ndimage.gaussian_filter(images, (0, 0, 1, 1)), KINDS),
    "shaded": (shaded, ("evened",)),
    "five levels": (lambda images, rng: np.round(4 * images) / 4, ("evened",)),
    "shifted": (lambda images, rng: np.roll(images, (2, -1), (2, 3)), ("posed",)),
    "turned by ten degrees": (lambda x, rng: ndimage.rotate(x, 10, axes=(2, 3), reshape=False, order=1), ("posed",)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_copies_are_nearest_to_their_patient_by_far(fitted: Detail, real: ImageSet, change: str):
    alter, by = CHANGES[change]
    if fitted.kind not in by:
        assert change not in ("exact", "mirrored", "blurred")
        return
    made = np.clip(alter(as_float(real), np.random.default_rng(0)), 0, 1).astype(np.float32)
    ratio, patient = ratios(fitted, real, with_images(real, made))
    assert (patient == owners(real)).mean() > 0.95
    assert np.median(ratio) < (1e-3 if change in ("exact", "mirrored") else 0.6)


def test_features_are_finite_short_rows_and_the_first_view(fitted: Detail, real: ImageSet):
    features = fitted.features(real)
    assert features.shape == (60, 15)
    assert (np.linalg.norm(features, axis=1) < 1).all()
    np.testing.assert_allclose(next(iter(fitted.views(real))), features, atol=1e-5)


def test_blank_and_almost_blank_images_are_copies_of_nobody(fitted: Detail, real: ImageSet):
    images = np.array(real.images)
    images[0], images[2] = 0, 128
    with_blank = with_images(real, images, origin="real")
    fitted.fit(with_blank, seed=0)
    for blank in (0, 77, 255):
        ratio, _ = ratios(fitted, with_blank, with_images(real, np.full_like(images, blank)))
        assert ratio.min() > 0.5
    fitted.fit(real, seed=0)


@pytest.mark.parametrize(("size", "channels", "axes"), [(12, 1, 2), (40, 3, 2), (16, 1, 3)])
def test_other_sizes_and_volumes(size: int, channels: int, axes: int):
    images = blob_patients(12, 1, axes=axes, size=size, channels=channels)
    for kind in KINDS:
        space = Detail(kind)
        space.fit(images, seed=0)
        tables = list(space.views(images))
        assert all(np.isfinite(table).all() for table in tables)
        assert len(tables) == 8


def test_bytes_and_floats_are_the_same_images(real: ImageSet):
    floats = with_images(real, as_float(real), origin="real")
    for kind in KINDS:
        one, other = Detail(kind), Detail(kind)
        one.fit(real, seed=0)
        other.fit(floats, seed=0)
        np.testing.assert_allclose(one.features(floats), one.features(real), atol=1e-4)
        np.testing.assert_allclose(np.abs(other.features(real)), np.abs(one.features(real)), atol=1e-3)


def test_the_median_of_three_takes_out_single_voxels_and_leaves_edges():
    image = np.zeros((1, 1, 6, 7), np.uint8)
    image[..., 3:] = 51
    spoilt = image.copy()
    spoilt[0, 0, 2, 1], spoilt[0, 0, 4, 5] = 255, 0
    np.testing.assert_allclose(medians(spoilt), image / 255, atol=1e-6)


def test_the_blur_keeps_a_constant_and_moves_no_mass():
    weights = _blur(9, 1.5)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(weights, weights[::-1, ::-1], atol=1e-6)
    np.testing.assert_allclose(_blur(9, 0.05), np.eye(9), atol=1e-6)


def test_a_set_that_other_spaces_have_looked_at_has_the_same_detail():
    """Grids are kept by the set and a name: two spaces under one name would be measured on each other's."""
    fresh, known = blob_patients(30), blob_patients(30)
    Pixels().grids(known)
    for kind in KINDS:
        assert np.array_equal(Detail(kind).grids(fresh), Detail(kind).grids(known)), kind


def test_a_copied_channel_among_new_ones_is_seen_in_a_space_of_its_own(real: ImageSet):
    spaces = {space.name: space for space in copy_spaces(real)}
    assert list(spaces)[:6] == [*KINDS, "detail-a", "detail-b"]
    new = np.roll(np.asarray(real.images), 2, axis=0)
    new[:, 0] = np.asarray(real.images)[:, 0]
    found = {}
    for name in ("detail", "detail-a", "detail-b"):
        spaces[name].fit(real, seed=0)
        ratio, patient = ratios(spaces[name], real, with_images(real, new))
        found[name] = float(np.median(ratio)), bool((patient == owners(real)).all())
    assert found["detail-a"][0] < 1e-3
    assert found["detail-a"][1]
    assert not found["detail-b"][1]
    assert found["detail"][0] > 0.5


@pytest.mark.parametrize(("channels", "alone"), [(1, 0), (4, 4), (5, 0)])
def test_few_channels_are_looked_at_one_by_one(channels: int, alone: int):
    images = blob_patients(4, 1, size=8, channels=2)
    header = replace(images.header, channels=tuple("abcdefgh"[:channels]), mask_labels=())
    many = ImageSet(header=header, cases=images.cases, images=np.zeros((4, channels, 8, 8), np.uint8))
    assert len([space for space in copy_spaces(many) if space.name.startswith("detail-")]) == alone
