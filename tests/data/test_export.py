"""Exports that other tools read: right way up, right numbers, and back again."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fedsynth.data import Header, ImageSet
from fedsynth.data.croissant import describe
from fedsynth.data.export import card, export
from fedsynth.errors import ConfigError, RefusedError


def small_set(size: tuple[int, ...] = (6, 8), channels: tuple[str, ...] = ("t1", "flair")) -> ImageSet:
    rng = np.random.default_rng(0)
    cases = [
        {"case": f"case {i}", "patient": "", "site": "", "role": "", "class": "high", "slice": ""} for i in range(3)
    ]
    header = Header(
        name="made",
        origin="synthetic",
        channels=channels,
        classes=("high",),
        mask_labels=("background", "core"),
        spacing_mm=(2.0, 3.0, 4.0)[: len(size)],
    )
    return ImageSet(
        header=header,
        cases=pd.DataFrame(cases, dtype=str),
        images=rng.integers(0, 256, (3, len(channels), *size), dtype=np.uint8),
        masks=rng.integers(0, 2, (3, *size), dtype=np.uint8),
    )


def test_a_slice_becomes_a_nifti_with_its_first_row_to_the_front(tmp_path: Path) -> None:
    images = small_set()
    export(images, tmp_path / "out", "nifti")
    read = nib.load(tmp_path / "out/sub-case0/anat/sub-case0_FLAIR.nii.gz")
    assert nib.aff2axcodes(read.affine) == ("R", "A", "S")
    assert read.shape == (8, 6, 1)
    assert np.allclose(read.header.get_zooms(), (3, 2, 2))
    data = np.asarray(read.dataobj)
    assert data[2, 5, 0] == images.images[0][1, 0, 2]  # largest y is the first row
    mask = np.asarray(nib.load(tmp_path / "out/sub-case0/anat/sub-case0_dseg.nii.gz").dataobj)
    assert mask[2, 5, 0] == images.masks[0][0, 2]


def test_a_volume_keeps_its_axes_and_the_table_names_every_case(tmp_path: Path) -> None:
    images = small_set(size=(4, 5, 6))
    export(images, tmp_path / "out", "nifti")
    read = nib.load(tmp_path / "out/sub-case2/anat/sub-case2_T1w.nii.gz")
    assert np.array_equal(np.asarray(read.dataobj), images.images[2][0])
    assert np.allclose(read.header.get_zooms(), (2, 3, 4))
    table = pd.read_csv(tmp_path / "out/participants.tsv", sep="\t", keep_default_na=False)
    assert table["participant_id"].tolist() == ["sub-case0", "sub-case1", "sub-case2"]
    assert table["fedsynth_case"].tolist() == ["case 0", "case 1", "case 2"]
    assert (tmp_path / "out/dseg.tsv").read_text() == "index\tname\n0\tbackground\n1\tcore\n"


@pytest.mark.parametrize("channels", [("t1",), ("red", "green", "blue"), ("t1", "flair")])
def test_pngs_hold_the_pixels(tmp_path: Path, channels: tuple[str, ...]) -> None:
    images = small_set(channels=channels)
    export(images, tmp_path / "out", "png")
    name = "sub-case1_FLAIR.png" if len(channels) == 2 else "sub-case1.png"
    pixels = np.asarray(Image.open(tmp_path / "out/high" / name))
    wanted = images.images[1]
    assert np.array_equal(pixels, np.moveaxis(wanted, 0, -1) if len(channels) == 3 else wanted[-1])
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/high/sub-case1_mask.png")), images.masks[1])


def test_a_hugging_face_folder_names_every_picture_and_opens_with_yaml(tmp_path: Path) -> None:
    export(small_set(), tmp_path / "two", "huggingface")
    lines = [json.loads(line) for line in (tmp_path / "two/metadata.jsonl").read_text().splitlines()]
    assert lines[0] == {
        "t1_file_name": "high/sub-case0_T1w.png",
        "flair_file_name": "high/sub-case0_FLAIR.png",
        "mask_file_name": "high/sub-case0_mask.png",
        "case": "case 0",
        "class": "high",
    }
    export(small_set(channels=("t1",)), tmp_path / "one", "huggingface")
    lines = [json.loads(line) for line in (tmp_path / "one/metadata.jsonl").read_text().splitlines()]
    assert [line["file_name"] for line in lines] == [f"high/sub-case{i}.png" for i in range(3)]
    named = {line[key] for line in lines for key in line if key.endswith("file_name")}
    assert named == {path.relative_to(tmp_path / "one").as_posix() for path in (tmp_path / "one").rglob("*.png")}
    _, yaml, text = (tmp_path / "one/README.md").read_text().split("---\n", 2)
    assert "license: other\n" in yaml
    assert "- image-segmentation\n" in yaml
    assert text.lstrip().startswith("# made")


def test_a_hugging_face_folder_is_described_in_croissant(tmp_path: Path) -> None:
    """Validated once with mlcroissant 1.1.1, which also read the rows."""
    out = tmp_path / "two"
    export(small_set(), out, "huggingface")
    told = json.loads((out / "croissant.json").read_text())
    table, pictures = told["distribution"]
    assert told["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    assert table["sha256"] == hashlib.sha256((out / table["contentUrl"]).read_bytes()).hexdigest()
    assert len(list(out.glob(pictures["includes"]))) == 9
    (rows,) = told["recordSet"]
    first = json.loads((out / "metadata.jsonl").read_text().splitlines()[0])
    assert [field["source"]["extract"]["column"] for field in rows["field"]] == list(first)
    assert "license" not in told
    described = describe(small_set(), out / "metadata.jsonl", licence="CC BY 4.0")
    assert described["license"] == "CC BY 4.0"


def test_floating_point_images_become_eight_bit(tmp_path: Path) -> None:
    images = small_set(channels=("t1",))
    export(replace(images, images=np.asarray(images.images, np.float32) / 255), tmp_path / "out", "png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/high/sub-case0.png")), images.images[0][0])


def test_cases_that_read_the_same_get_different_names(tmp_path: Path) -> None:
    images = small_set()
    cases = images.cases.assign(case=["a-1", "a_1", "a1"])
    export(images.with_cases(cases), tmp_path / "out", "nifti")
    assert len(list((tmp_path / "out").glob("sub-*"))) == 3


def test_what_cannot_be_is_said_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="volumes cannot be written as PNG"):
        export(small_set(size=(4, 5, 6)), tmp_path / "out", "png")
    with pytest.raises(ConfigError, match="two channels would have one file name"):
        export(small_set(channels=("a-b", "ab")), tmp_path / "out", "png")
    with pytest.raises(ConfigError, match="did you mean 'nifti'"):
        export(small_set(), tmp_path / "out", "nift")  # type: ignore[arg-type]
    export(small_set(), tmp_path / "out", "png")
    with pytest.raises(RefusedError):
        export(small_set(), tmp_path / "out", "png")
    export(small_set(), tmp_path / "out", "png", overwrite=True)


def test_the_card_claims_nothing() -> None:
    text = card(small_set())
    assert "| images | 3 |" in text
    assert "makes no claim" in text
    assert "images of patients" in card(
        replace(
            small_set(), header=replace(small_set().header, origin="real"), cases=small_set().cases.assign(patient="p")
        )
    )


def test_the_card_of_altered_images_of_people_says_so() -> None:
    made = small_set()
    told = {"consists-of": "altered images of the public set 'archive'"}
    text = card(made.with_cases(made.cases, provenance=told))
    assert "These are altered images of the public set 'archive'." in text
    assert "not patients" not in text
    assert "These images are not patients." in card(made)
