"""Maps of intensities: monotone, from 0, to the level that they name."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsynth.models.intensity_map import BEND, LEVEL, map_limits, mapped, public_knots

KNOTS = np.array([[0.2, 0.5, 0.9]])
NUMBERS = st.tuples(st.floats(*BEND), st.floats(*BEND), st.floats(*LEVEL))


@given(NUMBERS)
def test_a_map_keeps_order_and_zero_and_reaches_its_level(numbers: tuple[float, float, float]) -> None:
    shown = mapped(np.linspace(0, 1, 101)[None], np.array(numbers), KNOTS)[0]
    assert (np.diff(shown) >= 0).all()
    assert shown[0] == 0
    assert shown.max() <= 1
    assert shown[90] == pytest.approx(numbers[2])


def test_a_straight_map_scales_alone() -> None:
    image = np.array([[0.0, 0.1, 0.45, 0.9]])
    assert mapped(image, np.array([0, 0, 0.45]), KNOTS)[0] == pytest.approx(image[0] / 2)


def test_a_bent_map_by_hand() -> None:
    """The dark part is twice as steep as the middle: heights 0.4, 0.7, 1.1 before they are scaled to 0.55."""
    found = mapped(np.array([[0.2, 0.5, 0.9]]), np.array([np.log(2), 0, 0.55]), KNOTS)
    assert found[0] == pytest.approx([0.2, 0.35, 0.55])


def test_channels_have_maps_of_their_own() -> None:
    image = np.stack([KNOTS[0], KNOTS[0]])
    shown = mapped(image, np.array([0, 0, 0.9, 0, 0, 0.45]), np.repeat(KNOTS, 2, 0))
    assert shown[0] == pytest.approx(image[0])
    assert shown[1] == pytest.approx(image[1] / 2)
    assert map_limits(2).shape == (2, 6)


@pytest.mark.parametrize("value", [None, 0.0, 0.5, 1.0])
def test_knots_rise_whatever_the_images_are(value: float | None) -> None:
    rng = np.random.default_rng(0)
    images = [rng.random((2, 8, 8)) if value is None else np.full((2, 8, 8), value) for _ in range(3)]
    knots = public_knots(iter(images), 2)
    assert knots.shape == (2, 3)
    assert (np.diff(np.pad(knots, ((0, 0), (1, 1)), constant_values=(0, 1))[:, 1:], axis=1)[:, :2] > 0).all()
    assert knots.min() > 0
    assert knots.max() < 1
