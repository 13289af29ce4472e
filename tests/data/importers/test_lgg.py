"""The LGG reader: patients, institutions, grades and missing sequences, from small folders of the same naming."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedsynth.data import ImageSet
from fedsynth.data.importers import ReadOptions
from fedsynth.data.importers.lgg import plan
from fedsynth.data.importers.pipeline import ImportSettings, import_images
from fedsynth.data.importers.source import Raw, Source
from fedsynth.errors import FedSynthError, SourceError

DATA = Path(os.environ.get("FEDSYNTH_DATA", Path(__file__).parents[4] / "shared/data")) / "lgg"
TABLE = "Patient,RNASeqCluster,neoplasm_histologic_grade\nTCGA_CS_1,1,1\nTCGA_HT_2,,2\nTCGA_EZ_3,,\n"


def write_patient(root: Path, folder: str, slices: int = 12, copies: tuple[int, ...] = (), seed: int = 0) -> Path:
    """A folder as published; `copies` are the channels that repeat FLAIR."""
    rng = np.random.default_rng(seed)
    (root / folder).mkdir(parents=True)
    for number in range(1, slices + 1):
        image = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        image[..., list(copies)] = image[..., [1]]
        image[0, 0] = number
        mask = np.zeros((8, 8), np.uint8)
        mask[2:4, 2:4] = 255 * (number % 2)
        Image.fromarray(image).save(root / folder / f"{folder}_{number}.tif")
        Image.fromarray(mask).save(root / folder / f"{folder}_{number}_mask.tif")
    return root / folder


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    root = tmp_path / "lgg/kaggle_3m"
    write_patient(root, "TCGA_CS_1_19990101")
    write_patient(root, "TCGA_HT_2_20000202", slices=3, copies=(2,), seed=1)
    write_patient(root, "TCGA_EZ_3_20000303", slices=2, copies=(0, 2), seed=2)
    (root / "data.csv").write_text(TABLE)
    (root / "README.md").write_text("About these data")
    return root


def decoded(source: Source) -> list[Raw]:
    raws = list(source.decode())
    assert all(isinstance(raw, Raw) for raw in raws)
    return raws  # type: ignore[return-value]


def test_patient_institution_and_grade(kaggle: Path) -> None:
    made = plan(kaggle, ReadOptions())
    found = {(source.patient, source.site, source.label) for source in made.sources}
    assert found == {("TCGA_CS_1", "CS", "grade-2"), ("TCGA_HT_2", "HT", "grade-3"), ("TCGA_EZ_3", "EZ", "")}
    assert made.channels == ("t1", "flair", "t1ce")
    assert made.classes == ("grade-2", "grade-3")


def test_the_folder_above_does_as_well(kaggle: Path) -> None:
    names = [source.file.name for source in plan(kaggle, ReadOptions()).sources]
    assert [source.file.name for source in plan(kaggle.parent, ReadOptions()).sources] == names


def test_slices_are_in_the_order_of_their_numbers(kaggle: Path) -> None:
    raws = decoded(plan(kaggle, ReadOptions()).sources[0])
    assert [raw.slice for raw in raws] == list(range(1, 13))
    assert [raw.image[0, 0, 0] for raw in raws] == list(range(1, 13))
    assert raws[9].case == "TCGA_CS_1_19990101_10"


def test_the_mask_is_zero_and_one(kaggle: Path) -> None:
    raw = decoded(plan(kaggle, ReadOptions()).sources[0])[0]
    assert raw.mask is not None
    assert (raw.mask.sum(), raw.mask[2, 2], raw.mask.max()) == (4, 1, 1)


def test_copies_of_flair_are_found_in_the_data(kaggle: Path) -> None:
    missing = {source.patient: decoded(source)[0].missing for source in plan(kaggle, ReadOptions()).sources}
    assert missing == {"TCGA_CS_1": (), "TCGA_HT_2": ("t1ce",), "TCGA_EZ_3": ("t1", "t1ce")}


def test_one_equal_slice_is_no_missing_sequence(kaggle: Path) -> None:
    folder = kaggle / "TCGA_CS_1_19990101"
    image = np.asarray(Image.open(folder / f"{folder.name}_3.tif")).copy()
    image[..., 2] = image[..., 1]
    Image.fromarray(image).save(folder / f"{folder.name}_3.tif")
    assert all(raw.missing == () for raw in decoded(plan(kaggle, ReadOptions()).sources[0]))


def test_chosen_channels_come_in_their_order(kaggle: Path) -> None:
    whole, chosen = plan(kaggle, ReadOptions()), plan(kaggle, ReadOptions(channels=("t1ce", "flair")))
    assert chosen.channels == ("t1ce", "flair")
    assert np.array_equal(decoded(chosen.sources[0])[0].image, decoded(whole.sources[0])[0].image[[2, 1]])
    assert [decoded(source)[0].missing for source in chosen.sources] == [(), ("t1ce",), ("t1ce",)]
    assert not any(decoded(source)[0].missing for source in plan(kaggle, ReadOptions(channels=("flair",))).sources)


def test_no_table_no_classes(kaggle: Path) -> None:
    (kaggle / "data.csv").unlink()
    made = plan(kaggle, ReadOptions())
    assert made.classes == ()
    assert {source.label for source in made.sources} == {""}


@pytest.mark.parametrize(
    ("row", "message"),
    [("TCGA_CS_1,1,4", r"data\.csv: row 5: unknown grade \(found '4'\)"), ("TCGA_CS_1,1,2", "row 5: .* two grades")],
)
def test_a_strange_grade_is_named(kaggle: Path, row: str, message: str) -> None:
    (kaggle / "data.csv").write_text(TABLE + row + "\n")
    with pytest.raises(FedSynthError, match=message):
        plan(kaggle, ReadOptions())


def test_two_scans_of_one_patient_are_one_patient(kaggle: Path) -> None:
    write_patient(kaggle, "TCGA_CS_1_20010101", slices=1)
    sources = plan(kaggle, ReadOptions()).sources
    assert Counter(source.patient for source in sources)["TCGA_CS_1"] == 2
    assert len({raw.case for source in sources for raw in decoded(source)}) == 12 + 1 + 3 + 2


def test_a_missing_mask_is_named(kaggle: Path) -> None:
    (kaggle / "TCGA_HT_2_20000202/TCGA_HT_2_20000202_2_mask.tif").unlink()
    problems = [str(problem) for source in plan(kaggle, ReadOptions()).sources for problem in source.problems]
    assert len(problems) == 1
    assert "TCGA_HT_2_20000202_2.tif: the mask of this slice is missing" in problems[0]


def test_a_missing_slice_is_named(kaggle: Path) -> None:
    (kaggle / "TCGA_HT_2_20000202/TCGA_HT_2_20000202_2.tif").unlink()
    problems = [str(problem) for source in plan(kaggle, ReadOptions()).sources for problem in source.problems]
    assert "TCGA_HT_2_20000202_2_mask.tif: the slice of this mask is missing" in problems[0]


def spoil(file: Path, how: str) -> None:
    if how == "truncated":
        file.write_bytes(file.read_bytes()[:120])
    elif how == "text":
        file.write_text("this is no picture")
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "small":
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(file)
    elif how == "label":
        Image.fromarray(np.full((8, 8), 128, np.uint8)).save(file)


@pytest.mark.parametrize(
    ("which", "how", "message"),
    [
        ("", "truncated", r"_5\.tif: is no readable picture"),
        ("", "text", r"_5\.tif: is no readable picture"),
        ("", "empty", r"_5\.tif: is no readable picture"),
        ("", "small", r"_5\.tif: the picture must have three channels \(found 1\)"),
        ("_mask", "truncated", r"_5_mask\.tif: is no readable picture"),
        ("_mask", "small", r"_5_mask\.tif: the mask must be .*8.* like its picture \(found \(1, 4, 4\)\)"),
        ("_mask", "label", r"_5_mask\.tif: the mask has an unknown label \(found 128\)"),
    ],
)
def test_a_bad_file_is_named_and_can_be_left_out(
    kaggle: Path, tmp_path: Path, which: str, how: str, message: str
) -> None:
    spoil(kaggle / f"TCGA_CS_1_19990101/TCGA_CS_1_19990101_5{which}.tif", how)
    with pytest.raises(SourceError, match=message) as raised:
        import_images(kaggle, tmp_path / "set", name="lgg", settings=ImportSettings(size=8))
    assert "\n" not in str(raised.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lgg"]
    settings = ImportSettings(size=8, skip_corrupt=True)
    made = import_images(kaggle, tmp_path / "set", name="lgg", settings=settings)
    assert len(made) == 16
    assert "TCGA_CS_1_19990101_5" not in set(made.cases["case"])
    assert made.header.provenance["left-out"] == [str(raised.value)]


def test_pictures_in_a_folder_without_barcode_are_not_passed_over(kaggle: Path) -> None:
    (kaggle / "TCGA_CS_1_19990101").rename(kaggle / "patient one")
    with pytest.raises(SourceError, match="patient one: the folder's name does not tell patient and institution"):
        plan(kaggle, ReadOptions())


def test_a_patient_without_sequence_can_be_left_out(kaggle: Path, tmp_path: Path) -> None:
    kept = import_images(kaggle, tmp_path / "kept", name="lgg", settings=ImportSettings(size=8))
    told = {"t1": ["TCGA_EZ_3"], "t1ce": ["TCGA_EZ_3", "TCGA_HT_2"]}
    assert kept.header.provenance["missing-sequences-of"] == told
    settings = ImportSettings(size=8, missing="leave-out")
    rest = import_images(kaggle, tmp_path / "rest", name="lgg", settings=settings)
    assert set(rest.cases["patient"]) == {"TCGA_CS_1"}
    assert len(rest.header.provenance["left-out"]) == 2


ONE_OF_EACH = ("CS_4941", "CS_6669", "DU_5849", "FG_7634", "FG_A60K")
"""Patients of every institution, those who lack a sequence among them."""


@pytest.fixture(scope="module", params=["some", pytest.param("all", marks=pytest.mark.slow)])
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not DATA.is_dir():
        pytest.skip("the LGG data are not here")
    if request.param == "all":
        return DATA
    folder = tmp_path_factory.mktemp("some")
    for file in (DATA / "kaggle_3m").rglob("*.*"):
        if file.suffix == ".csv" or any(name in file.parent.name for name in ONE_OF_EACH):
            link = folder / file.relative_to(DATA / "kaggle_3m")
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(file)
    return folder


@pytest.fixture(scope="module")
def real(published: Path, tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    out = tmp_path_factory.mktemp("lgg") / "set"
    return import_images(published, out, name="lgg", settings=ImportSettings(size=64))


def test_the_published_patients_equal_an_independent_decode(published: Path, real: ImageSet) -> None:
    """Decoded by another library, averaged over 4 x 4 blocks: files, sites, voxels and masks must agree."""
    import SimpleITK

    files = sorted(path for path in published.rglob("*.tif") if not path.stem.endswith("_mask"))
    assert sorted(real.cases["case"]) == sorted(path.stem for path in files)
    assert Counter(real.cases["site"]) == Counter(path.parent.name.split("_")[1] for path in files)
    assert Counter(real.cases["patient"]) == Counter("_".join(path.parent.name.split("_")[:3]) for path in files)
    row_of = {case: row for row, case in enumerate(real.cases["case"])}
    for path in files[::7]:
        row = row_of[path.stem]
        image = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))).reshape(256, 256, 3)
        mask = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path.with_name(path.stem + "_mask.tif"))))
        blocks = image.reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
        assert np.abs(np.moveaxis(blocks, -1, 0) - real.images[row]).max() <= 0.5001
        share = (mask.reshape(64, 4, 64, 4) > 0).mean(axis=(1, 3))
        assert real.masks is not None
        made = np.asarray(real.masks[row])
        assert made[share > 0.5].all()
        assert not made[share == 0].any()
        assert made.any() == mask.any()


def test_the_published_patients_lack_what_their_readme_says(published: Path, real: ImageSet) -> None:
    told = {"t1": ["TCGA_FG_A60K"], "t1ce": ["TCGA_FG_7634", "TCGA_FG_A60K"]}
    assert real.header.provenance["missing-sequences-of"] == told
    some = published != DATA
    assert Counter(real.patients["site"]) == ({"CS": 2, "FG": 2, "DU": 1} if some else {"CS": 16, "FG": 14, "DU": 10})
    assert real.cases["class"].ne("").all()
