"""`fedsynth inspect` in process: what it prints, its JSON, the sheet it writes, and damaged sets as one line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from fedsynth.cli import app
from fedsynth.data import Header, ImageSet, Shares, Split


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["inspect", *map(str, arguments)])


def small_set(**changes: object) -> ImageSet:
    """Five patients of two slices; c4 is a copy of c0 under another patient and role, c9 is empty."""
    rng = np.random.default_rng(0)
    roles = ["member", "member", "holdout", "holdout", "reference"]
    rows = [
        [f"c{i}", f"p{i // 2}", "east" if i < 6 else "west", roles[i // 2], ["", "glioma"][i % 2], str(i % 2)]
        for i in range(10)
    ]
    images = rng.integers(0, 256, (10, 2, 20, 24), dtype=np.uint8)
    images[4] = images[0]
    images[9] = 0
    masks = np.zeros((10, 20, 24), np.uint8)
    masks[:4, :10] = 1
    values: dict[str, Any] = {
        "name": "small",
        "origin": "real",
        "channels": ("t1", "flair"),
        "classes": ("glioma",),
        "mask_labels": ("background", "tumour"),
        "spacing_mm": (1.0, 2.0),
        "split": Split(seed=7, shares=Shares()),
    }
    return ImageSet(
        header=Header(**(values | changes)),
        cases=pd.DataFrame(rows, columns=["case", "patient", "site", "role", "class", "slice"], dtype=str),
        images=images,
        masks=masks,
    )


def test_the_tables(tmp_path: Path) -> None:
    small_set().save(tmp_path / "set")
    shown = run(tmp_path / "set")
    assert shown.exit_code == 0
    lines = [" ".join(line.split()) for line in shown.output.splitlines()]
    assert "images 10 of 5 patients" in lines
    assert "size 20 x 24 at 1 x 2 mm, uint8" in lines
    assert "split member 0.5, holdout 0.4, reference 0.1; seed 7, within site and class" in lines
    assert "site role images patients glioma no class" in lines
    assert "east member 4 2 2 2" in lines
    assert "all 10 5 5 5" in lines
    assert "east member 100.0% 50.00%" in lines
    assert "west holdout 0.0% -" in lines
    assert "all 40.0% 50.00%" in lines
    assert "1 constant images (empty or of one value), left out of what follows" in lines
    assert "1 groups of exact copies" in lines
    assert "c0 [east, member] = c4 [east, holdout]" in lines


def test_the_json_is_whole_and_finite(tmp_path: Path) -> None:
    made = small_set()
    made.save(tmp_path / "set")
    shown = run(tmp_path / "set", "--json")
    assert shown.exit_code == 0

    def refuse(word: str) -> None:
        raise AssertionError(word)

    found = json.loads(shown.output, parse_constant=refuse)
    assert list(found) == ["schema", "set", "groups", "intensities", "duplicates", "sheet"]
    assert found["schema"] == "fedsynth.inspect/1"
    assert found["set"]["split"]["shares"] == {"member": 0.5, "holdout": 0.4, "reference": 0.1}
    assert [(group["site"], group["role"], group["images"]) for group in found["groups"]] == [
        ("east", "member", 4),
        ("east", "holdout", 2),
        ("west", "holdout", 2),
        ("west", "reference", 2),
        (None, None, 10),
    ]
    assert found["groups"][0]["labels"] == {"tumour": {"images": 1.0, "area": 0.5}}
    assert found["groups"][3]["tumour"] == {"images": 0.0, "area": None}
    flair = next(one for one in found["intensities"] if (one["site"], one["channel"]) == ("east", "flair"))
    assert flair["quantiles"]["0.5"] == pytest.approx(np.median(np.asarray(made.images)[:6, 1]) / 255)
    duplicates = found["duplicates"]
    assert duplicates["constant"] == ["c9"]
    assert [[case["case"] for case in group] for group in duplicates["exact"]] == [["c0", "c4"]]
    assert duplicates["exact"][0][1] == {"case": "c4", "patient": "p2", "site": "east", "role": "holdout"}
    assert duplicates["near"] == []
    assert duplicates["why"] is None


def test_near_duplicates_are_null_where_nothing_is_ordinary(tmp_path: Path) -> None:
    small_set().select(patient=["p0", "p1"]).save(tmp_path / "set")
    duplicates = json.loads(run(tmp_path / "set", "--json").output)["duplicates"]
    assert duplicates["near"] is None
    assert "fewer than three patients" in duplicates["why"]
    assert "not looked for" in run(tmp_path / "set").output


def test_near_duplicates_are_named(tmp_path: Path) -> None:
    made = small_set()
    images = np.asarray(made.images).copy()
    images[6] = np.clip(images[2] * 0.8, 0, 255).astype(np.uint8)
    ImageSet(header=made.header, cases=made.cases, images=images, masks=made.masks).save(tmp_path / "set")
    assert "c2 [east, member]  ~  c6 [west, holdout]" in run(tmp_path / "set").output
    (pair,) = json.loads(run(tmp_path / "set", "--json").output)["duplicates"]["near"]
    assert [case["case"] for case in pair["cases"]] == ["c2", "c6"]
    assert pair["detail"] > 0.95


def test_the_sheet_is_a_picture_and_is_not_replaced_unasked(tmp_path: Path) -> None:
    small_set().save(tmp_path / "set")
    sheet = tmp_path / "pictures/sheet.png"
    first = run(tmp_path / "set", "--sheet", sheet, "--json")
    assert json.loads(first.output)["sheet"] == str(sheet)
    with Image.open(sheet) as picture:
        assert picture.format == "PNG"
        assert picture.width > 400
    again = run(tmp_path / "set", "--sheet", sheet)
    assert again.exit_code == 2
    assert "exists already" in again.stderr
    assert run(tmp_path / "set", "--sheet", sheet, "--overwrite", "--rows", 1).exit_code == 0


def test_a_synthetic_set_without_patients_sites_and_masks(tmp_path: Path) -> None:
    made = small_set()
    bare = Header(name="bare", origin="synthetic", channels=("t1", "flair"), spacing_mm=(1.0, 1.0))
    cases = made.cases.assign(**{"patient": "", "site": "", "role": "", "class": "", "slice": ""})
    ImageSet(header=bare, cases=cases, images=made.images).save(tmp_path / "set")
    shown = run(tmp_path / "set", "--sheet", tmp_path / "sheet.png")
    assert shown.exit_code == 0
    assert "no masks" in shown.output
    assert "Labels:" not in shown.output


def _truncate(folder: Path) -> None:
    file = folder / "images.npy"
    file.write_bytes(file.read_bytes()[:500])


def _unknown_label(folder: Path) -> None:
    masks = np.load(folder / "masks.npy")
    masks[3, 0, 0] = 9
    np.save(folder / "masks.npy", masks)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, r"images.npy: is not a readable array"),
        (_unknown_label, r"a label has no name"),
        (lambda folder: (folder / "cases.csv").unlink(), r"cases.csv: the file is missing"),
        (lambda folder: (folder / "imageset.toml").write_text("format = 2"), r"imageset.toml"),
        (lambda folder: (folder / "imageset.toml").unlink(), r"is not an image set"),
        (lambda folder: folder.rename(folder.with_name("elsewhere")), r"there is no such folder"),
    ],
)
def test_a_damaged_set_is_one_line(tmp_path: Path, damage: Any, message: str) -> None:
    small_set().save(tmp_path / "set")
    damage(tmp_path / "set")
    shown = run(tmp_path / "set")
    assert shown.exit_code == 2
    assert shown.stdout == ""
    assert len(shown.stderr.splitlines()) == 1
    assert message in shown.stderr


@pytest.mark.parametrize(("name", "message"), [("sheet.jpg", "must be a .png file"), ("folder.png", "is a folder")])
def test_a_sheet_that_cannot_be(tmp_path: Path, name: str, message: str) -> None:
    small_set().save(tmp_path / "set")
    (tmp_path / "folder.png").mkdir()
    shown = run(tmp_path / "set", "--sheet", tmp_path / name)
    assert shown.exit_code == 2
    assert message in shown.stderr
