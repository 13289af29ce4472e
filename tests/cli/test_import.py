"""`fedsynth import` in process: what it prints, what it writes, and one line for everything that is wrong."""

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from fedsynth.cli import app
from fedsynth.data import ImageSet


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["import", *map(str, words)])


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    root = tmp_path / "kaggle_3m"
    for number in range(4):
        name = f"TCGA_{['CS', 'FG'][number % 2]}_{number}_20000101"
        (root / name).mkdir(parents=True)
        for index in (1, 2, 10):
            image = np.random.default_rng(number).integers(0, 255, (8, 8, 3), dtype=np.uint8)
            image[..., 2] = image[..., 1 if number == 3 else 2]
            Image.fromarray(image).save(root / name / f"{name}_{index}.tif")
            mask = np.full((8, 8), 255 * (index == 2), np.uint8)
            Image.fromarray(mask).save(root / name / f"{name}_{index}_mask.tif")
    return root


@pytest.fixture
def brats(tmp_path: Path) -> Path:
    for name in ("BraTS2021_00001", "BraTS2021_00002"):
        (tmp_path / "brats" / name).mkdir(parents=True)
        image = np.random.default_rng(0).random((8, 8, 6)).astype(np.float32)
        mask = np.zeros((8, 8, 6), np.uint8)
        mask[3, 3, 2:4] = (1, 4)
        for word, voxels in (("t1", image), ("t2", image), ("seg", mask)):
            file = tmp_path / "brats" / name / f"{name}_{word}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), file)
    return tmp_path / "brats"


def test_it_says_what_was_read(kaggle: Path, tmp_path: Path) -> None:
    done = run(kaggle, tmp_path / "set", "--reader", "lgg", "--size", 8, "--split", "0.5,0.5,0")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == f"{tmp_path / 'set'}: 12 images of 4 patients, 8 x 8, t1, flair, t1ce"
    assert lines[1:] == [
        "  patients per site: CS 2, FG 2",
        "  patients per class: - 4",
        "  patients per role: holdout 2, member 2",
        "  t1ce is a stand-in for 1 patients: TCGA_FG_3",
        "  careful: most generators need 16 pixels or more",
        f"next  fedsynth inspect {tmp_path / 'set'} --sheet set.png",
    ]
    assert ImageSet.load(tmp_path / "set").header.name == "set"


def test_json_is_one_object(kaggle: Path, tmp_path: Path) -> None:
    done = run(kaggle, tmp_path / "set", "--reader", "lgg", "--size", 8, "--json")
    told = json.loads(done.stdout)
    assert told["schema"] == "fedsynth.import/1"
    assert (told["images"], told["patients"], told["patients_per_site"]) == (12, 4, {"CS": 2, "FG": 2})
    assert told["missing_sequences_of"] == {"t1ce": ["TCGA_FG_3"]}
    assert told["left_out"] == []


def test_every_option_reaches_the_import(brats: Path, tmp_path: Path) -> None:
    done = run(
        brats, tmp_path / "set", "--reader", "brats", "--size", 16, "--channels", "t2,t1", "--axis", "coronal",
        "--slices", "tumour", "--every", 3, "--labels", "whole=core,enhancing,edema", "--intensity", "window:0,1",
        "--spacing", 0.5, "--site", "Lund", "--seed", 7, "--split", "1,0,0", "--workers", 1,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    made = ImageSet.load(tmp_path / "set")
    assert made.header.channels == ("t2", "t1")
    assert made.header.mask_labels == ("background", "whole")
    assert made.header.spacing_mm == (0.5, 0.5)
    assert made.cases["slice"].tolist() == ["3", "3"]
    assert set(made.cases["site"]) == {"Lund"}
    assert set(made.cases["role"]) == {"member"}
    assert made.header.split is not None
    assert made.header.split.seed == 7
    told = made.header.provenance
    assert told["intensity"] == "window:0,1"
    assert told["slices"] == {"axis": "coronal", "every": 3, "keep": "tumour"}
    assert "coronal" in made.cases["case"][0]


def test_volumes(brats: Path, tmp_path: Path) -> None:
    done = run(brats, tmp_path / "set", "--reader", "brats", "--size", 8, "--dimensions", 3)
    assert done.exit_code == 0, done.output
    made = ImageSet.load(tmp_path / "set")
    assert made.size == (8, 8, 8)
    assert sorted(np.unique(made.masks)) == [0, 2, 3]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--reader", "lggg"), "unknown reader (found 'lggg'); did you mean 'lgg'?"),
        (("--split", "0.5,0.6,0.1"), "add up to 1"),
        (("--split", "half"), "--split cannot be read (found 'half')"),
        (("--split", "1.5,-0.5,0"), "0 to 1"),
        (("--size", "0"), "1 to 4096"),
        (("--dimensions", "4"), "2 or 3"),
        (("--dimensions", "3"), "--dimensions"),
        (("--channels", "t1,flare"), "unknown channel (found 'flare'); did you mean 'flair'?"),
        (("--channels", "t1,,flair"), "empty name"),
        (("--channels", "t1,t1"), "a channel is named twice"),
        (("--intensity", "percentile:99,1"), "percentile:LOW,HIGH"),
        (("--intensity", "minmax"), "percentile:LOW,HIGH"),
        (("--axis", "coronal"), "pictures cannot be cut along another axis (found 'coronal'); leave --axis out"),
        (("--axis", "axail"), "did you mean 'axial'?"),
        (("--slices", "tumor"), "did you mean 'tumour'?"),
        (("--every", "0"), "at least 1"),
        (("--labels", "x=tumr"), "did you mean 'tumour'?"),
        (("--spacing", "-1"), "positive number of millimetres"),
        (("--missing", "drop"), "'keep' or 'leave-out'"),
        (("--workers", "0"), "at least one worker"),
        (("--seed", "-1"), "seed must not be negative"),
        (("--site", "Lund"), "does not take --site"),
        (("--patient-pattern", "x"), "does not take --patient-pattern"),
        (("--mask-labels", "a,b"), "does not take --mask-labels"),
        (("--unmasked-is-background",), "does not take --unmasked-is-background"),
    ],
)
def test_a_wrong_option_is_one_line_and_writes_nothing(
    kaggle: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    done = run(kaggle, tmp_path / "set", "--reader", "lgg", "--size", 8, *words)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["kaggle_3m"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("import",), "Missing argument 'SOURCE'; see fedsynth import --help"),
        (("import", "a", "b", "--reader", "lgg"), "--size is missing; `fedsynth import a` proposes a whole command"),
        (("import", "a", "--reader", "lgg", "--size", "8"), "OUT, the image set to write, is missing"),
        (("import", "a", "b", "--reader", "lgg", "--size", "x"), "'x' is not a valid integer; see"),
        (("import", "a", "b", "--sise", "8"), "'--size'"),
        (("imprt",), "No such command 'imprt'"),
        (("inspect", "a", "--rows", "0"), "0 is not in the range x>=1"),
        (("list", "sits"), "No such command 'sits'"),
    ],
)
def test_a_command_that_cannot_be_understood_is_one_line(words: tuple[str, ...], message: str) -> None:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_import_leaves_nothing(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """The child's resampling sleeps, so that the import is caught in its middle."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("L", (8, 8)).save(folder / "a.png")
    out = tmp_path / "out"
    out.mkdir()
    code_of_child = (
        "import signal, sys, time; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import fedsynth.data.preprocessing as preparing\n"
        "preparing.resample_image = lambda *a: time.sleep(60)\n"
        "from fedsynth.cli import main; main()"
    )
    words = ["import", folder, out / "set", "--reader", "folder", "--size", 8, "--one-image-per-patient"]
    words += ["--workers", 1]
    command = [sys.executable, "-c", code_of_child, *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        for _ in range(600):
            if list(out.iterdir()):
                break
            time.sleep(0.05)
        assert [path.name[:5] for path in out.iterdir()] == [".set."]
        time.sleep(0.2)
        running.send_signal(number)
        assert running.wait(20) == code
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("words", [("--axis", "sagittal"), ("--every", "2"), ("--slices", "all")])
def test_a_choice_of_slices_is_refused_for_whole_volumes(brats: Path, tmp_path: Path, words: tuple[str, str]) -> None:
    done = run(brats, tmp_path / "set", "--reader", "brats", "--size", 8, "--dimensions", 3, *words)
    assert done.exit_code == 2
    assert "whole volumes are wanted, and a choice of slices; leave --axis, --every and --slices out" in done.stderr


def test_an_existing_set_is_kept_unless_told(kaggle: Path, tmp_path: Path) -> None:
    words = (kaggle, tmp_path / "set", "--reader", "lgg", "--size", 8)
    assert run(*words).exit_code == 0
    done = run(*words)
    assert done.exit_code == 2
    assert "the output exists already" in done.stderr
    assert run(*words, "--overwrite").exit_code == 0


def test_what_is_left_out_is_listed(kaggle: Path, tmp_path: Path) -> None:
    broken = kaggle / "TCGA_FG_1_20000101/TCGA_FG_1_20000101_10.tif"
    broken.write_bytes(b"no picture")
    (kaggle / "TCGA_CS_0_20000101/TCGA_CS_0_20000101_2_mask.tif").unlink()
    words = (kaggle, tmp_path / "set", "--reader", "lgg", "--size", 8)
    done = run(*words)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "TCGA_CS_0_20000101_2.tif: the mask of this slice is missing" in done.stderr
    done = run(*words, "--skip-corrupt")
    assert done.exit_code == 0
    assert "10 images of 4 patients" in done.stdout
    assert "left out (2):" in done.stderr
    assert str(broken) in done.stderr
    left_out = ImageSet.load(tmp_path / "set").header.provenance["left-out"]
    assert len(left_out) == 2


def test_what_differs_is_said(brats: Path, tmp_path: Path) -> None:
    for file in (brats / "BraTS2021_00002").iterdir():
        voxels = np.asanyarray(nibabel.load(file).dataobj)
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([2.0, 2.0, 2.0, 1.0])), file)
    done = run(brats, tmp_path / "set", "--reader", "brats", "--size", 8)
    assert "spacing differs: 1 to 2 mm; --spacing makes it equal" in done.stdout
    done = run(brats, tmp_path / "fine", "--reader", "brats", "--size", 2, "--spacing", 1)
    assert "images are cut at a lesion: BraTS2021_00002-axial-2" in done.stdout


def pictures(folder: Path, count: int = 6) -> Path:
    for k in range(count):
        (folder / "ill").mkdir(parents=True, exist_ok=True)
        shown = np.random.default_rng(k).integers(0, 255, (20, 20), dtype=np.uint8)
        Image.fromarray(shown * (k > 0)).save(folder / "ill" / f"p{k // 2}_{k}.png")
    return folder


def test_without_a_reader_a_command_is_proposed_and_it_works(tmp_path: Path) -> None:
    source = pictures(tmp_path / "scans")
    done = run(source, "--sheet", tmp_path / "sheet.png")
    assert "3 patients with 2 to 2 pictures" in done.output
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scans", "sheet.png"]
    program, verb, *words = shlex.split(done.output.splitlines()[-1])
    assert (program, verb) == ("fedsynth", "import")
    words[words.index("images")] = str(tmp_path / "set")
    told = CliRunner().invoke(app, ["import", *words]).output
    assert "1 images are of one value, black for example: ill/p0_0" in told
    assert len(ImageSet.load(tmp_path / "set").patients) == 3


def test_whoever_names_a_set_and_no_reader_is_told_that_nothing_was_written(tmp_path: Path) -> None:
    done = run(pictures(tmp_path / "scans"), tmp_path / "set")
    assert done.exit_code == 2
    assert "only looked at" in run(tmp_path / "scans", "--size", 16).stderr
    assert "No image set was written" in done.output
    assert f"import {tmp_path / 'scans'} {tmp_path / 'set'} --reader folder" in done.output


def test_a_set_of_one_patient_and_tiny_images_are_warned_about(tmp_path: Path) -> None:
    words = (pictures(tmp_path / "scans"), tmp_path / "set", "--reader", "folder", "--size", 8)
    told = run(*words, "--patient-pattern", "p").output
    assert "all images are of one patient" in told
    assert "most generators need 16 pixels" in told


def test_a_window_that_shows_nothing_is_refused(tmp_path: Path) -> None:
    words = (pictures(tmp_path / "scans"), tmp_path / "set", "--reader", "folder", "--size", 16, "--intensity")
    done = run(*words, "window:300,400", "--one-image-per-patient")
    assert "every image would be of the same one value (found 0)" in done.output
    assert not (tmp_path / "set").exists()
