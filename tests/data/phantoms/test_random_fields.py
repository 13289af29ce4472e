"""Positions and smooth fields: by hand, and against the field's own definition."""

import numpy as np
import pytest

from fedsynth.data.phantoms.random_fields import (
    CENTRE_MM,
    HIGHEST_MM,
    LOWEST_MM,
    Lattice,
    Viewport,
    as_volume,
    draw_lattice,
)
from fedsynth.data.preprocessing import upright


def test_positions_by_hand() -> None:
    view = Viewport(size=16)
    assert view.spacing_mm == 13.0
    x, y, z = view.points(9)
    assert (x[0, 0], y[0, 0]) == (-97.5, 97.5)  # top left: the patient's left, the front
    assert (x[15, 15], y[15, 15]) == (97.5, -97.5)
    assert np.all(z == 1.5 * 13)


@pytest.mark.parametrize("size", [16, 17, 64, 256])
def test_the_planes_for_slices_lie_between_the_temporal_lobes_and_the_vertex(size: int) -> None:
    view = Viewport(size=size)
    heights = view.offsets_mm[list(view.planes)] + CENTRE_MM[2]
    assert heights[0] >= LOWEST_MM > heights[0] - view.spacing_mm
    assert heights[-1] <= HIGHEST_MM < heights[-1] + view.spacing_mm


def test_planes_of_a_volume_lie_as_all_slices_of_image_sets_do() -> None:
    planes = np.arange(4 * 2 * 3 * 3, dtype=np.uint8).reshape(4, 2, 3, 3)
    volume = as_volume(planes)
    assert volume.shape == (2, 3, 3, 4)
    for index, plane in enumerate(planes):
        assert np.array_equal(upright(volume, "axial", index), plane)


def test_a_field_of_equal_nodes_is_that_number_everywhere() -> None:
    flat = Lattice(nodes=np.full_like(draw_lattice(np.random.default_rng(0), 30.0).nodes, 7), step_mm=30.0)
    assert np.allclose(flat.plane(Viewport(size=20), 3), 7, atol=1e-5)


def test_a_field_is_the_same_at_a_point_as_on_the_plane_through_it() -> None:
    view, field = Viewport(size=24), draw_lattice(np.random.default_rng(1), 17.0, 2)
    points, plane = view.points(5), field.plane(view, 5)
    for row, column in [(0, 0), (3, 20), (23, 11)]:
        assert np.allclose(field.at(points[:, row, column]), plane[:, row, column], atol=1e-5)


def test_a_random_field_has_unit_variance_and_is_smooth() -> None:
    field = draw_lattice(np.random.default_rng(2), 8.0, 3)
    plane = field.plane(Viewport(size=208), 100)
    assert plane.std() == pytest.approx(1, abs=0.1)
    assert np.abs(np.diff(plane)).max() < 0.6  # a millimetre apart
