import json

import pytest
from typer.testing import CliRunner

from fedsynth.cli import app
from fedsynth.privacy.accounting import Mechanism, epsilon_of, rounded_up
from fedsynth.privacy.ledger import Charge, Ledger


def spend(store, site, patients, run, steps, **more):
    ledger = Ledger(site, store)
    group = ledger.group(patients)
    ledger.charge(
        Charge(rate=0.25, noise=2.0, steps=steps, delta=1e-5, run=run, round=0, patients=group.digest, **more), group
    )
    return ledger


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDSYNTH_STORE", str(tmp_path / "store"))
    spend(tmp_path / "store", "north", ["a", "b"], "one", 20)
    spend(tmp_path / "store", "north", ["b", "c"], "two", 30)
    spend(tmp_path / "store", "south", ["d"], "one", 10)
    return tmp_path / "store"


def run(*arguments):
    return CliRunner().invoke(app, ["privacy", *map(str, arguments)])


def epsilon(steps):
    return epsilon_of([Mechanism(rate=0.25, noise=2.0, steps=steps)], 1e-5)


def test_json_of_a_store_gives_spent_and_remaining_for_the_patient_who_paid_most(store):
    found = json.loads(run(store, "--cap", "9", "--json").stdout)
    assert (found["kind"], found["unit"], found["adjacency"]) == ("store", "patient", "add/remove")
    north, south = found["per_site"]["north"], found["per_site"]["south"]
    assert (north["steps"], south["steps"]) == (50, 10)
    assert north["epsilon"] == epsilon(50) == found["largest"]
    assert north["remaining"] == 9 - north["epsilon"]
    assert {name: one["epsilon"] for name, one in north["runs"].items()} == {"one": epsilon(20), "two": epsilon(30)}
    assert north["epsilon"] < north["epsilon_renyi"]
    assert north["epsilon"] < north["epsilon_replace_one"]


def test_the_own_store_is_the_default_and_the_table_is_for_people(store):
    result = run()
    assert result.exit_code == 0
    for word in ("north", "south", "all runs", "two", "add/remove", "no cap", f"{rounded_up(epsilon(50), 3):g}"):
        assert word in result.stdout


def test_a_run_shows_its_own_and_the_cumulative_epsilon(store, tmp_path):
    Ledger("north", store).copy("two", tmp_path / "run" / "sites" / "north" / "ledger.jsonl")
    north = json.loads(run(tmp_path / "run", "--json").stdout)["per_site"]["north"]
    assert north["epsilon"] == epsilon(50)
    assert north["runs"] == {"two": {"epsilon": epsilon(30), "steps": 30, "private": True}}


def test_a_run_from_elsewhere_shows_its_own_epsilon_and_says_what_it_cannot_know(store, tmp_path, monkeypatch):
    Ledger("north", store).copy("two", tmp_path / "run" / "sites" / "north" / "ledger.jsonl")
    monkeypatch.setenv("FEDSYNTH_STORE", str(tmp_path / "other"))
    north = json.loads(run(tmp_path / "run", "--json").stdout)["per_site"]["north"]
    assert north["epsilon"] == epsilon(30)
    assert "spent elsewhere is not counted" in north["why"]
    assert not (tmp_path / "other").exists()


def test_an_insecure_run_has_no_epsilon_and_is_stamped(store):
    spend(store, "north", ["b"], "test", 5, insecure=True)
    north = json.loads(run(store, "--json").stdout)["per_site"]["north"]
    assert (north["epsilon"], north["private"]) == (None, False)
    assert north["why"].startswith("NOT PRIVATE: test")
    assert "NOT PRIVATE" in run(store).stdout


@pytest.mark.parametrize("arguments", [("nowhere",), (".", "--cap", "9"), ("--cap", "-1")])
def test_what_cannot_be_shown_is_one_line_and_exit_code_2(arguments, store, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    result = run(*arguments)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1


def test_what_a_secure_sum_rests_on_is_said(tmp_path):
    against = "a server that colludes with at most 1 of the 4 sites"
    spend(tmp_path / "store", "north", ["a"], "one", 1, assumption=against, joint="sum")
    shown = run(tmp_path / "store").stdout
    assert f"north: one holds only against {against}" in shown
