"""`fedsynth import` with the readers for one's own data, from files to a set that loads."""

from pathlib import Path

import nibabel
import numpy as np
from PIL import Image
from typer.testing import CliRunner

from fedsynth.cli import app
from fedsynth.data import ImageSet

AFFINE = np.diag([-1.0, -1.0, 2.0, 1.0])


def run(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["import", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done.output


def scans(folder: Path) -> Path:
    """Four patients with CT volumes of 8 x 8 x 4 voxels and a lesion on the left, behind, at the top."""
    lines = ["patient,site,ct,mask"]
    for k in range(4):
        ct = np.full((8, 8, 4), -1000 + 10 * k, np.int16)
        ct[6:, 6:, 3] = 400  # stored with axes left, posterior, superior
        nibabel.save(nibabel.Nifti1Image(ct, AFFINE), folder / f"{k}.nii.gz")
        nibabel.save(nibabel.Nifti1Image((ct == 400).astype(np.uint8), AFFINE), folder / f"{k}m.nii.gz")
        lines.append(f"p{k},{'north' if k < 2 else 'south'},{k}.nii.gz,{k}m.nii.gz")
    (folder / "manifest.csv").write_text("\n".join(lines))
    return folder / "manifest.csv"


def test_volumes_become_slices_with_hounsfield_windows(tmp_path: Path) -> None:
    run(scans(tmp_path), tmp_path / "set", "--reader", "volumes", "--size", 8, "--intensity", "window:-1000,400",
        "--slices", "all", "--seed", 1)  # fmt: skip
    made = ImageSet.load(tmp_path / "set")
    assert len(made) == 16
    assert made.header.spacing_mm == (1.0, 1.0)
    row = int(np.flatnonzero((made.cases["patient"] == "p1") & (made.cases["slice"] == "3"))[0])
    image, mask = made.images[row][0], made.masks[row]
    assert np.unique(image).tolist() == [round(10 / 1400 * 255), 255]
    assert np.argwhere(mask).tolist() == [[6, 0], [6, 1], [7, 0], [7, 1]]  # left behind: the last rows, first columns
    assert np.array_equal(image == 255, mask == 1)


def test_volumes_stay_volumes(tmp_path: Path) -> None:
    run(scans(tmp_path), tmp_path / "set", "--reader", "volumes", "--size", 8, "--dimensions", 3)
    made = ImageSet.load(tmp_path / "set")
    assert made.images.shape == (4, 1, 8, 8, 8)
    assert sorted(made.patients["site"]) == ["north", "north", "south", "south"]


def test_a_missing_and_a_damaged_volume_stop_the_import_or_are_left_out(tmp_path: Path) -> None:
    manifest = scans(tmp_path)
    (tmp_path / "1.nii.gz").unlink()
    (tmp_path / "2.nii.gz").write_bytes(b"junk")
    command = (manifest, tmp_path / "set", "--reader", "volumes", "--size", 8)
    told = run(*command, code=2)
    assert told.count("\n") == 1
    assert "row 3" in told
    assert "1.nii.gz: there is no such file" in told
    assert not (tmp_path / "set").exists()
    told = run(*command, "--skip-corrupt")
    assert "left out (2)" in told
    made = ImageSet.load(tmp_path / "set")
    assert set(made.cases["patient"]) == {"p0", "p3"}
    left_out = made.header.provenance["left-out"]
    assert ["row 3" in left_out[0], "row 4" in left_out[1], len(left_out)] == [True, True, 2]


def test_pictures_with_some_masks(tmp_path: Path) -> None:
    for k in range(6):
        folder = tmp_path / "pictures" / ("ill" if k % 2 else "well")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6, 4), 40 * k, np.uint8)).save(folder / f"north_{k // 2}_{k}.png")
        if k % 2:
            Image.fromarray(np.eye(6, 4).astype(np.uint8) * 255).save(folder / f"north_{k // 2}_{k}_mask.png")
    command = (tmp_path / "pictures", tmp_path / "set", "--reader", "folder", "--size", 6, "--patient-pattern",
               r"(?P<site>[a-z]+)_(?P<patient>\d)")  # fmt: skip
    assert "--unmasked-is-background" in run(*command, code=2)
    run(*command, "--unmasked-is-background")
    made = ImageSet.load(tmp_path / "set")
    assert (len(made), len(made.patients)) == (6, 3)
    assert set(made.cases["site"]) == {"north"}
    of_file = {case.split("_")[-1]: row for row, case in enumerate(made.cases["case"])}
    for k in range(6):
        row = of_file[str(k)]
        assert made.images[row][0, :, 2].tolist() == [40 * k] * 6
        assert int(made.masks[row].sum()) == (4 if k % 2 else 0)


def test_medmnist_says_what_is_known_of_its_patients(tmp_path: Path) -> None:
    arrays = {}
    for part, n in (("train", 6), ("val", 2), ("test", 2)):
        arrays[f"{part}_images"] = np.arange(n * 28 * 28, dtype=np.uint8).reshape(n, 28, 28)
        arrays[f"{part}_labels"] = np.arange(n).astype(np.uint8)[:, None] % 2
    np.savez_compressed(tmp_path / "pneumoniamnist.npz", **arrays)
    command = (tmp_path / "pneumoniamnist.npz", tmp_path / "set", "--reader", "medmnist", "--size", 28)
    assert "--one-image-per-patient" in run(*command, code=2)
    assert "not true of this set" in run(*command, "--one-image-per-patient")
    made = ImageSet.load(tmp_path / "set")
    assert made.header.classes == ("normal", "pneumonia")
    assert np.array_equal(made.images[:6, 0], arrays["train_images"])


def test_synthetic_pictures_are_nobodys(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (6, 12, 12), dtype=np.uint8)
    for number, picture in enumerate(pictures):
        place = tmp_path / "theirs" / ("ill" if number % 2 else "well")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(place / f"{number}.png")
    call = ["import", str(tmp_path / "theirs"), str(tmp_path / "set"), "--reader", "folder", "--size", "12"]
    done = CliRunner().invoke(app, [*call, "--synthetic"])
    assert done.exit_code == 0, done.output
    assert "6 synthetic images" in done.stdout
    made = ImageSet.load(tmp_path / "set")
    assert made.header.origin == "synthetic"
    assert made.header.split is None
    assert set(made.cases["patient"]) | set(made.cases["site"]) | set(made.cases["role"]) == {""}
    assert sorted(made.cases["class"].unique()) == ["ill", "well"]
    wrong = CliRunner().invoke(app, [*call, "--synthetic", "--split", "0.5,0.5,0", "--overwrite"])
    assert wrong.exit_code == 2
    assert "neither patients nor sites nor roles" in wrong.stderr
