"""Editing tumours of label maps: sizes and places by hand, in two dimensions and three, and what must always hold."""

import numpy as np
import pytest
from numpy.typing import NDArray

from fedsynth.data.mask_anatomy import Anatomy, brain_of
from fedsynth.data.mask_editing import Edit, edit, read_edit, transplant, without_tumour
from fedsynth.errors import ConfigError, ImageSetError

LABELS = ("background", "csf", "grey", "white", "edema", "core", "enhancing")
CSF, GREY, WHITE, EDEMA, CORE, ENHANCING = range(1, 7)
ANATOMY = Anatomy.of(LABELS)
TUMOUR_ONLY = Anatomy.of(("background", "edema", "core"))
Map = NDArray[np.uint8]


def distance(size: tuple[int, ...], centre: tuple[float, ...], stretch: tuple[float, ...] | None = None) -> NDArray:
    grid = np.indices(size).astype(float)
    scale = stretch or (1.0,) * len(size)
    return np.sqrt(sum(((axis - c) / s) ** 2 for axis, c, s in zip(grid, centre, scale, strict=True)))


def head(dimensions: int, side: int = 40) -> Map:
    """A brain longer than wide: white inside grey, two ventricles deep inside, background around."""
    size, middle = (side,) * dimensions, (side - 1) / 2
    out = distance(size, (middle,) * dimensions, (17.5, 15.5, 15.5)[:dimensions])
    mask = np.where(out < 1, GREY, 0)
    mask = np.where(out < 0.75, WHITE, mask)
    for sign in (-1, 1):
        where = (middle - 3, middle + sign * 3, middle)[:dimensions]
        mask[distance(size, where, (4, 1.6, 4)[:dimensions]) < 1] = CSF
    return mask.astype(np.uint8)


def ill(dimensions: int, centre: tuple[float, ...] = (27, 27, 20), radius: float = 6, side: int = 40) -> Map:
    """The same brain with a tumour: a core with an enhancing rim, inside an edema."""
    mask = head(dimensions, side)
    r = distance(mask.shape, centre[:dimensions])
    mask[(r < radius) & (mask > 0)] = EDEMA
    mask[(r < 0.65 * radius) & (mask > 0)] = ENHANCING
    mask[(r < 0.4 * radius) & (mask > 0)] = CORE
    return mask


def touching(mask: Map, one: NDArray[np.bool_], other: NDArray[np.bool_]) -> int:
    """How many faces the two regions share."""
    return sum(
        int((np.take(one, range(a, n - 1 + a), axis) & np.take(other, range(1 - a, n - a), axis)).sum())
        for axis, n in enumerate(mask.shape)
        for a in (0, 1)
    )


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("factor", [0.3, 0.7, 1.5, 2.0])
def test_the_area_changes_by_the_factor(dimensions: int, factor: float) -> None:
    mask = ill(dimensions)
    kind = "grow" if factor > 1 else "shrink"
    edited = edit(mask, Edit(kind=kind, factor=factor), ANATOMY, (1.0,) * dimensions)
    ratio = ANATOMY.tumour_in(edited.mask).sum() / ANATOMY.tumour_in(mask).sum()
    assert ratio == pytest.approx(factor, rel=0.08)
    assert edited.kept == pytest.approx(1.0, abs=0.06)
    assert {EDEMA, CORE, ENHANCING} <= set(np.unique(edited.mask))


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("text", ["grow=1.8", "grow=4", "shrink=0.5", "shift=8,3", "shift=-3,-9", "shift=30,0"])
@pytest.mark.parametrize("centre", [(27, 27, 20), (31, 20, 20), (14, 29, 20)])
def test_it_stays_in_the_brain_and_keeps_its_topology(dimensions: int, text: str, centre: tuple[float, ...]) -> None:
    mask = ill(dimensions, centre, radius=5)
    wanted = read_edit(text + (",0" if dimensions == 3 and "shift" in text else ""), dimensions)
    edited = edit(mask, wanted, ANATOMY, (1.0,) * dimensions).mask
    assert edited.shape == mask.shape
    assert np.array_equal(edited == 0, mask == 0)  # neither a tumour outside, nor a hole in the brain
    fluid = ANATOMY.ventricles_in(mask, mask > 0, (1.0,) * dimensions)
    assert (edited[fluid] == CSF).all()
    core = ANATOMY.core_in(edited)
    if not (ANATOMY.core_in(mask) & ANATOMY.ventricles_in(mask, mask > 0, (1.0,) * dimensions)).any():
        assert touching(edited, core, ~ANATOMY.tumour_in(edited)) == 0
    assert touching(edited, edited == ENHANCING, ~ANATOMY.tumour_in(edited)) == 0


def test_a_shift_is_in_mm() -> None:
    mask = ill(2, (25, 28), radius=4)
    tumour = np.where(ANATOMY.tumour_in(mask), mask, 0)
    edited = edit(mask, Edit(kind="shift", shift_mm=(6.0, -4.0)), ANATOMY, (2.0, 1.0))
    expected = np.roll(tumour, (3, -4), axis=(0, 1))
    assert edited.kept == 1
    assert np.array_equal(np.where(ANATOMY.tumour_in(edited.mask), edited.mask, 0), expected)


def test_a_shift_out_of_the_brain_says_how_little_is_left() -> None:
    edited = edit(ill(2), Edit(kind="shift", shift_mm=(0.0, 9.0)), ANATOMY, (1.0, 1.0))
    assert 0.1 < edited.kept < 0.6
    gone = edit(ill(2), Edit(kind="shift", shift_mm=(0.0, 39.0)), ANATOMY, (1.0, 1.0))
    assert gone.kept == 0
    assert not ANATOMY.tumour_in(gone.mask).any()


def test_a_healthy_map_stays_as_it_is() -> None:
    edited = edit(head(2), Edit(kind="grow", factor=2), ANATOMY, (1.0, 1.0))
    assert np.array_equal(edited.mask, head(2))
    assert edited.kept == 1


def test_the_tissue_left_behind_is_that_of_the_other_side() -> None:
    healthy = head(2)
    for radius in (4, 6):
        assert np.array_equal(without_tumour(ill(2, (26, 27), radius), ANATOMY), healthy)
    across = without_tumour(ill(2, (30, 19.5), 5), ANATOMY)  # the mirror image is tumour too: the nearest tissue
    assert not ANATOMY.tumour_in(across).any()
    assert np.array_equal(across == 0, healthy == 0)


def test_maps_of_the_tumour_alone_need_the_brain() -> None:
    brain = head(2) > 0
    mask = np.zeros((40, 40), np.uint8)
    mask[distance((40, 40), (27, 27)) < 5] = 1
    mask[distance((40, 40), (27, 27)) < 2] = 2
    with pytest.raises(ConfigError, match="does not tell where the brain is"):
        edit(mask, Edit(kind="grow", factor=2), TUMOUR_ONLY, (1.0, 1.0))
    grown = edit(mask, Edit(kind="grow", factor=3), TUMOUR_ONLY, (1.0, 1.0), brain)
    assert not (grown.mask[~brain] > 0).any()
    assert (grown.mask > 0).sum() > 2 * (mask > 0).sum()
    shrunk = edit(mask, Edit(kind="shrink", factor=0.5), TUMOUR_ONLY, (1.0, 1.0), brain)
    assert (shrunk.mask > 0).sum() == pytest.approx((mask > 0).sum() / 2, rel=0.1)
    with pytest.raises(ImageSetError, match="differ in size"):
        edit(mask, Edit(kind="grow", factor=2), TUMOUR_ONLY, (1.0, 1.0), brain[1:])


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_transplant_lands_where_the_donor_had_it(dimensions: int) -> None:
    donor, healthy = ill(dimensions, radius=5), head(dimensions)
    planted = transplant(donor, healthy, ANATOMY, (1.0,) * dimensions)
    assert planted.kept == 1
    assert np.array_equal(planted.mask, donor)


def test_a_transplant_keeps_off_the_ventricles_and_the_outside() -> None:
    donor = ill(2, (27, 27), radius=6)
    narrow = head(2)
    narrow[:, 27:] = 0  # most of that side is gone
    narrow[28:] = 0
    planted = transplant(donor, narrow, ANATOMY, (1.0, 1.0))
    tumour = ANATOMY.tumour_in(planted.mask)
    assert planted.kept > 0.95
    assert tumour.sum() == pytest.approx(ANATOMY.tumour_in(donor).sum(), rel=0.05)
    assert not (tumour & (narrow == 0)).any()
    assert not (tumour & ANATOMY.ventricles_in(narrow, narrow > 0, (1.0, 1.0))).any()
    assert np.array_equal(planted.mask[~tumour], narrow[~tumour])


def test_a_tumour_without_edema_gets_none() -> None:
    donor = head(2)
    donor[distance(donor.shape, (27, 27)) < 4] = CORE
    shifted = edit(donor, Edit(kind="shift", shift_mm=(-2.0, 0.0)), ANATOMY, (1.0, 1.0))
    for edited in (transplant(donor, head(2), ANATOMY, (1.0, 1.0)), shifted):
        assert EDEMA not in edited.mask
        assert (edited.mask == CORE).sum() == (donor == CORE).sum()


def test_a_transplant_follows_the_recipients_head() -> None:
    donor, healthy = ill(2, (27, 27), radius=4), np.roll(head(2), 2, axis=1)
    planted = transplant(donor, healthy, ANATOMY, (1.0, 1.0))
    assert np.array_equal(planted.mask, np.roll(donor, 2, axis=1))


def test_a_transplant_needs_a_tumour_and_a_healthy_recipient() -> None:
    with pytest.raises(ImageSetError, match="the donor has no tumour"):
        transplant(head(2), head(2), ANATOMY, (1.0, 1.0))
    with pytest.raises(ImageSetError, match="the recipient has a tumour already"):
        transplant(ill(2), ill(2), ANATOMY, (1.0, 1.0))


@pytest.mark.parametrize(
    ("text", "dimensions", "found"),
    [
        ("grow=1.5", 2, Edit(kind="grow", factor=1.5)),
        ("shrink=0.7", 3, Edit(kind="shrink", factor=0.7)),
        ("shift=10,0", 2, Edit(kind="shift", shift_mm=(10.0, 0.0))),
        ("shift=1,-2.5,3", 3, Edit(kind="shift", shift_mm=(1.0, -2.5, 3.0))),
    ],
)
def test_edits_are_read(text: str, dimensions: int, found: Edit) -> None:
    assert read_edit(text, dimensions) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grow", "the edit cannot be read"),
        ("grow=big", r"the edit cannot be read \(found 'grow=big'\)"),
        ("grwo=2", r"unknown edit \(found 'grwo'\); did you mean 'grow'\?"),
        ("grow=0.5", "grow takes one factor between 1 and 10"),
        ("grow=1.5,2", "grow takes one factor"),
        ("shrink=1.5", "shrink takes one factor between 0.05 and 1"),
        ("shrink=nan", "shrink takes one factor"),
        ("shift=1", "shift takes 2 numbers, one per axis in mm"),
        ("shift=inf,0", "shift takes 2 numbers"),
    ],
)
def test_a_wrong_edit_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_edit(text, 2)


def test_labels_without_a_tumour_cannot_be_edited() -> None:
    with pytest.raises(ConfigError, match="none of the labels is a tumour"):
        Anatomy.of(("background", "csf", "grey_matter", "White"))


def test_the_brain_of_an_image_is_whole() -> None:
    image = np.zeros((2, 40, 40), np.float32)
    image[0][head(2) == WHITE] = 0.8
    image[1][head(2) == GREY] = 0.5
    image[0, 0, 0] = 1.0  # a speck of noise
    assert np.array_equal(brain_of(image), head(2) > 0)
    assert not brain_of(np.zeros((1, 8, 8), np.float32)).any()
