"""Resampling: exact areas, no aliasing, proportions kept, and no lesion lost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from fedsynth.data.resampling import Grid, fit, resample_image, resample_mask


def resampled(image: np.ndarray, size: int, fill: float = 0, **how: object) -> np.ndarray:
    grid = fit(image.shape, how.get("spacing_mm"), size, how.get("target_mm"))  # type: ignore[arg-type]
    return resample_image(np.asarray(image, np.float32)[None], grid, np.array([fill], np.float32))[0]


def test_an_image_that_fits_is_left_alone() -> None:
    image = np.random.default_rng(0).random((8, 8))
    assert np.array_equal(resampled(image, 8), image.astype(np.float32))


def test_shrinking_averages_areas_by_hand() -> None:
    image = np.array([[0, 4, 8, 8], [4, 0, 8, 8], [1, 1, 0, 0], [1, 1, 0, 2]])
    assert np.allclose(resampled(image, 2), [[2, 8], [1, 0.5]])


def test_three_pixels_to_two_by_hand() -> None:
    row = np.array([[3.0, 6.0, 9.0]])
    assert np.allclose(resampled(np.repeat(row, 3, axis=0), 2), [[4, 8], [4, 8]])


@pytest.mark.parametrize(("old", "new"), [(9, 6), (10, 7), (13, 4), (8, 8)])
def test_shrinking_equals_counting_small_squares(old: int, new: int) -> None:
    image = np.random.default_rng(old).random((old, old))
    fine = image.repeat(new, axis=0).repeat(new, axis=1)
    expected = fine.reshape(new, old, new, old).mean(axis=(1, 3))
    assert np.allclose(resampled(image, new), expected, atol=1e-6)


def test_a_fine_pattern_becomes_grey_and_not_a_coarse_pattern() -> None:
    stripes = np.tile([0.0, 1.0], (96, 48))
    assert np.allclose(resampled(stripes, 32)[:, 1:-1], 0.5, atol=0.17)
    assert np.allclose(resampled(stripes, 24), 0.5)


def test_growing_is_linear_between_the_centres() -> None:
    grown = resampled(np.array([[0.0, 1.0], [0.0, 1.0]]), 4)
    assert np.allclose(grown, np.tile([0, 0.25, 0.75, 1], (4, 1)))


def test_the_mean_is_kept_when_nothing_is_padded() -> None:
    volume = np.random.default_rng(0).random((10, 10, 10))
    assert resampled(volume, 4).mean() == pytest.approx(volume.mean(), rel=1e-5)


def test_a_wide_picture_is_padded_and_not_stretched() -> None:
    shrunk = resampled(np.ones((4, 8)), 4, fill=0.25)
    assert np.allclose(shrunk, [[0.25] * 4, [1] * 4, [1] * 4, [0.25] * 4])


def test_thick_slices_keep_their_proportions_in_millimetres() -> None:
    volume = np.ones((8, 8, 2))
    grid = fit(volume.shape, (1.0, 1.0, 3.0), 4)
    assert grid.spacing_mm == 2
    made = resampled(volume, 4, spacing_mm=(1.0, 1.0, 3.0))
    assert made.shape == (4, 4, 4)
    assert made.sum() == pytest.approx(8 * 8 * 6 / 2**3)


def test_a_wanted_spacing_pads_small_fields_and_cuts_large_ones() -> None:
    small = resampled(np.ones((2, 2)), 4, spacing_mm=(1.0, 1.0), target_mm=1.0)
    assert np.array_equal(small, np.pad(np.ones((2, 2)), 1))
    large = np.arange(36.0).reshape(6, 6)
    assert np.array_equal(resampled(large, 4, spacing_mm=(1.0, 1.0), target_mm=1.0), large[1:5, 1:5])


def test_a_cut_lesion_is_noticed() -> None:
    grid = fit((6, 6), (1.0, 1.0), 4, 1.0)
    inside, outside = np.zeros((6, 6), np.uint8), np.zeros((6, 6), np.uint8)
    inside[1, 4], outside[0, 3] = 1, 1
    assert not grid.cuts(inside)
    assert grid.cuts(outside)
    assert not fit((6, 6), None, 4).cuts(np.ones((6, 6), np.uint8))


def test_odd_padding_does_not_blur_what_fits() -> None:
    image = np.random.default_rng(0).random((8, 5))
    made = resampled(image, 8)
    assert np.array_equal(made[:, 1:6], image.astype(np.float32))


def test_a_single_voxel_lesion_survives_any_shrinking() -> None:
    mask = np.zeros((256, 256), np.uint8)
    mask[101, 37] = 1
    for size in (128, 64, 20, 7, 1):
        made = resample_mask(mask, fit(mask.shape, None, size))
        assert made.sum() == 1
        assert made[101 * size // 256, 37 * size // 256] == 1


def test_two_small_lesions_stay_two() -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[2, 2], mask[30, 30] = 1, 2
    made = resample_mask(mask, fit(mask.shape, None, 10))
    assert (made[0, 0], made[7, 7]) == (1, 2)
    assert np.count_nonzero(made) == 2


def test_half_covered_pixels_are_labelled_with_the_largest_share() -> None:
    mask = np.array([[1, 1, 0, 0], [2, 0, 0, 0], [0, 0, 3, 3], [0, 0, 3, 2]], np.uint8)
    assert resample_mask(mask, fit((4, 4), None, 2)).tolist() == [[1, 0], [0, 3]]


def test_a_label_that_would_vanish_takes_a_pixel_that_can_be_spared() -> None:
    mask = np.array([[1, 1, 1, 1], [1, 2, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1]], np.uint8)
    assert resample_mask(mask, fit((4, 4), None, 2)).tolist() == [[2, 1], [0, 1]]


def test_a_rim_around_a_core_does_not_vanish() -> None:
    mask = np.zeros((16, 16), np.uint8)
    mask[4:12, 4:12] = 1
    mask[7, 7] = 2
    made = resample_mask(mask, fit(mask.shape, None, 4))
    assert (made == 2).sum() == 1
    assert (made == 1).sum() == 3


def test_the_only_pixel_of_one_label_is_not_taken_by_another() -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[0, 0:2], mask[1, 0] = 1, 2
    made = resample_mask(mask, fit(mask.shape, None, 1))
    assert made.tolist() == [[1]]


def test_areas_are_kept_on_average() -> None:
    rows, columns = np.mgrid[:200, :200]
    disc = ((rows - 97.3) ** 2 + (columns - 104.1) ** 2 < 61.7**2).astype(np.uint8)
    made = resample_mask(disc, fit(disc.shape, None, 50))
    assert 16 * int(made.sum()) == pytest.approx(int(disc.sum()), rel=0.02)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 24), st.sampled_from([(20, 20), (13, 22), (9, 10, 12)]))
def test_no_lesion_is_lost_and_none_appears(seed: int, size: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    mask = np.where(rng.random(shape) < 0.04, rng.integers(1, 4, shape), 0).astype(np.uint8)
    grid = fit(shape, None, size)
    made = resample_mask(mask, grid)
    assert set(np.unique(made)) <= set(np.unique(mask)) | {0}
    lesions, n = ndimage.label(mask, np.ones((3,) * mask.ndim))
    for number in range(1, n + 1):
        assert (made[share_of(lesions == number, grid) > 0] != 0).any()
    assert not made[share_of(mask > 0, grid) == 0].any()


def share_of(region: np.ndarray, grid: Grid) -> np.ndarray:
    return resample_image(region[None].astype(np.float32), grid, np.zeros(1, np.float32))[0]
