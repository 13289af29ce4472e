"""The BraTS reader: every year's naming, labels by name, orientation, spacing, and what must be refused."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from fedsynth.data.importers import ReadOptions
from fedsynth.data.importers.brats import find_cases, patient_of, plan, site_of
from fedsynth.data.importers.pipeline import ImportSettings, import_images
from fedsynth.data.importers.source import Raw
from fedsynth.data.preprocessing import Slicing

DATA = Path(os.environ.get("FEDSYNTH_DATA", Path(__file__).parents[4] / "shared/data")) / "brats_nifti"
SHAPE = (6, 7, 8)
AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])
BACKGROUND, EDEMA, CORE, ENHANCING = range(4)


def write_nifti(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)


def write_metaimage(path: Path, voxels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels.transpose()), str(path))


def labels(*numbers: int) -> np.ndarray:
    """Label `numbers[i]` at voxel (1, 2, i + 1) of the file."""
    mask = np.zeros(SHAPE, np.int16)
    mask[1, 2, 1 : 1 + len(numbers)] = numbers
    return mask


def scan(seed: int) -> np.ndarray:
    image = np.zeros(SHAPE, np.int16)
    image[1:5, 1:6, 1:7] = np.random.default_rng(seed).integers(1, 1000, (4, 5, 6))
    return image


@dataclass(frozen=True)
class Year:
    """How one year names a case: file of each sequence and of the mask, the mask's numbers, what is expected."""

    folder: str
    files: dict[str, str]
    numbers: tuple[int, ...]
    patient: str
    site: str
    label: str = ""
    others: dict[str, str] = field(default_factory=dict)


def suffixed(folder: str, words: tuple[str, ...], kind: str = ".nii.gz", between: str = "_") -> dict[str, str]:
    name = Path(folder).name
    kinds = ("flair", "t1", "t1ce", "t2", "mask")
    return {of: f"{name}{between}{word}{kind}" for of, word in zip(kinds, words, strict=True)}


WORDS = ("flair", "t1", "t1ce", "t2", "seg")
YEARS = {
    "2015": Year(
        "HGG/brats_tcia_pat105_0283",
        {
            of: f"VSD.Brain.XX.O.{word}.{n}/VSD.Brain.XX.O.{word}.{n}.mha"
            for n, (of, word) in enumerate(
                [("flair", "MR_Flair"), ("t1", "MR_T1"), ("t1ce", "MR_T1c"), ("t2", "MR_T2")], start=35800
            )
        }
        | {"mask": "VSD.Brain_3more.XX.O.OT.42283/VSD.Brain_3more.XX.O.OT.42283.mha"},
        (1, 2, 3, 4),
        "brats_tcia_pat105",
        "tcia",
        "high-grade",
    ),
    "2015 converted": Year(
        "train/brats_2013_pat0005_1",
        {"flair": "Flair_subtrMeanDivStd.nii.gz", "t1ce": "T1c_subtrMeanDivStd.nii.gz", "mask": "OTMultiClass.nii.gz"},
        (1, 2, 3, 4),
        "brats_2013_pat0005",
        "2013",
        others={"brainmask.nii.gz": "brainmask"},
    ),
    "2018": Year(
        "LGG/Brats18_TCIA10_241_1",
        suffixed("Brats18_TCIA10_241_1", WORDS),
        (1, 2, 4),
        "Brats18_TCIA10_241",
        "TCIA10",
        "low-grade",
    ),
    "2019": Year(
        "HGG/BraTS19_CBICA_AAB_1",
        suffixed("BraTS19_CBICA_AAB_1", WORDS),
        (1, 2, 4),
        "BraTS19_CBICA_AAB",
        "CBICA",
        "high-grade",
    ),
    "2020": Year(
        "MICCAI_BraTS2020_TrainingData/BraTS20_Training_001",
        suffixed("BraTS20_Training_001", WORDS, kind=".nii"),
        (1, 2, 4),
        "BraTS20_Training_001",
        "brats",
    ),
    "2021": Year(
        "BraTS2021_00000", suffixed("BraTS2021_00000", WORDS), (1, 2, 4), "BraTS2021_00000", "brats"
    ),
    "2023": Year(
        "BraTS-GLI-00000-000",
        suffixed("BraTS-GLI-00000-000", ("t2f", "t1n", "t1c", "t2w", "seg"), between="-"),
        (1, 2, 3),
        "BraTS-GLI-00000",
        "brats",
    ),
}  # fmt: skip
EXPECTED = {
    (1, 2, 3, 4): [CORE, EDEMA, CORE, ENHANCING],
    (1, 2, 4): [CORE, EDEMA, ENHANCING],
    (1, 2, 3): [CORE, EDEMA, ENHANCING],
}


def write_case(root: Path, year: Year) -> Path:
    for seed, (of, name) in enumerate(year.files.items()):
        voxels = labels(*year.numbers) if of == "mask" else scan(seed)
        file = root / year.folder / name
        (write_metaimage if file.suffix == ".mha" else write_nifti)(file, voxels)
    for name in year.others:
        write_nifti(root / year.folder / name, labels(1))
    return root / year.folder


def only_raw(root: Path, **options: object) -> Raw:
    [source] = plan(root, ReadOptions(**options)).sources  # type: ignore[arg-type]
    [raw] = source.decode()
    assert isinstance(raw, Raw)
    return raw


@pytest.mark.parametrize("name", YEARS)
def test_every_years_naming(tmp_path: Path, name: str) -> None:
    year = YEARS[name]
    write_case(tmp_path, year)
    made = plan(tmp_path, ReadOptions())
    [source] = made.sources
    assert (source.patient, source.site, source.label, source.problems) == (year.patient, year.site, year.label, ())
    assert made.mask_labels == ("background", "edema", "core", "enhancing")
    assert made.channels == tuple(name for name in ("t1", "t1ce", "t2", "flair") if name in year.files)
    raw = only_raw(tmp_path)
    assert raw.case == Path(year.folder).name
    order = [list(year.files).index(channel) for channel in made.channels]
    for channel, seed in zip(raw.image, order, strict=True):
        assert np.array_equal(channel, scan(seed)[::-1, ::-1])
    expected = EXPECTED[year.numbers]
    assert raw.mask is not None
    assert raw.mask[SHAPE[0] - 2, SHAPE[1] - 3, 1 : 1 + len(expected)].tolist() == expected
    assert np.count_nonzero(raw.mask) == len(expected)


def test_grade_and_hospital_from_the_name_mapping_of_2020(tmp_path: Path) -> None:
    write_case(tmp_path, YEARS["2020"])
    (tmp_path / "name_mapping.csv").write_text(
        "Grade,BraTS_2017_subject_ID,BraTS_2018_subject_ID,TCGA_TCIA_subject_ID,BraTS_2019_subject_ID,BraTS_2020_subject_ID\n"
        "HGG,Brats17_CBICA_AAB_1,Brats18_CBICA_AAB_1,NA,BraTS19_CBICA_AAB_1,BraTS20_Training_001\n"
    )
    made = plan(tmp_path, ReadOptions())
    assert [(source.site, source.label) for source in made.sources] == [("CBICA", "high-grade")]
    assert made.classes == ("low-grade", "high-grade")


def test_a_folder_named_hgg_as_the_source_itself(tmp_path: Path) -> None:
    write_case(tmp_path, YEARS["2019"])
    assert plan(tmp_path / "HGG", ReadOptions()).sources[0].label == "high-grade"


def test_two_time_points_are_one_patient(tmp_path: Path) -> None:
    for point in ("000", "001"):
        name = f"BraTS-GLI-00007-{point}"
        write_case(tmp_path, Year(name, suffixed(name, ("t2f", "t1n", "t1c", "t2w", "seg"), between="-"), (1,), "", ""))
    made = import_images(
        tmp_path, tmp_path / "set", name="brats", settings=ImportSettings(size=8, options=ReadOptions(dimensions=3))
    )
    assert made.cases["patient"].tolist() == ["BraTS-GLI-00007"] * 2
    assert made.cases["role"].nunique() == 1


@pytest.mark.parametrize(
    ("name", "patient", "site"),
    [
        ("brats_2013_pat0005_1", "brats_2013_pat0005", "2013"),
        ("brats_tcia_pat165_0009", "brats_tcia_pat165", "tcia"),
        ("Brats17_TCIA_605_1", "Brats17_TCIA_605", "TCIA"),
        ("Brats18_2013_2_1", "Brats18_2013_2", "2013"),
        ("Brats18_CBICA_AAM_1", "Brats18_CBICA_AAM", "CBICA"),
        ("BraTS20_Validation_012", "BraTS20_Validation_012", ""),
        ("BraTS2021_01234", "BraTS2021_01234", ""),
        ("BraTS-MEN-00004-001", "BraTS-MEN-00004", ""),
        ("my_own_case_1", "my_own_case_1", ""),
    ],
)
def test_patient_and_hospital_in_the_name(name: str, patient: str, site: str) -> None:
    assert (patient_of(name), site_of(name)) == (patient, site)


def test_many_cases_in_one_folder_are_distinguished(tmp_path: Path) -> None:
    for name in ("BraTS2021_00001", "BraTS2021_00002"):
        write_case(tmp_path, Year("all/x", suffixed(name, WORDS), (1, 2, 4), "", ""))
    assert [case.name for case in find_cases(tmp_path)] == ["BraTS2021_00001", "BraTS2021_00002"]


def test_the_oddly_named_mask_of_2020(tmp_path: Path) -> None:
    folder = write_case(tmp_path, YEARS["2020"])
    (folder / YEARS["2020"].files["mask"]).rename(folder / "W39_1998.09.19_Segm.nii")
    raw = only_raw(tmp_path)
    assert raw.case == "BraTS20_Training_001"
    assert raw.mask is not None
    assert raw.mask.any()


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "PIR", "SRA"])
def test_orientation_is_canonical_whatever_the_file_has(tmp_path: Path, axes: str) -> None:
    name, spacing = "BraTS2021_00000", (1.0, 2.0, 1.5)
    image = np.zeros((6, 5, 4), np.float32)
    image[4, 3, 1] = 1
    turn = nibabel.orientations.axcodes2ornt(axes)
    turn = nibabel.orientations.ornt_transform(nibabel.orientations.axcodes2ornt("RAS"), turn)
    stored = nibabel.Nifti1Image(image, np.diag([*spacing, 1])).as_reoriented(turn)
    assert nibabel.aff2axcodes(stored.affine) == tuple(axes)
    (tmp_path / name).mkdir()
    nibabel.save(stored, tmp_path / name / f"{name}_t1.nii.gz")
    raw = only_raw(tmp_path)
    assert np.array_equal(raw.image[0], image)
    assert raw.spacing_mm == pytest.approx(spacing)


def test_axial_slices_have_the_front_on_top(tmp_path: Path) -> None:
    name = "BraTS2021_00000"
    image = np.zeros((10, 10, 10), np.float32)
    image[5, 8, 5] = 100  # in RAS: the front, a little to the right
    image[8, 5, 5] = 50  # the patient's right
    write_nifti(tmp_path / name / f"{name}_t1.nii.gz", image, np.eye(4))
    settings = ImportSettings(size=10, intensity="window:0,100")
    made = import_images(tmp_path, tmp_path / "set", name="brats", settings=settings)
    assert made.cases["slice"].tolist() == ["5"]
    assert np.argwhere(made.images[0][0] == 255).tolist() == [[1, 5]]
    assert np.argwhere(made.images[0][0] == 128).tolist() == [[4, 8]]


def test_thick_slices_in_three_dimensions(tmp_path: Path) -> None:
    name = "BraTS2021_00000"
    image = np.arange(256, dtype=np.uint8).reshape(8, 8, 4) // 4 + 190
    # corners that differ: there is no background to pad with, so padding is black
    write_nifti(tmp_path / name / f"{name}_t1.nii.gz", image, np.diag([1.0, 1.0, 4.0, 1.0]))
    settings = ImportSettings(size=8, intensity="window:0,255", options=ReadOptions(dimensions=3))
    made = import_images(tmp_path, tmp_path / "set", name="brats", settings=settings)
    assert made.header.spacing_mm == (2.0, 2.0, 2.0)
    assert (np.asarray(made.images[0][0]) > 180).sum() == 4 * 4 * 8
    assert (np.asarray(made.images[0][0]) == 0).sum() == 8**3 - 4 * 4 * 8
    flat = import_images(tmp_path, tmp_path / "2", name="brats", settings=ImportSettings(size=8))
    assert flat.header.spacing_mm == (1.0, 1.0)
    assert len(flat) == 4


@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_published_cases_equal_an_independent_decode(tmp_path: Path, dimensions: int) -> None:
    """Read by SimpleITK, turned by hand: the labels' volumes, the place of the tumour and the spacing must agree."""
    if not DATA.is_dir():
        pytest.skip("the BraTS data are not here")
    settings = ImportSettings(
        size=120,
        options=ReadOptions(dimensions=dimensions),
        slicing=Slicing(keep="tumour") if dimensions == 2 else Slicing(),
        workers=2,  # type: ignore[arg-type]
    )
    made = import_images(DATA, tmp_path / "set", name="brats", settings=settings)
    assert made.header.spacing_mm == (2.0,) * dimensions
    assert made.masks is not None
    for file in sorted(DATA.rglob("OTMultiClass.nii.gz")):
        lps = SimpleITK.GetArrayFromImage(SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(file)), "LPS"))
        ras = lps[:, ::-1, ::-1].transpose(2, 1, 0)
        mapped = np.array([BACKGROUND, CORE, EDEMA, CORE, ENHANCING])[ras.astype(int)]
        rows = np.flatnonzero(made.cases["patient"] == file.parent.name[:-2])
        if dimensions == 2:
            tumour = np.flatnonzero(mapped.any(axis=(0, 1)))
            assert made.cases["slice"].iloc[rows].astype(int).tolist() == tumour.tolist()
            upright = mapped[:, ::-1, tumour].transpose(2, 1, 0)
            back = np.asarray(made.masks[rows]).repeat(2, axis=1).repeat(2, axis=2)
        else:
            upright, back = np.pad(mapped, ((0, 0), (0, 0), (42, 43))), np.asarray(made.masks[rows])[0]
            back = back.repeat(2, axis=0).repeat(2, axis=1).repeat(2, axis=2)
        for label in (EDEMA, CORE, ENHANCING):
            truth, found = upright == label, back == label
            assert 2 * (truth & found).sum() / (truth.sum() + found.sum()) > 0.8
