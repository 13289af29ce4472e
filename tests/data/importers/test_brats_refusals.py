"""What the BraTS reader refuses: sequences and masks that are missing or twice, damaged files, labels of other sets."""

from pathlib import Path

import numpy as np
import pytest

from fedsynth.data.importers import ReadOptions
from fedsynth.data.importers.brats import plan
from fedsynth.data.importers.pipeline import ImportSettings, import_images
from fedsynth.errors import ConfigError, SourceError
from tests.data.importers.test_brats import (
    AFFINE,
    BACKGROUND,
    CORE,
    EDEMA,
    ENHANCING,
    SHAPE,
    YEARS,
    labels,
    only_raw,
    scan,
    write_case,
    write_nifti,
)


def test_a_missing_sequence_says_how_to_go_on(tmp_path: Path) -> None:
    write_case(tmp_path, YEARS["2018"])
    folder = write_case(tmp_path, YEARS["2019"])
    (folder / YEARS["2019"].files["t2"]).unlink()
    with pytest.raises(
        SourceError, match=r"BraTS19_CBICA_AAB_1: the modality 't2' .* missing.*--channels t1,t1ce,flair"
    ):
        import_images(tmp_path, tmp_path / "set", name="brats", settings=ImportSettings(size=8))
    settings = ImportSettings(size=8, options=ReadOptions(channels=("t1", "flair")))
    assert len(import_images(tmp_path, tmp_path / "set", name="brats", settings=settings).patients) == 2
    skipping = ImportSettings(size=8, skip_corrupt=True)
    rest = import_images(tmp_path, tmp_path / "rest", name="brats", settings=skipping)
    assert rest.patients["patient"].tolist() == ["Brats18_TCIA10_241"]


def test_a_sequence_that_no_case_has(tmp_path: Path) -> None:
    write_case(tmp_path, YEARS["2015 converted"])
    with pytest.raises(SourceError, match="no case has the modality 't1'; there are: t1ce, flair"):
        plan(tmp_path, ReadOptions(channels=("t1",)))
    with pytest.raises(ConfigError, match=r"unknown channel .*did you mean 'flair'"):
        plan(tmp_path, ReadOptions(channels=("flare",)))


def test_a_missing_mask_is_an_error_only_where_others_have_one(tmp_path: Path) -> None:
    folder = write_case(tmp_path, YEARS["2018"])
    (folder / YEARS["2018"].files["mask"]).unlink()
    assert plan(tmp_path, ReadOptions()).mask_labels == ()
    write_case(tmp_path, YEARS["2019"])
    problems = [str(problem) for source in plan(tmp_path, ReadOptions()).sources for problem in source.problems]
    assert len(problems) == 1
    assert "Brats18_TCIA10_241_1: the mask of case" in problems[0]


def test_a_sequence_that_stands_twice(tmp_path: Path) -> None:
    folder = write_case(tmp_path, YEARS["2018"])
    write_nifti(folder / "Brats18_TCIA10_241_1_t1.nii", scan(0))
    [source] = plan(tmp_path, ReadOptions()).sources
    assert "several files for 't1'" in str(source.problems[0])


def spoil(file: Path, how: str) -> None:
    if how == "shape":
        write_nifti(file, np.zeros((6, 7, 9), np.int16))
    elif how == "place":
        moved = AFFINE.copy()
        moved[0, 3] = 0.4
        write_nifti(file, labels(1), moved)
    elif how == "4-D":
        write_nifti(file, np.zeros((*SHAPE, 2), np.int16))
    elif how == "text":
        file.write_text("no volume")
    elif how == "truncated":
        file.write_bytes(file.read_bytes()[:-40])
    elif how in ("nan", "inf"):
        image = scan(0).astype(np.float32)
        image[2, 2, 2] = float(how)
        write_nifti(file, image)
    elif how == "label":
        write_nifti(file, labels(3))


@pytest.mark.parametrize(
    ("of", "how", "message"),
    [
        ("mask", "shape", r"_seg\.nii\.gz: .*\(found \(6, 7, 9\)\)"),
        ("mask", "place", r"_seg\.nii\.gz: lies on another grid"),
        ("t2", "place", r"_t2\.nii\.gz: lies on another grid"),
        ("t1", "4-D", r"_t1\.nii\.gz: .*4.*\(found \(6, 7, 8, 2\)\)"),
        ("t1", "text", r"_t1\.nii\.gz: "),
        ("flair", "truncated", r"_flair\.nii\.gz: "),
        ("t1ce", "nan", r"_t1ce\.nii\.gz: .*not finite.*\(found nan\)"),
        ("t1ce", "inf", r"_t1ce\.nii\.gz: .*not finite.*\(found inf\)"),
        ("mask", "label", r"_seg\.nii\.gz: the mask has an unknown label \(found 3\); known labels: 0, 1, 2, 4"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, of: str, how: str, message: str) -> None:
    folder = write_case(tmp_path / "source", YEARS["2018"])
    write_case(tmp_path / "source", YEARS["2019"])
    spoil(folder / YEARS["2018"].files[of], how)
    with pytest.raises(SourceError, match=message) as raised:
        import_images(tmp_path / "source", tmp_path / "set", name="brats", settings=ImportSettings(size=8))
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    settings = ImportSettings(size=8, skip_corrupt=True)
    made = import_images(tmp_path / "source", tmp_path / "set", name="brats", settings=settings)
    assert made.patients["patient"].tolist() == ["BraTS19_CBICA_AAB"]
    assert made.header.provenance["left-out"] == [str(raised.value)]


@pytest.mark.parametrize("name", ["BraTS-PED-00001-000", "BraTS-MEN-RT-0000-1"])
def test_sets_with_labels_of_their_own_are_refused_not_misread(tmp_path: Path, name: str) -> None:
    write_nifti(tmp_path / name / f"{name}-t1c.nii.gz", scan(0))
    with pytest.raises(SourceError, match="has labels of its own and is not read"):
        plan(tmp_path, ReadOptions())


def test_a_resection_cavity_is_named(tmp_path: Path) -> None:
    """The set of 2024 keeps the names and the numbers of 2023, but has a fourth label where there was surgery."""
    name = "BraTS-GLI-02000-100"
    write_nifti(tmp_path / name / f"{name}-t1c.nii.gz", scan(0))
    write_nifti(tmp_path / name / f"{name}-seg.nii.gz", labels(1, 2, 3))
    assert set(np.unique(only_raw(tmp_path).mask)) == {BACKGROUND, CORE, EDEMA, ENHANCING}
    write_nifti(tmp_path / name / f"{name}-seg.nii.gz", labels(1, 2, 3, 4))
    with pytest.raises(SourceError, match=r"-seg\.nii\.gz: the mask has a resection cavity.*background,core,edema"):
        only_raw(tmp_path)


def test_options_that_mean_nothing_here_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not take --patient-pattern"):
        plan(tmp_path, ReadOptions(patient_pattern="x"))
