"""What `fedsynth import` sees in folders as people have them: the reader, whose image is whose, masks, a table."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from PIL import Image

from fedsynth.data.importers.pipeline import ImportSettings, import_images
from fedsynth.data.importers.proposal import Proposal, propose
from fedsynth.errors import ConfigError, SourceError

GREY = np.arange(400, dtype=np.uint8).reshape(20, 20)


def save(root: Path, *names: str, array: np.ndarray = GREY) -> Path:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith((".png", ".jpg")):
            Image.fromarray(array).save(file)
        else:
            voxels = np.arange(64, dtype=np.uint8).reshape(4, 4, 4) % (2 if "seg" in name or "labels" in name else 64)
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels), str(file))
    return root


@pytest.mark.parametrize(
    ("names", "patients"),
    [
        (["ill/patient1_a.png", "ill/patient2_a.png", "well/patient3_a.png"], ["patient1", "patient2", "patient3"]),
        (["ill/sub-A7/x.png", "ill/sub-A7/y.png", "well/sub-B1/x.png"], ["sub-A7", "sub-A7", "sub-B1"]),
        (["ill/anna/1.png", "ill/anna/2.png", "well/bert/1.png"], ["anna", "anna", "bert"]),
        (["ill/x12-1.png", "ill/x12-2.png", "well/x31-1.png"], ["x12", "x12", "x31"]),
        (["ill/1_1.png", "ill/1_2.png", "well/1_1.png", "well/2_2.png"], ["1", "1", "1", "2"]),
        (["ill/img_p1_pat7.png", "well/img_p2_pat7.png", "well/img_p2_pat8.png"], ["pat7", "pat7", "pat8"]),
    ],
)
def test_names_tell_whose_picture_is_whose(tmp_path: Path, names: list[str], patients: list[str]) -> None:
    found = propose(save(tmp_path, *names))
    assert (found.reader, found.options.one_image_per_patient, found.size) == ("folder", False, 20)
    assert any("ill" in line and "well" in line for line in found.seen)
    made = import_images(tmp_path, tmp_path / "set", name="folder", settings=settings(found))
    assert sorted(made.cases["patient"]) == patients


def test_where_no_part_of_the_names_repeats_a_person_must_know(tmp_path: Path) -> None:
    found = propose(save(tmp_path, "ill/a.png", "ill/b.png", "well/c.png"))
    assert not found.options.one_image_per_patient
    assert "add --patient-pattern REGEX, or --one-image-per-patient" in found.confirm[0]
    stray = propose(save(tmp_path / "two", "patient1_1.png", "patient1_2.png", "patient2_1.png", "overview.png"))
    assert (stray.options.patient_pattern, stray.options.one_image_per_patient) == ("", False)
    with pytest.raises(ConfigError, match="whose picture is whose is not known"):
        import_images(tmp_path / "two", tmp_path / "set", name="folder", settings=settings(stray))


def test_masks_and_a_stray_colour_are_asked_about(tmp_path: Path) -> None:
    save(tmp_path, "ill/p1_a.png", "ill/p2_a.png", "well/p3_a.png")
    save(tmp_path, "ill/p1_a_mask.png", array=np.uint8([[0, 1], [4, 0]]).repeat(10, 0).repeat(10, 1))
    save(tmp_path, "well/p4_a.png", array=np.uint8(np.random.default_rng(0).integers(0, 255, (20, 20, 3))))
    found = propose(tmp_path)
    assert found.options.mask_labels == ("background=0", "label-1=1", "label-4=4")
    assert found.options.unmasked_is_background
    assert found.options.channels == ("gray",)
    assert len(found.confirm) == 4
    assert len(import_images(tmp_path, tmp_path / "set", name="folder", settings=settings(found))) == 4


@pytest.mark.parametrize(
    ("names", "columns", "patients"),
    [
        (
            [f"sub-{p}/ses-{s}/anat/sub-{p}_ses-{s}_{k}.nii.gz" for p in "ab" for s in "12" for k in ("T1w", "dseg")],
            ("patient", "t1w", "mask"),
            ["sub-a", "sub-a", "sub-b", "sub-b"],
        ),
        (
            ["imagesTr/LIVER_1_0000.nii.gz", "imagesTr/LIVER_2_0000.nii.gz", "labelsTr/LIVER_1.nii.gz"],
            ("patient", "0000", "mask"),
            ["LIVER_1", "LIVER_2"],
        ),
        (
            ["anna/ct.nrrd", "anna/segmentation.nrrd", "bert/ct.nrrd"],
            ("patient", "ct", "mask"),
            ["anna", "bert"],
        ),
    ],
)
def test_volumes_become_a_table(
    tmp_path: Path, names: list[str], columns: tuple[str, ...], patients: list[str]
) -> None:
    found = propose(save(tmp_path / "scans", *names))
    assert found.table is not None
    assert found.table.columns == columns
    assert [row["patient"] for row in found.table.rows] == patients
    (tmp_path / "table.csv").write_text(found.table.text(tmp_path))
    listed = ImportSettings(size=8, options=found.options)
    if all("mask" in row for row in found.table.rows):
        made = import_images(tmp_path / "table.csv", tmp_path / "set", name="volumes", settings=listed)
        assert set(made.cases["patient"]) == set(patients)


def test_two_files_of_one_kind_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"would both be 'ct' of the patient 'p1'.*by hand"):
        propose(save(tmp_path, "p1_ct.nii", "p1_ct.nrrd", "p2_ct.nii"))


def test_headers_tell_the_patient_of_a_series(tmp_path: Path) -> None:
    for k, patient in enumerate(("MRN7", "MRN9")):
        image = SimpleITK.GetImageFromArray(np.ones((1, 4, 4), np.int16))
        for key, value in {"0010|0020": patient, "0008|0060": "CT"}.items():
            image.SetMetaData(key, value)
        (tmp_path / f"series{k}").mkdir()
        (tmp_path / f"series{k}" / ".DS_Store").touch()
        (tmp_path / f"series{k}" / "0-notes.txt").touch()
        SimpleITK.WriteImage(image, str(tmp_path / f"series{k}" / "1.dcm"))
    found = propose(tmp_path)
    assert found.table is not None
    assert [row["patient"] for row in found.table.rows] == ["MRN7", "MRN9"]
    assert found.table.columns == ("patient", "ct")


def test_what_would_stop_a_look_is_told_instead(tmp_path: Path) -> None:
    save(tmp_path, "p1_a.png", "p2_a.png")
    (tmp_path / "p1_a_mask.png").write_bytes(b"no picture")
    (tmp_path / "p3_a.png").write_bytes(b"no picture")
    found = propose(tmp_path)
    assert any("--skip-corrupt leaves such pictures out" in line for line in found.confirm)
    assert found.size == 20


def test_a_scanner_s_window_is_declared_in_the_command(tmp_path: Path) -> None:
    save(tmp_path, "p1_a.png", "p2_a.png", array=GREY.astype(np.uint16) * 12)
    found = propose(tmp_path)
    assert "window:0,4095" in found.arguments(tmp_path, "set")


def test_what_no_reader_knows_is_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(SourceError, match=r"no images that a reader knows; there is 1 \.txt"):
        propose(tmp_path)


def settings(found: Proposal) -> ImportSettings:
    return ImportSettings(size=found.size, options=found.options)
