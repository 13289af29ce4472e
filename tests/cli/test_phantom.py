"""`fedsynth phantom` in process: what it writes, prints and refuses."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedsynth.cli import app
from fedsynth.data import ImageSet

QUICK = ["--patients", "4", "--slices", "2", "--size", "16", "--sites", "2", "--workers", "1"]


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["phantom", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_a_cohort_is_written_and_told(tmp_path: Path) -> None:
    code, out, err = run(tmp_path / "set", *QUICK)
    assert code == 0, err
    first, following = out.splitlines()
    assert first.endswith("8 images of 4 patients (hospital-1 2, hospital-2 2)")
    assert following == f"next  fedsynth simulate --data {tmp_path / 'set'}"
    assert len(ImageSet.load(tmp_path / "set")) == 8


def test_json_is_one_object(tmp_path: Path) -> None:
    code, out, _ = run(tmp_path / "set", *QUICK, "--dimensions", 3, "--labels", "tissue+tumour", "--json")
    told = json.loads(out)
    assert code == 0
    assert told["schema"] == "fedsynth.phantom/1"
    assert told["images"] == 4
    assert told["patients_per_site"] == {"hospital-1": 2, "hospital-2": 2}
    assert ImageSet.load(tmp_path / "set").header.mask_labels[1:4] == ("csf", "grey", "white")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--patients", "0"], "'patients' must be at least 1"),
        (["--size", "8"], "'size' must be at least 16"),
        (["--sites", "5"], "more sites (5) than patients (4)"),
        (["--slices", "400"], "slices to choose from"),
        (["--labels", "tumor"], "did you mean 'tumour'?"),
        (["--dimensions", "1"], "known: 2, 3"),
        (["--workers", "0"], "workers"),
    ],
)
def test_bad_options_are_one_line(tmp_path: Path, options: list[str], words: str) -> None:
    code, out, err = run(tmp_path / "set", *QUICK, *options)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1
    assert not (tmp_path / "set").exists()


def test_an_existing_folder_is_refused_at_once(tmp_path: Path) -> None:
    run(tmp_path / "set", *QUICK)
    code, _, err = run(tmp_path / "set", *QUICK)
    assert code == 2
    assert "--overwrite" in err
    assert run(tmp_path / "set", *QUICK, "--seed", 1, "--overwrite")[0] == 0
