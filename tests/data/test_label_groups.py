"""Regrouping labels: the table by hand, the lazy view against a plain look-up, every way to get it wrong."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedsynth.data import Header, ImageSet, concatenate
from fedsynth.data.label_groups import regroup, relabel
from fedsynth.errors import ConfigError, ImageSetError

TUMOUR = ("background", "edema", "core", "enhancing")
BOTH = ("background", "csf", "grey", "white", "edema", "core", "enhancing")


@pytest.mark.parametrize(
    ("labels", "groups", "names", "numbers"),
    [
        (TUMOUR, "whole-tumour=edema,core,enhancing", ("background", "whole-tumour"), [0, 1, 1, 1]),
        (TUMOUR, "solid = core , enhancing", ("background", "edema", "solid"), [0, 1, 2, 2]),
        (TUMOUR, "solid=edema,enhancing", ("background", "solid", "core"), [0, 1, 2, 1]),
        (TUMOUR, "background=edema", ("background", "core", "enhancing"), [0, 0, 1, 2]),
        (TUMOUR, "background=background,edema;x=core", ("background", "x", "enhancing"), [0, 0, 1, 2]),
        (TUMOUR, "core=core,enhancing", ("background", "edema", "core"), [0, 1, 2, 2]),
        (TUMOUR, "core=edema;edema=core", ("background", "core", "edema", "enhancing"), [0, 1, 2, 3]),
        (("none", "a", "b"), "background=a", ("none", "b"), [0, 0, 1]),
        (
            BOTH,
            "tissue=csf,grey,white;tumour=edema,core,enhancing;",
            ("background", "tissue", "tumour"),
            [0, 1, 1, 1, 2, 2, 2],
        ),
    ],
)
def test_by_hand(labels: tuple[str, ...], groups: str, names: tuple[str, ...], numbers: list[int]) -> None:
    found, table = regroup(labels, groups)
    assert found == names
    assert table.dtype == np.uint8
    assert table[: len(labels)].tolist() == numbers
    assert set(table[len(labels) :]) == {255}


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("tumour=oedema", r"unknown label \(found 'oedema'\); did you mean 'edema'\?"),
        ("tumour", r"cannot be read \(found 'tumour'\); write name=label,label;name=label"),
        ("=core", "cannot be read"),
        ("tumour=core,", "cannot be read"),
        ("", "no group of labels is given"),
        (" ; ", "no group of labels is given"),
        ("a=core;a=edema", "the group 'a' stands twice"),
        ("a=core;b=core", r"the label is in two groups, 'a' and 'b' \(found 'core'\)"),
        ("a=background,core", "the background cannot join another group"),
        ("core=edema", "the group has the name of a label that is not in it.*list 'core' in the group as well"),
        ("background=edema,core,enhancing", "every label would become background"),
    ],
)
def test_a_wrong_group_is_named(groups: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        regroup(TUMOUR, groups)


def labelled_set(masks: bool = True) -> ImageSet:
    rng = np.random.default_rng(0)
    rows = [[f"c{i}", f"p{i // 2}", "north", "", "", ""] for i in range(6)]
    return ImageSet(
        header=Header(
            name="s",
            origin="real",
            channels=("t1",),
            mask_labels=TUMOUR if masks else (),
            spacing_mm=(1.0, 1.0),
            provenance={"reader": "folder"},
        ),
        cases=pd.DataFrame(rows, columns=["case", "patient", "site", "role", "class", "slice"], dtype=str),
        images=rng.integers(0, 256, (6, 1, 4, 5), dtype=np.uint8),
        masks=rng.integers(0, 4, (6, 4, 5), dtype=np.uint8) if masks else None,
    )


def test_the_view_is_the_look_up(tmp_path: Path) -> None:
    made = labelled_set()
    assert made.masks is not None
    wanted = np.array([0, 1, 2, 2], np.uint8)[np.asarray(made.masks)]
    seen = relabel(made, "solid=core,enhancing")
    assert seen.masks is not None
    assert seen.header.mask_labels == ("background", "edema", "solid")
    assert seen.header.provenance == {"reader": "folder", "relabelled": ["solid=core,enhancing"]}
    for which in (3, -1, slice(1, 4), np.array([5, 0]), (2, slice(1, 3)), (slice(0, 2), 1), (4, 1, 1)):
        assert np.array_equal(seen.masks[which], wanted[which]), which
    assert np.array_equal(np.asarray(seen.rows(np.array([4, 2])).masks), wanted[[4, 2]])
    saved = seen.save(tmp_path / "set")
    assert np.array_equal(np.asarray(saved.masks), wanted)
    assert np.array_equal(np.asarray(saved.images), np.asarray(made.images))


def test_relabelling_twice_and_joining() -> None:
    twice = relabel(relabel(labelled_set(), "solid=core,enhancing"), "tumour=edema,solid")
    assert twice.header.mask_labels == ("background", "tumour")
    assert twice.header.provenance["relabelled"] == ["solid=core,enhancing", "tumour=edema,solid"]
    assert np.array_equal(np.asarray(twice.masks), np.asarray(labelled_set().masks) > 0)
    assert len(concatenate([twice.rows(np.arange(3)), twice.rows(np.arange(3, 6))])) == 6


def test_a_value_without_a_name_is_not_hidden() -> None:
    made = labelled_set()
    assert isinstance(made.masks, np.ndarray)
    made.masks[4, 0, 0] = 9
    with pytest.raises(ImageSetError, match="a label has no name"):
        relabel(made, "tumour=edema,core,enhancing").validate()


def test_without_masks_there_is_nothing_to_relabel() -> None:
    with pytest.raises(ImageSetError, match="no masks"):
        relabel(labelled_set(masks=False), "a=core")
    with pytest.raises(ConfigError, match="no masks"):
        regroup((), "a=core")
