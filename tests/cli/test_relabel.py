"""`fedsynth relabel` in process."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from fedsynth.cli import app
from fedsynth.data import Header, ImageSet


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["relabel", *map(str, arguments)])


@pytest.fixture
def made(tmp_path: Path) -> ImageSet:
    rng = np.random.default_rng(0)
    rows = [[f"c{i}", f"p{i}", "", "", "", ""] for i in range(4)]
    return ImageSet(
        header=Header(
            name="old",
            origin="real",
            channels=("t1",),
            mask_labels=("background", "edema", "core", "enhancing"),
            spacing_mm=(1.0, 1.0, 1.0),
        ),
        cases=pd.DataFrame(rows, columns=["case", "patient", "site", "role", "class", "slice"], dtype=str),
        images=rng.integers(0, 256, (4, 1, 3, 4, 5), dtype=np.uint8),
        masks=rng.integers(0, 4, (4, 3, 4, 5), dtype=np.uint8),
    ).save(tmp_path / "set")


def test_the_copy_has_the_new_labels_and_the_same_images(made: ImageSet, tmp_path: Path) -> None:
    shown = run(tmp_path / "set", tmp_path / "whole", "--labels", "whole-tumour=edema,core,enhancing")
    assert shown.exit_code == 0
    assert "4 images, labels background, whole-tumour (were background, edema, core, enhancing)" in shown.output
    found = ImageSet.load(tmp_path / "whole")
    assert found.header.name == "whole"
    assert found.header.mask_labels == ("background", "whole-tumour")
    assert found.header.provenance["relabelled"] == ["whole-tumour=edema,core,enhancing"]
    assert np.array_equal(found.masks, np.asarray(made.masks) > 0)
    assert np.array_equal(found.images, np.asarray(made.images))
    pd.testing.assert_frame_equal(found.cases, made.cases)


def test_over_itself_and_json(made: ImageSet, tmp_path: Path) -> None:
    before = np.array(made.masks)
    shown = run(tmp_path / "set", tmp_path / "set", "--labels", "background=edema", "--overwrite", "--json")
    assert shown.exit_code == 0
    assert json.loads(shown.output) == {
        "schema": "fedsynth.relabel/1",
        "out": str(tmp_path / "set"),
        "images": 4,
        "labels_before": ["background", "edema", "core", "enhancing"],
        "labels": ["background", "core", "enhancing"],
    }
    assert np.array_equal(ImageSet.load(tmp_path / "set").masks, np.array([0, 0, 1, 2], np.uint8)[before])


@pytest.mark.parametrize(
    ("labels", "out", "message"),
    [
        ("tumour=oedema", "out", "unknown label (found 'oedema'); did you mean 'edema'?"),
        ("tumour", "out", "write name=label,label;name=label"),
        ("tumour=edema", "set", "exists already"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(
    made: ImageSet, tmp_path: Path, labels: str, out: str, message: str
) -> None:
    shown = run(tmp_path / "set", tmp_path / out, "--labels", labels)
    assert shown.exit_code == 2
    assert message in shown.stderr
    assert len(shown.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert ImageSet.load(tmp_path / "set").header.mask_labels == made.header.mask_labels
