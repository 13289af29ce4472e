"""`fedsynth split`: roles for a set that was made elsewhere."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from typer.testing import CliRunner, Result

from fedsynth.cli import app
from fedsynth.data import Header, ImageSet, Shares


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["split", *map(str, arguments)])


def bare_set(folder: Path, n_patients: int = 10) -> Path:
    rows = [
        {"case": f"c{i}", "patient": f"p{i}", "site": "A", "role": "", "class": "", "slice": ""}
        for i in range(n_patients)
    ]
    header = Header(name="bare", origin="real", channels=("x",), spacing_mm=(1.0, 1.0))
    images = np.zeros((n_patients, 1, 4, 4), np.uint8)
    ImageSet(header=header, cases=pd.DataFrame(rows, dtype=str), images=images).save(folder)
    return folder


def test_roles_are_drawn_and_recorded(tmp_path: Path) -> None:
    result = call(bare_set(tmp_path / "set"), tmp_path / "out", "--split", "0.6,0.4,0", "--seed", 4)
    assert result.exit_code == 0
    assert "6 member, 4 holdout, 0 reference patients" in result.stdout
    made = ImageSet.load(tmp_path / "out")
    assert made.header.split is not None
    assert (made.header.split.seed, made.header.split.shares) == (4, Shares(member=0.6, holdout=0.4, reference=0))
    assert made.patients["role"].value_counts().to_dict() == {"member": 6, "holdout": 4}
    assert (ImageSet.load(tmp_path / "set").cases["role"] == "").all()


def test_standing_roles_are_replaced_only_when_told(tmp_path: Path) -> None:
    call(bare_set(tmp_path / "set"), tmp_path / "one")
    result = call(tmp_path / "one", tmp_path / "two", "--seed", 1)
    assert result.exit_code == 2
    assert "have roles already" in result.stderr
    assert "--again" in result.stderr
    told = json.loads(call(tmp_path / "one", tmp_path / "two", "--seed", 1, "--again", "--json").stdout)
    assert told["patients"] == {"member": 5, "holdout": 4, "reference": 1}
    assert not ImageSet.load(tmp_path / "one").cases.equals(ImageSet.load(tmp_path / "two").cases)


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    path = bare_set(tmp_path / "set")
    for arguments, message in [
        ((path, tmp_path / "out", "--split", "0.5,0.6,0.1"), "add up to 1"),
        ((path, tmp_path / "out", "--split", "half"), "--split cannot be read"),
        ((path, tmp_path / "out", "--seed", "-1"), "must not be negative"),
        ((path, path), "exists already"),
        ((tmp_path / "none", tmp_path / "out"), "there is no such folder"),
    ]:
        result = call(*arguments)
        assert result.exit_code == 2
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_members_are_left_out_and_roles_stay(tmp_path: Path) -> None:
    path = bare_set(tmp_path / "set")
    assert call(path, tmp_path / "one").exit_code == 0
    done = call(tmp_path / "one", tmp_path / "few", "--keep-members", 2)
    assert done.exit_code == 0, done.stderr
    assert "2 member, 4 holdout, 1 reference patients" in done.stdout
    few, whole = (ImageSet.load(tmp_path / name) for name in ("few", "one"))
    assert few.header.split == whole.header.split
    assert set(few.patients["patient"]) < set(whole.patients["patient"])
    assert call(tmp_path / "one", tmp_path / "none", "--keep-members", 6).exit_code == 2
    assert call(tmp_path / "one", tmp_path / "none", "--keep-members", 2, "--again").exit_code == 2
