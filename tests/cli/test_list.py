"""`fedsynth list sites`: the hospitals of a file, before anything is made."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fedsynth.cli import app

ROOT = Path(__file__).parents[2]


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["list", "sites", *arguments])


def test_the_hospitals_of_a_file() -> None:
    result = call(str(ROOT / "sites/phantom-4.toml"))
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "phantom-4: 4 hospitals"
    header = lines[1].split()
    assert header == [
        "site",
        "patients",
        "images",
        "member",
        "holdout",
        "reference",
        "healthy",
        "high-grade",
        "low-grade",
    ]
    assert lines[3].split()[:6] == ["hospital-1", "50", "250", "25", "20", "5"]
    assert lines[7].split()[:6] == ["all", "200", "1000", "100", "80", "20"]


def test_as_json() -> None:
    result = call("3", "--json")
    told = json.loads(result.stdout)
    assert (told["schema"], told["name"], len(told["sites"])) == ("fedsynth.sites/1", "phantom-3", 3)
    assert sum(site["patients"] for site in told["sites"]) == told["all"]["patients"] == 200
    assert sum(told["all"]["classes"].values()) == 200
    assert told["all"]["roles"] == {"member": 100, "holdout": 80, "reference": 20}


def test_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("2").exit_code == 0
    assert list(tmp_path.iterdir()) == []


def test_a_number_of_sites_or_the_files_of_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    lines = call().stdout.splitlines()
    assert [line.split()[0] for line in lines[2:4]] == ["sites/lgg.toml", "sites/phantom-4.toml"]
    assert "200 phantoms in 4 hospitals" in lines[3]
    told = json.loads(call("--json").stdout)
    assert [one["error"] for one in told["files"]] == [None, None]


def test_a_damaged_file_does_not_hide_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sites").mkdir()
    (tmp_path / "sites/bad.toml").write_text("phantm = 1")
    (tmp_path / "sites/good.toml").write_text("[phantom]")
    result = call()
    assert result.exit_code == 0
    assert "did you mean 'phantom'?" in result.stdout
    assert "sites/good.toml" in result.stdout


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("none.toml", "none.toml: there is no such file"),
        ("0", "'sites' must be at least 1"),
        ("300", "more sites (300) than patients (200)"),
        ("", "is a directory"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    result = call(argument)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_no_files_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = call()
    assert result.exit_code == 2
    assert "there are no sites files here" in result.stderr
