"""`fedsynth benchmark audit` as people meet it: what it costs, what it says, what it refuses, how it exits."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fedsynth import cli
from fedsynth.federation import client_app
from fedsynth.privacy.ledger import Ledger
from tests.experiments.repeatable import repeat_coins
from tests.federation.tiny import SETTINGS, start
from tests.federation.tiny import private as private_federation
from tests.training.tiny import tiny_set


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def audit(*arguments: object) -> Result:
    return run("benchmark", "audit", "--canaries", "40", *arguments)


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEDSYNTH_STORE", str(tmp_path / "store"))
    tiny_set(patients=8).save(tmp_path / "real")
    return tmp_path / "real"


def test_a_false_claim_fails_and_stands_in_the_result(real: Path, tmp_path: Path) -> None:
    out = tmp_path / "audited"
    found = audit("--real", real, "-g", "dcgan", "--steps", "30", "--claim", "0.01", "--out", out)
    assert found.exit_code == 1
    assert "FAIL" in found.output
    assert "the claimed epsilon 0.01 is false" in found.output
    result = json.loads((out / "benchmarks" / "audit.json").read_text())
    assert result["verdict"] == "fail"
    assert result["details"]["lower_bound"] > 0.01
    assert (out / "canaries.csv").is_file()


def test_without_a_claim_nothing_can_be_told(real: Path) -> None:
    found = audit("--real", real, "-g", "dcgan", "--steps", "1", "--json")
    assert found.exit_code == 3
    assert json.loads(found.stdout)["verdict"] == "inconclusive"
    assert not list(Path("runs").glob("*/config.toml")), "an audit must not become the newest run"


def test_real_patients_are_charged_only_where_that_was_agreed_to(real: Path, tmp_path: Path) -> None:
    private = ("--real", real, "-g", "dcgan", "--steps", "2", "--epsilon", "2", "--patients", "40")
    refused = audit(*private)
    assert refused.exit_code == 2
    assert "from epsilon 0 to" in refused.output
    assert "--spend" in refused.output
    assert not (tmp_path / "store").exists()
    assert not Path("runs").exists()
    agreed = audit(*private, "--spend")
    assert agreed.exit_code == 0, agreed.output
    assert "NO CONTRADICTION FOUND" in agreed.output
    assert sum(charge.steps for charge in Ledger("centralised", tmp_path / "store").charges()) == 2


def test_a_run_is_audited_by_its_own_settings(real: Path) -> None:
    assert run("train", real, "-g", "dcgan", "--steps", "2", "--sheets", "0", "--run", "runs/one").exit_code == 0
    found = audit("--claim", "50")
    assert found.exit_code == 0, found.output
    assert "the newest run: runs/one" in found.output
    assert found.stdout.startswith("reach      40 canaries prove at most epsilon")
    assert "--mechanism finds" in found.stdout
    assert Path("runs/one/benchmarks/audit.json").is_file()
    assert len(list(Path("runs/one/audits").iterdir())) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-g", "dcgan"), "give --real SET"),
        (("--real", "real"), "give --generator NAME"),
        (("--real", "nowhere", "-g", "dcgan"), "there is no such folder"),
        (("--real", "real", "-g", "dcgna"), "did you mean 'dcgan'"),
        (("--real", "real", "-g", "dcgan", "--canaries", "5"), "--canaries must be at least 20"),
        (("--real", "real", "-g", "dcgan", "--epsilon", "1"), "--patients N"),
        (("--real", "real", "-g", "label-gmm"), "never private"),
        (("--mechanism", "--epsilon", "1", "--patients", "40"), "--steps N"),
        (("--real", "real", "-g", "dcgan", "--epsilon", "1", "--epsilon", "2", "--patients", "40"), "one training"),
        (("--mechanism", "--real", "real", "-g", "dcgan"), "the run is not private"),
        ((), "there is no run yet"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(real: Path, arguments: tuple[str, ...], said: str) -> None:
    found = audit(*arguments)
    assert found.exit_code == 2
    assert said in found.output
    assert len(found.output.strip().splitlines()) == 1
    assert not Path("runs").exists()


def test_a_federated_run_is_audited_at_every_hospital(real: Path, tmp_path: Path) -> None:
    place = start(tmp_path, SETTINGS)
    found = audit(place.folder, "--steps", "3", "--claim", "50", "--json")
    client_app.forget_everything()
    assert found.exit_code == 0, found.output
    result = json.loads(found.stdout)
    assert set(result["per_site"]) == {"site-0", "site-1"}
    assert set(result["per_site"]["site-0"]) == {"epsilon_lower_bound"}
    (kept,) = (place.folder / "audits").iterdir()
    assert "rounds = 2" in (kept / "config.toml").read_text()
    refused = audit(place.folder, "--real", real)
    assert refused.exit_code == 2
    assert "has its own hospitals" in refused.output


DECLARED = ("--mechanism", "--patients", "40", "--expected-batch-size", "40", "--steps", "4")


def test_a_declared_mechanism_is_audited_without_images_or_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repeat_coins(monkeypatch)
    monkeypatch.chdir(tmp_path)
    found = audit(*DECLARED, "--epsilon", "2", "--epsilon", "8", "--out", "kept")
    assert found.exit_code == 0, found.output
    assert found.stdout.startswith("reach      the mechanism's own code")
    assert found.stdout.count("NO CONTRADICTION FOUND") == 2
    result = json.loads(Path("kept/benchmarks/audit-mechanism.json").read_text())
    assert [round(one["claim"]) for one in result["details"]["mechanisms"]] == [2, 8]
    wrong = audit(*DECLARED, "--epsilon", "8", "--claim", "1")
    assert wrong.exit_code == 1
    assert "epsilon: at least" in wrong.stdout


def test_the_mechanism_of_a_run_is_audited_and_costs_nobody_anything(
    real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repeat_coins(monkeypatch)
    private = ("--epsilon", "2", "--patients", "40", "--steps", "2", "--sheets", "0")
    assert run("train", real, "-g", "dcgan", *private, "--run", "runs/one").exit_code == 0
    before = Ledger("centralised", tmp_path / "store").charges()
    found = audit("--mechanism", "--json")
    assert found.exit_code == 0, found.output
    (mechanism,) = json.loads(found.stdout)["details"]["mechanisms"]
    assert mechanism["mechanism"]["private-steps"] == before[0].steps == 2
    assert mechanism["mechanism"]["noise"] == before[0].noise
    assert Path("runs/one/benchmarks/audit-mechanism.json").is_file()
    assert Ledger("centralised", tmp_path / "store").charges() == before


def test_every_mechanism_of_a_federation_is_audited_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repeat_coins(monkeypatch)
    monkeypatch.chdir(tmp_path)
    place = start(tmp_path, private_federation(tmp_path, insecure=False))
    found = audit(place.folder, "--mechanism", "--json")
    assert found.exit_code == 0, found.output
    assert len(json.loads(found.stdout)["details"]["mechanisms"]) == 1
    repeatable = start(tmp_path, private_federation(tmp_path), "repeatable")
    refused = audit(repeatable.folder, "--mechanism")
    assert refused.exit_code == 2
    assert "can be repeated" in refused.output
