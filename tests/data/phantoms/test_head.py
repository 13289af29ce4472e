"""What surrounds the brain: layers in their order, eyes where they belong, and the brain left as it is."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from fedsynth.data.phantoms.anatomy import from_atlas
from fedsynth.data.phantoms.appearance import Head
from fedsynth.data.phantoms.atlas import load_atlas
from fedsynth.data.phantoms.head import framed
from fedsynth.data.phantoms.patient import Patient, show_plane, style_patient
from fedsynth.data.phantoms.random_fields import Viewport
from fedsynth.data.phantoms.scanner import CaseMix, Scanner
from fedsynth.data.phantoms.style import Style
from fedsynth.errors import ConfigError

VIEW = Viewport(size=104)
QUIET = Scanner(noise=0.0, bias=0.0, blur_mm=0.0)


@cache
def patient(head: Head | None) -> Patient:
    style = Style(scanner=QUIET, head=head)
    return style_patient(3, 1, CaseMix(healthy=1.0, low_grade=0.0, high_grade=0.0), style, load_atlas(VIEW.spacing_mm))


def shown(head: Head | None, plane: int) -> tuple[np.ndarray, np.ndarray]:
    image, mask = show_plane(patient(head), load_atlas(VIEW.spacing_mm), VIEW, plane, "tissue+tumour")
    return image / 255, mask


def test_the_brain_is_the_same_with_its_head_and_without() -> None:
    bare, mask = shown(None, 58)
    whole, same = shown(Head(), 58)
    inside = ndimage.binary_erosion(mask > 0, iterations=3)
    assert np.array_equal(mask, same)
    assert np.abs(bare - whole)[:, inside].max() < 0.01
    assert bare[:, mask == 0].max() == 0


def test_fluid_bone_and_scalp_lie_around_the_brain_in_this_order() -> None:
    image, mask = shown(Head(gap_mm=4.0, skull_mm=8.0, scalp_mm=8.0, marrow=0.0), 58)
    outside = ndimage.distance_transform_edt(mask == 0) * VIEW.spacing_mm
    t1, t2, flair, _ = image
    scalp = [c[(outside > 14) & (outside < 18)].mean() for c in (t1, flair)]
    bone = [c[(outside > 7) & (outside < 10)].mean() for c in (t1, flair)]
    assert min(scalp) > 0.4 > 2 * max(bone)
    assert t2[(outside > 1) & (outside < 3)].mean() > 2 * t1[(outside > 1) & (outside < 3)].mean(), "fluid"
    assert image[:, outside > 45].max() < 0.02, "air"


@pytest.mark.parametrize("side", [-1, 1])
def test_eyes_are_bright_in_t2_and_dark_in_flair(side: int) -> None:
    head = Head(zoom=0.9)
    where = from_atlas(patient(head).anatomy, np.array([31.0 * side, 61.0, -27.0])) / VIEW.spacing_mm
    x, y, z = (round(value + (VIEW.size - 1) / 2) for value in where)
    image, mask = shown(head, z)
    row = VIEW.size - 1 - y
    _, t2, flair, _ = image[:, row - 1 : row + 2, x - 1 : x + 2].mean((1, 2))
    assert mask[row, x] == 0
    assert t2 > 0.7
    assert flair < 0.3


def test_zoom_and_shift_move_the_head_in_the_picture() -> None:
    middle, moved = (shown(head, 55)[1] > 0 for head in (Head(), Head(zoom=0.8, right_mm=10.0)))
    assert moved.sum() == pytest.approx(0.64 * middle.sum(), rel=0.15)
    columns = [np.argwhere(mask)[:, 1].mean() for mask in (middle, moved)]
    assert columns[1] - columns[0] == pytest.approx(10 / VIEW.spacing_mm, abs=1.5)


def test_a_nod_keeps_lengths() -> None:
    anatomy = patient(None).anatomy
    nodded = framed(anatomy, Head(nod_degrees=15.0))
    assert np.linalg.det(nodded.to_atlas) == pytest.approx(np.linalg.det(anatomy.to_atlas), rel=1e-4)
    assert not np.allclose(nodded.to_atlas, anatomy.to_atlas, atol=0.1)


def test_a_head_out_of_range_is_named() -> None:
    with pytest.raises(ConfigError, match=r"the head: 'skull-mm' must be 0 to 30 \(found -1"):
        replace(Head(), skull_mm=-1.0)
