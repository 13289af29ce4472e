"""Intensities: public windows, percentiles of one acquisition, and never a number that is not one."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fedsynth.data.intensity_scaling import Percentile, Window, background_of, parse_scaling, scale_of
from fedsynth.errors import ConfigError


def test_a_window_in_hounsfield_units_by_hand() -> None:
    ct = np.array([[[-1000, -160, 40], [240, 241, 3000]]], np.int16)
    scale = scale_of(Window(low=-160, high=240), [ct])
    assert scale.apply(ct).tolist() == [[[0, 0, 0.5], [1, 1, 1]]]


def test_percentiles_are_those_of_each_channel() -> None:
    first = np.arange(1, 102, dtype=np.float32).reshape(1, 101)
    image = np.stack([first, 10 * first])
    scale = scale_of(Percentile(low=1, high=99), [image])
    assert scale.low.tolist() == [2, 20]
    assert scale.high.tolist() == [100, 1000]
    assert np.allclose(scale.apply(image)[0], scale.apply(image)[1])


def test_a_background_that_most_corners_share_is_not_counted() -> None:
    brain = np.full((1, 40, 40), -3.5, np.float32)
    brain[0, 10:20, 10:20] = np.arange(100).reshape(10, 10)
    scale = scale_of(Percentile(low=0, high=100), [brain])
    assert (scale.low[0], scale.high[0]) == (0, 99)
    assert scale.fill.tolist() == [0]
    noisy = brain.copy()
    noisy[0, 0, 0] = -3.4
    assert scale_of(Percentile(low=0, high=100), [noisy]).low[0] == pytest.approx(-3.4)
    noisy[0, 0, -1] = -3.3
    assert scale_of(Percentile(low=0, high=100), [noisy]).low[0] == pytest.approx(-3.5)


def test_slices_of_one_scan_share_one_scale() -> None:
    dark, bright = np.array([[[0, 1], [2, 3]]]), np.array([[[4, 5], [6, 10]]])
    scale = scale_of(Percentile(low=0, high=100), [dark, bright])
    assert scale.apply(dark)[0, 1, 1] == pytest.approx(0.3)
    assert scale.apply(bright)[0, 1, 1] == 1


def test_a_grey_background_is_what_padding_gets() -> None:
    image = np.full((1, 4, 4), 64, np.uint8)
    image[0, 1:3, 1:3] = [[0, 255], [128, 7]]
    assert scale_of(Window(low=0, high=256), [image]).fill.tolist() == [0.25]


@pytest.mark.parametrize("scaling", [Window(low=0, high=1), Percentile(low=1, high=99)])
@pytest.mark.parametrize("value", [0.0, 7.0, -1e30])
def test_a_constant_image_stays_finite(scaling: Window | Percentile, value: float) -> None:
    image = np.full((2, 5, 5), value, np.float32)
    scaled = scale_of(scaling, [image]).apply(image)
    assert np.isfinite(scaled).all()
    assert scaled.min() >= 0
    assert scaled.max() <= 1


def test_two_values_stay_two_values() -> None:
    image = np.zeros((1, 6, 6), np.uint8)
    image[0, 2:4, 2:4] = 1
    assert np.array_equal(scale_of(Percentile(low=1, high=99), [image]).apply(image), image)


@given(
    arrays(
        np.float32,
        array_shapes(min_dims=3, max_dims=4, max_side=5),
        elements=st.floats(-(2.0**100), 2.0**100, width=32),
    ),
    st.sampled_from(["percentile:1,99", "percentile:0,100", "window:-5,5", "window:0,255"]),
)
@example(np.array([[[2.0**-126, 0, 4], [4, 4, 4]]], np.float32), "percentile:1,99")  # limits as near as floats allow
def test_every_finite_image_lands_in_zero_to_one(image: np.ndarray, text: str) -> None:
    scale = scale_of(parse_scaling(text), [image])
    scaled = scale.apply(image)
    assert np.isfinite(scaled).all()
    assert ((scaled >= 0) & (scaled <= 1)).all()
    assert ((scale.fill >= 0) & (scale.fill <= 1)).all()


def test_the_background_of_volumes_and_stacks() -> None:
    assert background_of([np.zeros((3, 3, 3))]) == 0
    assert background_of([np.zeros((3, 3)), np.ones((3, 3))]) is None
    assert background_of([np.zeros((3, 3)), np.ones((3, 3)), np.ones((3, 3))]) == 1


def test_what_is_written_is_what_is_parsed() -> None:
    assert parse_scaling("window:-160,240") == Window(low=-160, high=240)
    assert parse_scaling("percentile:0.5,99.5") == Percentile(low=0.5, high=99.5)
    for text in ("window:-160,240", "percentile:0.5,99.5"):
        assert str(parse_scaling(text)) == text


@pytest.mark.parametrize(
    "text", ["", "window", "window:1", "window:2,1", "window:1,1", "window:a,b", "percentile:-1,99", "percentile:1,101",
             "percentile:1,2,3", "window:0,inf", "window:nan,1", "minmax:0,1"],
)  # fmt: skip
def test_a_wrong_scaling_says_how_to_write_it(text: str) -> None:
    with pytest.raises(ConfigError, match=r"window:LOW,HIGH in the source's units or percentile:LOW,HIGH"):
        parse_scaling(text)
