"""The tables of an image set: by hand, and against numpy on all voxels at once."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fedsynth.data import Header, ImageSet
from fedsynth.data.summary import QUANTILES, summarise


def three_sites(dtype: type = np.uint8) -> ImageSet:
    rng = np.random.default_rng(0)
    rows = [
        ["a", "p0", "north", "member", "healthy", ""],
        ["b", "p0", "north", "member", "tumour", ""],
        ["c", "p1", "south", "holdout", "tumour", ""],
        ["d", "p2", "north", "holdout", "", ""],
        ["e", "p3", "south", "member", "tumour", ""],
        ["f", "p4", "north", "member", "healthy", ""],
    ]
    masks = np.zeros((6, 4, 5), np.uint8)
    masks[1, 0, :4] = 1
    masks[1, 1, :2] = 2
    masks[2, :, 0] = 2
    masks[5, 0, 0] = 1
    images = rng.integers(0, 256, (6, 2, 4, 5), dtype=np.uint8)
    images[:, 1, :2] = 0
    return ImageSet(
        header=Header(
            name="s",
            origin="real",
            channels=("t1", "t2"),
            classes=("healthy", "tumour"),
            mask_labels=("background", "edema", "core"),
            spacing_mm=(1.0, 1.0),
        ),
        cases=pd.DataFrame(rows, columns=["case", "patient", "site", "role", "class", "slice"], dtype=str),
        images=images if dtype is np.uint8 else (images / 255).astype(np.float32),
        masks=masks,
    )


def test_groups_by_hand() -> None:
    groups = summarise(three_sites()).groups
    assert [(group.site, group.role) for group in groups] == [
        ("north", "member"),
        ("north", "holdout"),
        ("south", "member"),
        ("south", "holdout"),
        (None, None),
    ]
    north, unlabelled, _, south, everything = groups
    assert (north.images, north.patients, north.classes) == (3, 2, {"healthy": 2, "tumour": 1})
    assert north.tumour is not None
    assert north.tumour.images == pytest.approx(2 / 3)
    assert north.tumour.area == pytest.approx((6 + 1) / 20 / 2)
    assert (north.labels["edema"].images, north.labels["edema"].area) == pytest.approx((2 / 3, 5 / 40))
    assert (north.labels["core"].images, north.labels["core"].area) == pytest.approx((1 / 3, 2 / 20))
    assert unlabelled.classes == {"healthy": 0, "tumour": 0, "": 1}
    assert unlabelled.tumour is not None
    assert (unlabelled.tumour.images, unlabelled.tumour.area) == (0, None)
    assert (south.labels["edema"].area, south.labels["core"].area) == (None, pytest.approx(4 / 20))
    assert (everything.images, everything.patients) == (6, 5)
    assert everything.classes == {"healthy": 2, "tumour": 3, "": 1}


def test_tissues_are_no_tumour() -> None:
    made = three_sites()
    named = replace(made, header=replace(made.header, mask_labels=("background", "white", "enhancing")))
    north = summarise(named).groups[0]
    assert north.tumour == north.labels["enhancing"]
    assert north.labels["white"].images == pytest.approx(2 / 3)
    tissues = replace(made, header=replace(made.header, mask_labels=("background", "liver", "csf")))
    assert summarise(tissues).groups[0].tumour is None


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.uint8, 1e-12), (np.float32, 2**-16)])
def test_intensities_are_those_of_all_voxels(dtype: type, tolerance: float) -> None:
    made = three_sites(dtype)
    scale = 255 if dtype is np.uint8 else 1
    for found in summarise(made).intensities:
        rows = (made.cases["site"] == found.site).to_numpy()
        voxels = np.asarray(made.images)[rows, made.header.channels.index(found.channel)].astype(float) / scale
        assert found.mean == pytest.approx(voxels.mean(), abs=tolerance)
        assert found.black == pytest.approx((voxels == 0).mean())
        assert list(found.quantiles.values()) == pytest.approx(list(np.quantile(voxels, QUANTILES)), abs=tolerance)
        assert found.above_zero is not None
        wanted = np.quantile(voxels[voxels > 0], QUANTILES)
        assert list(found.above_zero.values()) == pytest.approx(list(wanted), abs=tolerance)


def test_black_images_without_masks() -> None:
    made = three_sites()
    header = replace(made.header, mask_labels=())
    black = replace(made, header=header, images=np.zeros_like(np.asarray(made.images)), masks=None)
    summary = summarise(black)
    assert summary.groups[0].tumour is None
    assert summary.groups[0].labels == {}
    assert {found.black for found in summary.intensities} == {1.0}
    assert {found.above_zero for found in summary.intensities} == {None}


def test_large_counts_come_from_several_blocks() -> None:
    rng = np.random.default_rng(1)
    n = 600
    images = rng.integers(0, 256, (n, 1, 180, 180), dtype=np.uint8)
    assert images.nbytes > 2**24
    rows = [[f"c{i}", f"p{i}", "ab"[i % 2], "", "", ""] for i in range(n)]
    made = ImageSet(
        header=Header(name="s", origin="real", channels=("t1",), spacing_mm=(1.0, 1.0)),
        cases=pd.DataFrame(rows, columns=["case", "patient", "site", "role", "class", "slice"], dtype=str),
        images=images,
    )
    steps: list[tuple[int, int]] = []
    found = summarise(made, progress=lambda done, total: steps.append((done, total))).intensities
    assert [entry.mean * 255 for entry in found] == pytest.approx([images[i::2].mean() for i in range(2)])
    assert len(steps) > 1
    assert steps[-1] == (n, n)
