"""The import itself, with pictures, volumes and tables written here: whole or nothing, flat memory, honest header."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import nibabel
import numpy as np
import pytest
from PIL import Image

from fedsynth.data import ImageSet, Shares
from fedsynth.data.importers import READERS, ReadOptions, reader
from fedsynth.data.importers.pipeline import ImportSettings, import_images
from fedsynth.data.importers.source import Plan, Raw, Source
from fedsynth.data.preprocessing import Slicing
from fedsynth.errors import ConfigError, FedSynthError, RefusedError, SourceError


def write_lgg(root: Path, patients: int = 6, slices: int = 3, size: int = 16) -> Path:
    for number in range(patients):
        rng = np.random.default_rng(number)
        name = f"TCGA_{['CS', 'HT'][number % 2]}_{number:04d}_20000101"
        (root / name).mkdir(parents=True)
        for index in range(slices):
            image = rng.integers(0, min(255, 40 * (number + 1)), (size, size, 3), dtype=np.uint8)
            mask = np.zeros((size, size), np.uint8)
            mask[3, 3:5] = 255 * (index != 1)
            Image.fromarray(image).save(root / name / f"{name}_{index}.tif")
            Image.fromarray(mask).save(root / name / f"{name}_{index}_mask.tif")
    return root


def write_brats(root: Path, name: str, spacing: tuple[float, ...] = (1.0, 1.0, 1.0), seed: int = 0) -> None:
    (root / name).mkdir(parents=True)
    image = np.zeros((8, 8, 8), np.float32)
    image[1:7, 1:7, 1:7] = np.random.default_rng(seed).random((6, 6, 6)) + 1 + seed
    mask = np.zeros((8, 8, 8), np.uint8)
    mask[2:4, 2:4, 2:4], mask[3, 3, 3], mask[4, 2, 2] = 1, 2, 4
    for word, voxels in (("t1", image), ("flair", 2 * image), ("seg", mask)):
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([*spacing, 1])), root / name / f"{name}_{word}.nii.gz")


def imported(source: Path, out: Path, name: str = "lgg", **settings: object) -> ImageSet:
    return import_images(source, out, name=name, settings=ImportSettings(**({"size": 8} | settings)))  # type: ignore[arg-type]


def test_an_import_is_an_image_set_with_roles(tmp_path: Path) -> None:
    made = imported(
        write_lgg(tmp_path / "lgg"), tmp_path / "set", seed=5, shares=Shares(member=0.5, holdout=0.5, reference=0)
    )
    read = ImageSet.load(tmp_path / "set")
    assert (len(read), read.size, read.images.dtype) == (18, (8, 8), np.uint8)
    assert read.header.origin == "real"
    assert read.header.split is not None
    assert (read.header.split.seed, read.header.split.shares.member) == (5, 0.5)
    assert read.patients["role"].value_counts().to_dict() == {"member": 3, "holdout": 3}
    assert read.cases["slice"].tolist()[:3] == ["0", "1", "2"]
    assert made.cases.equals(read.cases)


def test_rows_keep_the_order_of_the_source_whatever_the_threads(tmp_path: Path) -> None:
    source = write_lgg(tmp_path / "lgg")
    one, four = (imported(source, tmp_path / str(n), workers=n) for n in (1, 4))
    assert one.cases.equals(four.cases)
    assert np.array_equal(one.images, four.images)
    assert [path.read_bytes() for path in sorted((tmp_path / "1").glob("*.npy"))] == [
        path.read_bytes() for path in sorted((tmp_path / "4").glob("*.npy"))
    ]


def test_progress_counts_the_sources(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    settings = ImportSettings(size=8)
    import_images(
        write_lgg(tmp_path / "lgg"), tmp_path / "set", name="lgg", settings=settings,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert seen == [(done, 6) for done in range(1, 7)]


@pytest.mark.parametrize("intensity", ["percentile:1,99", "percentile:0,100", "window:0,255"])
def test_a_patients_picture_does_not_depend_on_other_patients(tmp_path: Path, intensity: str) -> None:
    source = write_lgg(tmp_path / "lgg")
    together = imported(source, tmp_path / "all", intensity=intensity)
    for folder in sorted(source.iterdir())[2:]:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    alone = imported(source, tmp_path / "two", intensity=intensity)
    assert np.array_equal(alone.images[:], together.images[: len(alone)])


def test_percentiles_are_per_volume_and_not_per_slice(tmp_path: Path) -> None:
    write_brats(tmp_path / "b", "BraTS2021_00000")
    flat = imported(tmp_path / "b", tmp_path / "2", "brats", intensity="percentile:0,100")
    solid = imported(
        tmp_path / "b", tmp_path / "3", "brats", intensity="percentile:0,100", options=ReadOptions(dimensions=3)
    )
    volume = np.asarray(solid.images[0])
    for row, number in enumerate(flat.cases["slice"].astype(int)):
        assert np.array_equal(flat.images[row], volume[..., number].swapaxes(1, 2)[:, ::-1])
        assert np.array_equal(np.asarray(flat.masks)[row], np.asarray(solid.masks)[0][..., number].T[::-1])


def test_labels_are_merged_on_the_way_in(tmp_path: Path) -> None:
    write_brats(tmp_path / "b", "BraTS2021_00000")
    plain = imported(tmp_path / "b", tmp_path / "plain", "brats")
    merged = imported(tmp_path / "b", tmp_path / "merged", "brats", labels="whole-tumour=edema,core,enhancing")
    assert plain.header.mask_labels == ("background", "edema", "core", "enhancing")
    assert merged.header.mask_labels == ("background", "whole-tumour")
    assert np.array_equal(np.asarray(merged.masks), np.asarray(plain.masks) > 0)


def test_dropped_labels_are_no_tumour_for_the_choice_of_slices(tmp_path: Path) -> None:
    write_brats(tmp_path / "b", "BraTS2021_00000")
    made = imported(
        tmp_path / "b", tmp_path / "set", "brats", labels="background=edema,core", slicing=Slicing(keep="tumour")
    )
    assert made.cases["slice"].tolist() == ["2"]


def test_differing_spacings_are_told_or_made_equal(tmp_path: Path) -> None:
    write_brats(tmp_path / "b", "BraTS2021_00000")
    write_brats(tmp_path / "b", "BraTS2021_00001", spacing=(2.0, 2.0, 1.0))
    write_brats(tmp_path / "b", "BraTS2021_00002", spacing=(2.0, 2.0, 1.0))
    made = imported(tmp_path / "b", tmp_path / "set", "brats")
    assert made.header.spacing_mm == (2.0, 2.0)
    told = made.header.provenance["spacing"]
    assert (told["smallest"], told["largest"], told["images-without"]) == (1.0, 2.0, 0)
    same = imported(tmp_path / "b", tmp_path / "same", "brats", spacing_mm=1.0)
    assert same.header.spacing_mm == (1.0, 1.0)
    assert same.header.provenance["spacing"] == "that of every image"
    assert "lesions-cut-off" not in same.header.provenance
    fine = imported(tmp_path / "b", tmp_path / "fine", "brats", spacing_mm=0.5)
    assert len(fine.header.provenance["lesions-cut-off"]) > 0


def test_unknown_spacing_is_told(tmp_path: Path) -> None:
    made = imported(write_lgg(tmp_path / "lgg"), tmp_path / "set")
    assert made.header.spacing_mm == (1.0, 1.0)
    assert "does not tell" in made.header.provenance["spacing"]


def test_slices_are_chosen(tmp_path: Path) -> None:
    source = write_lgg(tmp_path / "lgg")
    tumour = imported(source, tmp_path / "t", slicing=Slicing(keep="tumour"))
    assert set(tumour.cases["slice"]) == {"0", "2"}
    every = imported(source, tmp_path / "e", slicing=Slicing(every=2))
    assert set(every.cases["slice"]) == {"0", "2"}


def test_an_existing_output_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/thesis.tex").write_text("years of work")
    with pytest.raises(RefusedError, match="exists already"):
        imported(tmp_path / "no such source", tmp_path / "set", "no such reader")
    with pytest.raises(RefusedError, match="not replaced"):
        imported(write_lgg(tmp_path / "lgg"), tmp_path / "set", overwrite=True)
    assert (tmp_path / "set/thesis.tex").exists()


def test_an_old_set_stays_when_its_replacement_fails(tmp_path: Path) -> None:
    source = write_lgg(tmp_path / "lgg")
    old = imported(source, tmp_path / "set")
    [*_, last] = sorted(source.rglob("*_mask.tif"))
    last.write_text("broken")
    with pytest.raises(SourceError):
        imported(source, tmp_path / "set", overwrite=True, size=4)
    assert ImageSet.load(tmp_path / "set").size == old.size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lgg", "set"]


def test_one_corrupt_file_among_many_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    source = write_lgg(tmp_path / "lgg", patients=40, slices=5)
    broken = source / "TCGA_HT_0023_20000101/TCGA_HT_0023_20000101_3.tif"
    broken.write_bytes(broken.read_bytes()[:-30])
    with pytest.raises(SourceError, match=r"TCGA_HT_0023_20000101_3\.tif"):
        imported(source, tmp_path / "set")
    assert [path.name for path in tmp_path.iterdir()] == ["lgg"]
    made = imported(source, tmp_path / "set", skip_corrupt=True)
    assert len(made) == 199
    assert len(made.header.provenance["left-out"]) == 1
    assert broken.name in made.header.provenance["left-out"][0]


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    source = write_lgg(tmp_path / "lgg", patients=1, slices=1)
    next(source.rglob("*0.tif")).write_text("broken")
    with pytest.raises(SourceError, match=r"no image is left to write; the first: .*_0\.tif"):
        imported(source, tmp_path / "set", skip_corrupt=True)
    assert [path.name for path in tmp_path.iterdir()] == ["lgg"]


@pytest.mark.parametrize("name", sorted(READERS))
def test_every_reader_refuses_what_is_not_there_and_what_is_empty(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    options = ReadOptions(one_image_per_patient=True) if name in ("folder", "medmnist") else ReadOptions()
    for source in (tmp_path / "nothing", tmp_path / "empty"):
        with pytest.raises(FedSynthError, match=source.name) as raised:
            imported(source, tmp_path / "set", name, options=options)
        assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_an_unknown_reader_gets_the_nearest_spelling() -> None:
    with pytest.raises(ConfigError, match=r"unknown reader \(found 'brast'\); did you mean 'brats'"):
        reader("brast")


def test_a_case_that_stands_twice_is_refused(tmp_path: Path) -> None:
    write_brats(tmp_path / "b/HGG", "Brats18_CBICA_AAM_1")
    write_brats(tmp_path / "b/copy", "Brats18_CBICA_AAM_1")
    with pytest.raises(SourceError, match=r"the case stands twice, also in .*HGG/Brats18_CBICA_AAM_1"):
        imported(tmp_path / "b", tmp_path / "set", "brats", options=ReadOptions(dimensions=3))


def tiny_reader(monkeypatch: pytest.MonkeyPatch, *raws: Raw, **changes: object) -> None:
    """A reader added as an engineer would: a module with `plan`, and one line in the catalog."""

    def plan(source: Path, options: ReadOptions) -> Plan:
        known = {"patient": "p", "site": "s", "label": ""} | changes
        sources = [Source(**known, file=Path(raw.case), decode=lambda raw=raw: [raw]) for raw in raws]  # type: ignore[misc]
        if "sites" in options.channels:
            sources = [replace(one, site=f"s{i}") for i, one in enumerate(sources)]
        return Plan(channels=("a",), classes=(), mask_labels=("background", "x"), sources=sources, dimensions=2)

    module = ModuleType("tiny")
    module.plan = plan  # type: ignore[attr-defined]
    monkeypatch.setitem(READERS, "tiny", "for tests")
    monkeypatch.setitem(sys.modules, "fedsynth.data.importers.tiny", module)


def raw(case: str = "c", **changes: object) -> Raw:
    values = {
        "case": case,
        "image": np.arange(16.0).reshape(1, 4, 4),
        "mask": np.eye(4, dtype=np.uint8),
        "spacing_mm": None,
    }
    return Raw(**(values | changes))  # type: ignore[arg-type]


def test_a_reader_is_one_module_and_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tiny_reader(monkeypatch, raw("a"), raw("b"))
    made = imported(tmp_path, tmp_path / "set", "tiny", intensity="window:0,15", size=4)
    assert made.cases["case"].tolist() == ["a", "b"]
    assert np.array_equal(made.images[0][0], np.arange(16).reshape(4, 4) * 17)
    assert np.array_equal(np.asarray(made.masks)[1], np.eye(4))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image": np.full((1, 4, 4), np.nan)}, "c: a voxel is not a finite number in case 'c'"),
        ({"image": np.full((1, 4, 4), np.inf)}, "c: a voxel is not a finite number in case 'c'"),
        ({"image": np.zeros((2, 4, 4))}, r"c: 1 channels are expected in case 'c' \(found 2\)"),
        ({"image": np.zeros((1, 0, 4))}, "c: there are no voxels"),
        ({"image": np.zeros((1, 4, 4, 4, 4))}, "c: .* in case 'c'"),
        ({"mask": None}, "c: the mask is missing in case 'c'"),
        ({"mask": np.zeros((4, 5), np.uint8)}, r"c: the mask must be \(4, 4\) like the image.*\(found \(4, 5\)\)"),
        ({"mask": np.full((4, 4), 2, np.uint8)}, r"c: the mask has a label without a name in case 'c' \(found 2\)"),
    ],
)
def test_what_a_reader_lets_through_is_caught(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: dict[str, object], message: str
) -> None:
    tiny_reader(monkeypatch, raw("c", **wrong), raw("good"))
    with pytest.raises(SourceError, match=message):
        imported(tmp_path, tmp_path / "set", "tiny")
    made = imported(tmp_path, tmp_path / "set", "tiny", skip_corrupt=True)
    assert made.cases["case"].tolist() == ["good"]


def test_a_patient_in_two_sites_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tiny_reader(monkeypatch, raw("a"), raw("b"))
    with pytest.raises(SourceError, match="b: the patient 'p' has two values of 'site': 's0' and 's1'"):
        imported(tmp_path, tmp_path / "set", "tiny", options=ReadOptions(channels=("sites",)))


def test_roles_of_the_source_are_kept_unless_shares_are_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tiny_reader(monkeypatch, raw("a"), role="holdout")
    kept = imported(tmp_path, tmp_path / "kept", "tiny")
    assert (kept.cases["role"].tolist(), kept.header.split) == (["holdout"], None)
    drawn = imported(tmp_path, tmp_path / "drawn", "tiny", shares=Shares(member=1, holdout=0, reference=0))
    assert drawn.cases["role"].tolist() == ["member"]
    tiny_reader(monkeypatch, raw("a"), role="train")
    with pytest.raises(SourceError, match=r"unknown role \(found 'train'\)"):
        imported(tmp_path, tmp_path / "set", "tiny")


def test_a_picture_cannot_become_a_volume(tmp_path: Path) -> None:
    with pytest.raises(FedSynthError, match="dimensions"):
        imported(write_lgg(tmp_path / "lgg"), tmp_path / "set", options=ReadOptions(dimensions=3))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 0}, "1 to 4096"),
        ({"spacing_mm": 0.0}, "positive number of millimetres"),
        ({"workers": 0}, "at least one worker"),
        ({"seed": -1}, "seed must not be negative"),
        ({"missing": "drop"}, "'keep' or 'leave-out'"),
        ({"options": ReadOptions(dimensions=4)}, "2 or 3"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_setting_is_named(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ImportSettings(**({"size": 8} | wrong))  # type: ignore[arg-type]


def test_tumour_slices_of_a_source_without_masks(tmp_path: Path) -> None:
    write_brats(tmp_path / "b", "BraTS2021_00000")
    next((tmp_path / "b").rglob("*seg*")).unlink()
    with pytest.raises(ConfigError, match="has no masks"):
        imported(tmp_path / "b", tmp_path / "set", "brats", slicing=Slicing(keep="tumour"))
    made = imported(tmp_path / "b", tmp_path / "set", "brats")
    assert made.masks is None


LIMITED = """
import resource, signal, sys
from pathlib import Path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
from fedsynth.cli import main
sys.argv = ["fedsynth", "import", *sys.argv[1:]]
main()
"""


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """The system refuses to let a file grow beyond 20 kB, as a full disk would."""
    source = write_lgg(tmp_path / "lgg")
    command = [sys.executable, "-c", LIMITED, str(source), str(tmp_path / "set"), "--reader", "lgg", "--size", "32"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert "cannot be written" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["lgg"]


MEASURED = """
import resource, sys
from pathlib import Path
from fedsynth.data.importers.pipeline import ImportSettings, import_images
import_images(Path(sys.argv[1]), Path(sys.argv[2]), name="lgg", settings=ImportSettings(size=64, workers=2))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_memory_stays_flat_with_the_size_of_the_source(tmp_path: Path) -> None:
    """Sixty patients of 3 MB decoded each, 180 MB in all, may take 40 MB more than six."""
    few, many = write_lgg(tmp_path / "few", 6, 16, 256), write_lgg(tmp_path / "many", 6, 16, 256)
    for number in range(6, 60):
        name = f"TCGA_CS_{number:04d}_20000101"
        (many / name).mkdir()
        for file in (many / "TCGA_CS_0000_20000101").iterdir():
            os.link(file, many / name / file.name.replace("TCGA_CS_0000_20000101", name))
    peak = []
    for source in (few, many):
        command = [sys.executable, "-c", MEASURED, str(source), str(tmp_path / f"{source.name}-set")]
        peak.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    assert peak[1] < peak[0] + 40
