"""What numbers in masks mean is what the user declared."""

from pathlib import Path

import numpy as np
import pytest

from fedsynth.data.importers.mask_labels import declared_labels
from fedsynth.errors import ConfigError, SourceError

FILE = Path("scan_mask.nii")


def translated(declared: tuple[str, ...], *numbers: float, kind: type = np.int16) -> list[int]:
    array = np.array(numbers, kind).reshape(1, -1)
    return declared_labels(declared).translate(array, FILE).ravel().tolist()


def test_undeclared_masks_are_yes_or_no() -> None:
    assert translated((), 0, 1, 0) == [0, 1, 0]
    assert translated((), 0, 255, 0, kind=np.uint8) == [0, 1, 0]
    assert translated((), 0, 1, kind=np.bool_) == [0, 1]
    assert translated((), 0, 0, 0) == [0, 0, 0]
    assert declared_labels(()).names == ("background", "lesion")


@pytest.mark.parametrize("numbers", [(0, 2), (0, 1, 2), (0, 1, 255), (0, -1), (0, 254), (0, 256)])
def test_other_numbers_must_be_declared(numbers: tuple[int, ...]) -> None:
    with pytest.raises(SourceError, match=r"scan_mask\.nii: the mask holds a number that is no label.*--mask-labels"):
        translated((), *numbers)


def test_names_without_numbers_count_from_zero() -> None:
    assert translated(("background", "liver", "tumour"), 0, 1, 2) == [0, 1, 2]
    with pytest.raises(SourceError, match=r"known are 0 background, 1 liver, 2 tumour \(found 3\)"):
        translated(("background", "liver", "tumour"), 0, 3)


def test_names_with_numbers_and_ranges() -> None:
    assert translated(("background=0", "left=3", "right=4"), 4, 0, 3) == [2, 0, 1]
    assert translated(("background=0-127", "lesion=128-255"), 0, 90, 128, 255) == [0, 0, 1, 1]
    assert translated(("background=0", "lesion=600"), 0, 600) == [0, 1]
    with pytest.raises(SourceError, match=r"\(found 5\)"):
        translated(("background=0", "left=3", "right=4"), 5)


def test_floating_point_masks_are_rounded_only_when_they_are_whole() -> None:
    assert translated((), 0, 0.9999, kind=np.float32) == [0, 1]
    with pytest.raises(SourceError, match=r"\(found 0\.5\)"):
        translated((), 0, 0.5, kind=np.float32)
    with pytest.raises(SourceError, match="found 1e"):
        translated((), 0, 1e30, kind=np.float64)


@pytest.mark.parametrize(
    "declared",
    [
        ("background",),
        ("background", "background"),
        ("background", ""),
        ("background=0", "lesion"),
        ("background=0", "lesion=x"),
        ("background=0", "lesion=5-2"),
        ("background=0", "lesion=-1"),
        ("background=0", "a=1-3", "b=3"),
    ],
)
def test_unclear_declarations_are_refused(declared: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="label"):
        declared_labels(declared)
