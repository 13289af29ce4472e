"""`fedsynth benchmark memorization`: plan, exit codes, files and what they do not say."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from fedsynth.cli import app
from fedsynth.data import ImageSet
from fedsynth.data.phantoms.cohort import make_phantoms
from fedsynth.data.phantoms.settings import PhantomSettings
from fedsynth.evaluation.score import load_result
from fedsynth.runs import create_run


def call(*arguments):
    return CliRunner().invoke(app, ["benchmark", "memorization", *map(str, arguments)])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A real set, and a synthetic one with two mirrored copies of a member."""
    base = tmp_path_factory.mktemp("sets")
    given = {"patients": 30, "slices": 2, "size": 24, "sites": 1}
    real = make_phantoms(base / "real", PhantomSettings(**given, seed=1), workers=1)
    fresh = make_phantoms(base / "fresh", PhantomSettings(**given, seed=2), workers=1)
    pixels = np.array(fresh.images)
    rows = np.flatnonzero(real.cases["role"] == "member")[:2]
    pixels[:2] = np.asarray(real.images[rows])[..., ::-1]
    header = replace(fresh.header, origin="synthetic", split=None)
    cases = fresh.cases.assign(patient="", site="", role="")
    ImageSet(header=header, cases=cases, images=pixels, masks=fresh.masks).save(base / "synthetic")
    return base


def test_a_plan_needs_no_images():
    assert "300 synthetic images" in call("--plan", "--patients", 40, "--slices", 2, "--synthetic", 300).stdout
    told = json.loads(call("--plan", "--patients", 40, "--json").stdout)
    assert told["patients"] == 40
    assert told["alpha"] == 0.038


def test_a_leak_of_a_run_ends_with_one_and_is_written_where_it_belongs(folders, tmp_path):
    run = create_run({"images": str(folders / "real"), "generator": "x"}, generator="x", base=tmp_path / "runs")
    ImageSet.load(folders / "synthetic").save(run.synthetic)
    answer = call(run.folder, "--spaces", "pixels,components")
    assert answer.exit_code == 1, answer.output
    assert "verdict    LEAK" in answer.stdout
    assert "2 of 60 synthetic images are copies of a patient" in answer.stdout
    assert load_result(run.benchmark("memorization")).verdict == "leak"
    assert [path.name for path in run.folder.glob("sites/*/memorization/*")] == ["pairs.png"]


def test_an_export_shows_and_names_nobody(folders, tmp_path):
    given = ["--real", folders / "real", "--synthetic", folders / "synthetic", "--spaces", "pixels"]
    answer = call(*given, "--out", tmp_path / "report", "--export", "--json")
    assert answer.exit_code == 1, answer.output
    assert [path.name for path in (tmp_path / "report").rglob("*")] == ["memorization.json"]
    text = (tmp_path / "report" / "memorization.json").read_text() + answer.stdout
    for name in set(ImageSet.load(folders / "real").cases["patient"]):
        assert f'"{name}"' not in text
    assert str(folders) not in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tolerance", "0"], "tolerance"),
        (["--plan", "--synthetic", "set"], "a number of images"),
        (["--real", "nowhere", "--synthetic", "nowhere"], "no such folder"),
        (["--real", "nowhere"], "--synthetic"),
        (["nowhere"], "no such run"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = call(*arguments)
    assert answer.exit_code == 2
    assert words in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1


def test_an_unknown_space_is_named(folders):
    answer = call("--real", folders / "real", "--synthetic", folders / "synthetic", "--spaces", "pixel")
    assert answer.exit_code == 2
    assert "did you mean 'pixels'" in answer.stderr
