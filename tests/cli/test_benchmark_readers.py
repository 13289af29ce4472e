"""`fedsynth benchmark readers`, from the sheet to the table that shows what the readers said."""

import json

import pytest
from typer.testing import CliRunner

from fedsynth.cli import app
from fedsynth.evaluation.reader_study.answer_key import load_key
from fedsynth.reporting.answer import answer
from fedsynth.reporting.summary import read_facts
from tests.evaluation.reader_study.sets import real_and_synthetic
from tests.evaluation.reader_study.test_reader_scores import right, written
from tests.reporting.test_comparison import make_run


def invoke(*arguments):
    return CliRunner().invoke(app, ["benchmark", "readers", *map(str, arguments)])


@pytest.fixture
def run(tmp_path):
    real, made = real_and_synthetic()
    real.save(tmp_path / "real")
    run = make_run(tmp_path / "run", images=str(tmp_path / "real"))
    made.save(run.synthetic)
    return run


def test_from_the_sheet_to_the_table(run, tmp_path):
    out = tmp_path / "study"
    made = invoke(run.folder, "--out", out)
    assert made.exit_code == 0, made.output
    assert "holdout patients, one image of each; nobody who was trained on is shown" in made.stdout
    assert "stays at the hospital" in made.stdout
    key = load_key(out)
    assert (out / "sheet.html").is_file()
    assert [path.name for path in out.iterdir()] != ["sheet.html"]
    answers = written(tmp_path / "a.csv", key, right)
    done = invoke("--out", out, "--score", answers)
    assert done.exit_code == 0, done.output
    assert "told real from synthetic" in done.stdout
    facts = read_facts(run.folder)
    assert facts.cells["readers"].value == 1.0
    assert any("guessing is right in half" in sentence for sentence in answer(facts).sentences)
    shown = CliRunner().invoke(app, ["compare", str(run.folder)])
    assert "readers distinguished" in shown.stdout
    told = json.loads(invoke("--out", out, "--score", answers, "--json").stdout)
    assert told["benchmark"] == "readers"
    assert set(told["inputs"]) == {"real", "synthetic"}


def test_any_two_sets_will_do_and_members_only_when_asked(run, tmp_path):
    out = tmp_path / "study"
    sets = ("--real", tmp_path / "real", "--synthetic", run.synthetic, "--out", out)
    done = invoke(*sets, "--role", "holdout,member", "--count", "8", "--json")
    assert json.loads(done.stdout)["count"] == 8
    scored = invoke("--out", out, "--score", written(tmp_path / "a.csv", load_key(out), right))
    assert scored.exit_code == 0
    assert (out / "readers.json").is_file()
    assert not run.benchmark("readers").exists()
    again = invoke(*sets)
    assert again.exit_code == 2
    assert "a sheet lies there already" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--score", "none.csv"), "--out is missing"),
        (("--out", "nowhere", "--score", "none.csv"), "key of the sheet is missing"),
        (("RUN", "--out", "out", "--role", "holdot"), "did you mean 'holdout'"),
        (("RUN", "--out", "out", "--count", "7"), "--count 6"),
    ],
)
def test_bad_input_is_one_line(run, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    done = invoke(*[str(run.folder) if word == "RUN" else word for word in arguments])
    assert done.exit_code == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
