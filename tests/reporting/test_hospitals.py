"""Who trained: a hospital that refused is counted in no table, page or card; rows of other hospitals are
distinguished.
"""

import pytest
from typer.testing import CliRunner

from fedsynth import atomic_files, config
from fedsynth.cli import app
from fedsynth.reporting.answer import answer
from fedsynth.reporting.comparison import differences, reasons
from fedsynth.reporting.html_page import report_page
from fedsynth.reporting.release_gate import Criteria, card
from fedsynth.reporting.summary import read_facts
from fedsynth.reporting.table_cells import hospitals_of
from tests.reporting.test_comparison import ROUNDS, make_run
from tests.training.tiny import tiny_set

REFUSING = "{0},c,false,refused,,0,0,,,\n"
FOUR = "\n".join(f'[[site]]\nname = "{name}"' for name in "abcd")


def with_rows(run, rows):
    atomic_files.write_text(run.rounds, rows)
    return read_facts(run.folder)


def test_who_refused_at_the_greeting_is_not_counted(tmp_path):
    run = make_run(tmp_path / "a", sites=3)
    facts = with_rows(run, ROUNDS.format("", "", "") + REFUSING.format(1) + REFUSING.format(2))
    said = "2 of 3 sites; c refused"
    assert facts.cells["federation"].text == f"fedavg, {said}"
    assert facts.hospitals.trained == {"a": 2, "b": 1}
    assert "c did not train: refused; b trained in 1 of 2 rounds" in reasons([facts])[0]
    for told in (
        report_page([facts], export=True),
        card(facts, Criteria(), tiny_set()),
        " ".join(answer(facts).sentences),
    ):
        assert said in told
    assert said in CliRunner().invoke(app, ["compare", str(run.folder), "--format", "csv"]).stdout


def test_who_left_not_even_a_row_is_named_by_the_file_of_sites(tmp_path):
    run = make_run(tmp_path / "a", sites=4)
    assert read_facts(run.folder).cells["federation"].text == "fedavg, 2 of 4 sites; 2 did not train"
    atomic_files.write_text(run.folder / "sites.toml", FOUR)
    assert read_facts(run.folder).cells["federation"].text == "fedavg, 2 of 4 sites; c did not train, d did not train"


@pytest.mark.parametrize("reason", ["", "out of memory"])
def test_who_could_not_is_not_said_to_have_refused(tmp_path, reason):
    rows = [{"round": "1", "site": "a", "answered": "true"}, {"round": "1", "site": "b", "answered": "false"}]
    rows[1]["reason"] = reason
    found = hospitals_of(tmp_path, {"federation": "average", "sites": 2}, rows)
    assert str(found) == "1 of 2 sites; b did not train"
    assert reason in found.why


def test_one_site_is_no_federation(tmp_path):
    assert hospitals_of(tmp_path, {"steps": 3}, []) is None


def test_rows_of_other_hospitals_and_another_effort_are_distinguished(tmp_path):
    """A plain run of four hospitals, 30 x 30 steps, beside a private one of three, 30 x 5: nothing was said of it."""
    alike = {"rounds": 30, "local-steps": 30, "count": 600}
    plain = read_facts(make_run(tmp_path / "plain", **alike).folder)
    assert differences([plain, read_facts(make_run(tmp_path / "again", **alike).folder)]) == []
    run = make_run(tmp_path / "private", epsilon=8.0, **{**alike, "local-steps": 5, "count": 400})
    private = with_rows(run, "\n".join(line for line in ROUNDS.format(4, 4, 8).splitlines() if ",b," not in line))
    said = " | ".join(differences([plain, private]))
    assert "trained by different hospitals: plain 2 (a, b), private 1 (a)" in said
    assert "different numbers of steps: plain 900, private 150" in said
    assert "synthetic images: plain 600, private 400" in said
    config.save_toml(run.checkpoints / "generator.toml", {"generator": "dcgan", "steps": 900})
    assert "numbers of steps" not in " ".join(differences([plain, read_facts(run.folder)]))
