"""Contact sheets: who is chosen, where planes are cut, and that what should be seen stands in the pixels."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fedsynth.data import Header, ImageSet
from fedsynth.data.contact_sheet import choose, contact_sheet, note_of, tiles_of
from fedsynth.data.montage import COLOURS, Cell, Section, as_tile, montage, with_labels

COLUMNS = ["case", "patient", "site", "role", "class", "slice"]


def cohort(size: tuple[int, ...] = (16, 16), channels: tuple[str, ...] = ("t1", "t2"), masks: bool = True) -> ImageSet:
    """Two sites, six patients each, three slices each; healthy and tumour, member and holdout."""
    rng = np.random.default_rng(0)
    rows = [
        [
            f"p{p}-{k}",
            f"p{p}",
            f"s{p % 2}",
            ["member", "holdout"][p // 2 % 2],
            ["healthy", "tumour"][p // 4 % 2],
            str(k),
        ]
        for p in range(12)
        for k in range(3)
    ]
    made = np.zeros((36, *size), np.uint8)
    for i, row in enumerate(rows):
        if row[4] == "tumour":
            made[(i, *[slice(2, 4 + int(row[5]))] * len(size))] = 1
    return ImageSet(
        header=Header(
            name="cohort",
            origin="real",
            channels=channels,
            classes=("healthy", "tumour"),
            mask_labels=("background", "tumour") if masks else (),
            spacing_mm=(1.0,) * len(size),
        ),
        cases=pd.DataFrame(rows, columns=COLUMNS, dtype=str),
        images=rng.integers(0, 256, (36, len(channels), *size), dtype=np.uint8),
        masks=made if masks else None,
    )


def has_colour(sheet: Image.Image, colour: tuple[int, int, int], tolerance: int = 14) -> bool:
    return bool((np.abs(np.asarray(sheet).astype(int) - colour).max(axis=2) <= tolerance).any())


def test_the_choice_spreads_over_patients_classes_and_roles() -> None:
    made = cohort().select(site="s0")
    interest = np.asarray(made.masks).sum(axis=(1, 2)).astype(float)
    chosen = made.cases.iloc[choose(made.cases, interest, 4)]
    assert chosen["patient"].nunique() == 4
    assert chosen["class"].tolist() == ["healthy", "healthy", "tumour", "tumour"]
    assert set(chosen["role"]) == {"member", "holdout"}
    assert chosen["slice"].tolist() == ["1", "1", "2", "2"], "the middle slice, and the one with most lesion"


def test_a_single_place_goes_to_a_lesion() -> None:
    made = cohort()
    interest = np.asarray(made.masks).sum(axis=(1, 2)).astype(float)
    assert made.cases.iloc[choose(made.cases, interest, 1)]["class"].tolist() == ["tumour"]


def test_second_images_come_when_patients_run_out() -> None:
    made = cohort().select(patient=["p0", "p2"])
    chosen = made.cases.iloc[choose(made.cases, np.zeros(6), 3)]
    assert chosen["patient"].nunique() == 2
    assert len(chosen) == 3
    assert len(choose(made.cases, np.zeros(6), 100)) == 6
    assert len(choose(made.cases.iloc[:0], np.zeros(0), 3)) == 0


def test_the_sheet_is_the_same_every_time_and_shows_labels() -> None:
    first, second = contact_sheet(cohort()), contact_sheet(cohort())
    assert np.array_equal(np.asarray(first), np.asarray(second))
    assert has_colour(first, COLOURS[0])
    assert first.width <= 1400


def test_real_patients_are_marked_and_others_are_not() -> None:
    made = cohort(masks=False)
    phantom = replace(made, header=replace(made.header, provenance={"phantom": {"seed": 0}}))
    synthetic = replace(made, header=replace(made.header, origin="synthetic"), cases=made.cases.assign(patient=""))
    real, other, free = (np.asarray(contact_sheet(one)) for one in (made, phantom, synthetic))
    assert has_colour(contact_sheet(made), (255, 176, 80))
    assert not np.array_equal(real, other)
    assert not has_colour(contact_sheet(synthetic), (255, 176, 80))
    assert len(free) < len(real), "no line of warning"


@pytest.mark.parametrize(
    ("provenance", "size", "said"),
    [
        ({}, (8, 8), "real patients: keep at the site"),
        (
            {"orientation": "RAS", "slices": {"axis": "coronal"}},
            (8, 8),
            "real patients: keep at the site; the patient's left is on the left",
        ),
        ({"orientation": "RAS", "slices": {"axis": "sagittal"}}, (8, 8), "real patients: keep at the site"),
        ({"orientation": "LPS", "slices": 7}, (8, 8), "real patients: keep at the site"),
        ({"phantom": {}}, (8, 8), "phantoms: no patients; the patient's left is on the left"),
        ({"phantom": {}}, (8,) * 3, "phantoms: no patients; axial and coronal: the patient's left is on the left"),
    ],
)
def test_the_sheet_says_which_side_is_left_where_it_is_known(
    provenance: dict[str, Any], size: tuple[int, ...], said: str
) -> None:
    made = cohort(size=size)
    assert note_of(replace(made.header, provenance=provenance)) == said


@pytest.mark.parametrize("kind", ["one channel", "colour", "floating point", "volumes", "large", "no images"])
def test_every_kind_of_set_gives_a_sheet(kind: str) -> None:
    made = {
        "one channel": lambda: cohort(channels=("ct",), masks=False),
        "colour": lambda: cohort(channels=("red", "green", "blue")),
        "floating point": lambda: replace(cohort(), images=(np.asarray(cohort().images) / 255).astype(np.float32)),
        "volumes": lambda: cohort(size=(10, 12, 8)),
        "large": lambda: cohort(size=(300, 300)).select(patient="p9"),
        "no images": lambda: cohort().rows(np.arange(0)),
    }[kind]()
    sheet = contact_sheet(made, rows=1)
    assert sheet.mode == "RGB"
    assert (len(made) == 0) == (sheet.height < 100)
    assert has_colour(sheet, COLOURS[0]) == (made.masks is not None)


def test_colour_channels_are_one_tile() -> None:
    made = cohort(channels=("red", "green", "blue"), masks=False)
    (tiles,) = tiles_of(made.images[0], None, made.header)
    assert len(tiles) == 1
    assert tuple(tiles[0][0, 0]) == tuple(made.images[0][:, 0, 0])


def test_small_images_grow_by_a_whole_number() -> None:
    image = np.arange(28 * 28, dtype=np.uint32).reshape(28, 28).astype(np.uint8)
    tile = as_tile(image)
    assert tile.shape == (112, 112, 3)
    assert np.array_equal(tile[..., 0], image.repeat(4, 0).repeat(4, 1))
    assert as_tile(np.zeros((96, 64), np.uint8)).shape == (96, 64, 3)
    assert as_tile(np.zeros((10, 20), np.uint8), (4.0, 1.0)).shape == (120, 60, 3)
    assert as_tile(np.full((1024, 512), 0.5, np.float32)).shape == (256, 128, 3)
    assert as_tile(np.full((1024, 512), 0.5, np.float32)).max() == 128


def test_labels_are_outlined_and_the_inside_stays_visible() -> None:
    mask = np.zeros((32, 32), np.uint8)
    mask[8:24, 8:24] = 2
    tile = with_labels(np.full((96, 96, 3), 100, np.uint8), mask)
    assert tuple(tile[0, 0]) == (100, 100, 100)
    assert np.abs(tile[24, 40].astype(int) - COLOURS[1]).max() < 12
    inside = tile[48, 48].astype(int)
    assert (np.abs(inside - 100) < np.abs(inside - COLOURS[1])).all()


def test_volumes_are_cut_through_the_thickest_lesion_and_stand_upright() -> None:
    made = cohort(size=(10, 12, 8), channels=("t1",))
    images = np.zeros((36, 1, 10, 12, 8), np.uint8)
    images[0, 0, 7, 11, 6] = 255  # right, front, near the top
    axial, coronal, sagittal = tiles_of(images[0], None, made.header, (7, 11, 6))
    bright = [np.argwhere(row[0][..., 0] > 0).mean(axis=0) / row[0].shape[:2] for row in (axial, coronal, sagittal)]
    wanted: list[Any] = [((0.5) / 12, 7.5 / 10), ((1.5) / 8, 7.5 / 10), ((1.5) / 8, 11.5 / 12)]
    for found, place in zip(bright, wanted, strict=True):
        assert found == pytest.approx(place, abs=0.02)
    masks = np.zeros((36, 10, 12, 8), np.uint8)
    masks[:, 2, 3, 6] = masks[:, 2, 3:5, 5] = 1
    sheet = contact_sheet(replace(made, masks=masks), rows=1)
    assert has_colour(sheet, COLOURS[0])


def test_long_and_strange_names_do_not_break_the_layout() -> None:
    tile = np.zeros((96, 96, 3), np.uint8)
    cell = Cell(tiles=[[tile]], lines=["a very long name of a case that does not fit " * 3, "two\nlines", "病人"])
    page = montage([Section(title="t", cells=[cell] * 3)], title="x", legend=[f"label number {i}" for i in range(60)])
    pixels = np.asarray(page)
    assert page.width == 480
    gap = pixels[:, 14 + 96 + 1 : 14 + 96 + 13]
    assert (gap[300:] == gap[-1, 0]).all(), "text of one cell does not run into the next"


def test_nothing_to_show_is_still_a_picture() -> None:
    assert montage([]).size[0] > 0
