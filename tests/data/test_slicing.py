"""Slices stand upright, keep their spacing, and are chosen as told."""

import numpy as np
import pytest

from fedsynth.data.importers.source import Raw
from fedsynth.data.preprocessing import Slicing, cut
from fedsynth.errors import ConfigError


def volume(shape: tuple[int, int, int] = (4, 5, 6), mask: np.ndarray | None = None) -> Raw:
    image = np.arange(np.prod(shape), dtype=np.float32).reshape(1, *shape)
    return Raw(case="v", image=image, mask=mask, spacing_mm=(1.0, 2.0, 3.0))


@pytest.mark.parametrize(
    ("axis", "across", "top", "left"), [("axial", 2, 1, 0), ("coronal", 1, 2, 0), ("sagittal", 0, 2, 1)]
)
def test_front_or_top_is_up_and_the_lower_coordinate_is_left(axis: str, across: int, top: int, left: int) -> None:
    shape = (4, 5, 6)
    coordinates = np.stack(np.indices(shape)).astype(np.float32)
    raw = Raw(case="v", image=coordinates, mask=None, spacing_mm=None)
    for index, one in enumerate(cut(raw, axis)):  # type: ignore[arg-type]
        assert one.image.shape[1:] == (shape[top], shape[left])
        assert (one.image[across] == index).all()
        assert (one.image[top][:, 0] == np.arange(shape[top])[::-1]).all()
        assert (one.image[left][0] == np.arange(shape[left])).all()
    assert index + 1 == shape[across]


def test_names_numbers_and_spacing_of_slices() -> None:
    slices = list(cut(volume((2, 3, 11)), "axial"))
    assert [one.case for one in slices[:2]] == ["v-axial-00", "v-axial-01"]
    assert slices[10].slice == 10
    assert slices[0].spacing_mm == (2.0, 1.0)
    assert next(cut(volume(), "sagittal")).spacing_mm == (3.0, 2.0)


def test_mask_and_image_are_cut_alike() -> None:
    raw = volume()
    raw = Raw(case="v", image=raw.image, mask=(raw.image[0] % 7 == 0).astype(np.uint8), spacing_mm=None)
    for one in cut(raw, "coronal"):
        assert one.mask is not None
        assert np.array_equal(one.mask, one.image[0] % 7 == 0)


def test_only_slices_with_tumour() -> None:
    mask = np.zeros((4, 5, 6), np.uint8)
    mask[1, 2, 3] = 1
    kept = list(Slicing(keep="tumour").choose([volume(mask=mask)], (None,)))
    assert [one.slice for one in kept] == [3]


def test_empty_slices_of_volumes_go_and_pictures_stay_unless_told() -> None:
    image = np.zeros((1, 4, 5, 6), np.float32)
    image[0, 1, 1, 2:4] = 1
    raw = Raw(case="v", image=image, mask=None, spacing_mm=None)
    assert [one.slice for one in Slicing().choose([raw], (0.0,))] == [2, 3]
    assert len(list(Slicing(keep="all").choose([raw], (0.0,)))) == 6
    assert len(list(Slicing().choose([raw], (None,)))) == 6
    pictures = [Raw(case=f"p{i}", image=image[..., i], mask=None, spacing_mm=None) for i in range(6)]
    assert len(list(Slicing().choose(pictures, (0.0,)))) == 6
    assert len(list(Slicing(keep="non-empty").choose(pictures, (0.0,)))) == 2


def test_every_second_slice_is_counted_before_empty_ones_go() -> None:
    image = np.zeros((1, 4, 5, 6), np.float32)
    image[0, 1, 1, 1:5] = 1
    raw = Raw(case="v", image=image, mask=None, spacing_mm=None)
    assert [one.slice for one in Slicing(every=2).choose([raw], (0.0,))] == [2, 4]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"axis": "axail"}, "did you mean 'axial'"),
        ({"keep": "tumor"}, "did you mean 'tumour'"),
        ({"every": 0}, "at least 1"),
    ],
)
def test_a_wrong_choice_is_named(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Slicing(**wrong)  # type: ignore[arg-type]
