"""A run keeps results of its own two sets: those of others never borrow its epsilon."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from typer.testing import CliRunner

from fedsynth.api.evaluation import BENCHMARKS, evaluate
from fedsynth.api.utility import fidelity
from fedsynth.cli import app
from fedsynth.data import ImageSet
from fedsynth.evaluation.reader_study.answer_key import load_key
from fedsynth.evaluation.result_owner import stranger
from fedsynth.evaluation.score import load_result
from fedsynth.runs import create_run
from fedsynth.training.roles import roles_mark
from tests.evaluation.reader_study.sets import real_and_synthetic
from tests.evaluation.reader_study.test_reader_scores import right, written


@pytest.fixture
def run(tmp_path):
    """A run, and beside it another synthetic and another real set."""
    real, made = real_and_synthetic(patients=24)
    real.save(tmp_path / "real")
    place = create_run({"generator": "x", "images": str(tmp_path / "real")}, generator="x", folder=tmp_path / "run")
    made.save(place.synthetic)
    replace(made, images=255 - np.asarray(made.images)).save(tmp_path / "other")
    replace(real, images=255 - np.asarray(real.images)).save(tmp_path / "other-real")
    return place


def call(*arguments):
    return CliRunner().invoke(app, ["benchmark", *map(str, arguments)])


def test_a_copy_of_the_own_set_is_the_own_set(run, tmp_path):
    copied = ImageSet.load(run.synthetic).save(tmp_path / "copy").folder
    assert stranger(run, synthetic=copied, real=tmp_path / "real") == ""
    assert stranger(run, synthetic=tmp_path / "other") == "synthetic"
    assert stranger(run, real=tmp_path / "other-real") == "real"


def test_where_the_run_has_no_images_its_roles_decide(tmp_path):
    """The server of a deployed run knows fingerprints at most."""
    real, _ = real_and_synthetic()
    place = create_run({"generator": "x"}, generator="x", folder=tmp_path / "run")
    assert stranger(place, real=real) == ""
    place.roles.write_text(roles_mark(real) + "\n")
    assert stranger(place, real=real) == ""
    swapped = real.cases["role"].map({"member": "holdout", "holdout": "member"})
    assert stranger(place, real=real.with_cases(real.cases.assign(role=swapped))) == "real"


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("fidelity", ["--steps", "0"]),
        ("segmentation", ["--steps", "1", "--seeds", "1"]),
        ("memorization", ["--spaces", "pixels"]),
        ("membership", ["--spaces", "pixels"]),
    ],
)
def test_results_of_another_set_lie_beside_it_and_never_in_the_run(run, tmp_path, name, more):
    before = sorted(run.folder.rglob("*"))
    done = call(name, run.folder, "--synthetic", tmp_path / "other", *more)
    assert done.exit_code in (0, 1, 3), done.output
    assert "does not keep the result" in done.stderr
    assert str(tmp_path / "other-benchmarks" / f"{name}.json") in done.stdout
    assert load_result(tmp_path / "other-benchmarks" / f"{name}.json").benchmark == name
    assert sorted(run.folder.rglob("*")) == before
    written = [path for path in (tmp_path / "other-benchmarks").rglob("*") if path.is_file()]
    text = "".join(path.read_text() for path in written if path.suffix == ".json")
    assert not [path for path in written if path.suffix == ".png" and path.name != "membership-roc.png"]
    assert not any(patient in text for patient in set(ImageSet.load(tmp_path / "real").cases["patient"]))


def test_where_nothing_can_be_written_beside_a_set_the_result_is_shown_all_the_same(run, tmp_path):
    (tmp_path / "other-benchmarks").touch()
    done = call("fidelity", run.folder, "--synthetic", tmp_path / "other", "--steps", "0")
    assert done.exit_code == 0, done.output
    assert "the result is not kept" in done.stderr


def test_its_result_goes_where_the_user_says_and_nowhere_else(run, tmp_path, monkeypatch):
    monkeypatch.setitem(BENCHMARKS, "fidelity", partial(fidelity, steps=0))
    out = tmp_path / "fidelity.json"
    before = sorted(run.folder.rglob("*"))
    done = call("fidelity", run.folder, "--synthetic", tmp_path / "other", "--steps", "0", "--out", out)
    assert done.exit_code == 0, done.output
    evaluate(run, real=tmp_path / "other-real", benchmarks=["fidelity"])
    assert out.is_file()
    assert sorted(run.folder.rglob("*")) == before
    assert call("fidelity", run.folder, "--synthetic", run.synthetic, "--steps", "0").exit_code == 0
    assert run.benchmark("fidelity").is_file()


def test_a_sheet_of_another_set_is_scored_beside_the_sheet_alone(run, tmp_path):
    sheet = tmp_path / "sheet"
    assert call("readers", run.folder, "--synthetic", tmp_path / "other", "--out", sheet).exit_code == 0
    answers = written(tmp_path / "a.csv", load_key(sheet), right)
    done = call("readers", run.folder, "--out", sheet, "--score", answers)
    assert done.exit_code == 0, done.output
    assert "not kept there" in done.stderr
    assert (sheet / "readers.json").is_file()
    assert not run.benchmark("readers").exists()
