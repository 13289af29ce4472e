"""docs/backup.md: a hospital that is lost and restored, a server that is, and a run that an earlier version began."""

import csv
import shutil
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from fedsynth.errors import ConfigError, FedSynthError
from fedsynth.federation.deploy.preflight import check_site
from fedsynth.federation.rounds import Progress
from fedsynth.federation.settings import FederationSettings
from fedsynth.runs import Run
from tests.federation.deploy.real_sites import NAMES, deployed, serve, set_policy
from tests.federation.tiny import SETTINGS, assert_same, private
from tests.training.tiny import tiny_set

BEGUN = Path(__file__).parent / "runs" / "begun-at-53e04e8.tar.xz"
PLAIN = replace(SETTINGS, rounds=4)


class Stopped(Exception):
    pass


def plain(folder: Path) -> Path:
    folder.mkdir()
    out = deployed(folder, tiny_set())
    for name in NAMES:
        set_policy(out, name, **{"max-epsilon": None, "allow-plain": True})
    return out


def stopped_after(out: Path, settings: FederationSettings, rounds: int) -> None:
    def watch(progress: Progress) -> None:
        if progress.replies and progress.round == rounds:
            raise Stopped

    with pytest.raises(Stopped):
        serve(out, settings, watch=watch)


def back_up(out: Path, name: str, when: str = "") -> Path:
    """As the page says."""
    kept = out.parent / f"{name}{when}.tar"
    subprocess.run(["tar", "--create", "--file", kept, "--directory", out, name], check=True)
    return kept


def lose_and_restore(out: Path, name: str, kept: Path) -> None:
    shutil.rmtree(out / name)
    subprocess.run(["tar", "--extract", "--file", kept, "--directory", out], check=True)


def test_a_hospital_and_a_server_that_were_restored_end_the_run_to_the_bit(tmp_path: Path) -> None:
    whole = serve(plain(tmp_path / "whole"), PLAIN)
    out = plain(tmp_path / "broken")
    stopped_after(out, PLAIN, 2)
    kept = {name: back_up(out, name) for name in ("south", "server")}
    stopped_after(out, PLAIN, 3)  # trained after the backup, and lost at the server alone: hospitals send it again
    lose_and_restore(out, "server", kept["server"])
    stopped_after(out, PLAIN, 3)
    kept["south"] = back_up(out, "south")
    lose_and_restore(out, "south", kept["south"])
    assert_same(Run(folder=serve(out, PLAIN)), Run(folder=whole))


def test_a_ledger_that_is_older_than_the_run_is_refused_and_the_newer_one_helps(tmp_path: Path) -> None:
    out = deployed(tmp_path, tiny_set())
    for name in NAMES:
        set_policy(out, name, delta=1e-3)
    settings = replace(private(tmp_path, insecure=False), rounds=3)
    stopped_after(out, settings, 1)
    old = back_up(out, "south", "-before")
    stopped_after(out, settings, 2)
    new = back_up(out, "south")
    lose_and_restore(out, "south", old)
    with pytest.raises(FedSynthError, match="south: its ledger lacks private steps"):
        serve(out, settings)
    lose_and_restore(out, "south", new)
    with (serve(out, settings) / "rounds.csv").open(newline="") as file:
        assert [row["answered"] for row in csv.DictReader(file)][-2:] == ["true", "true"]


def test_a_ledger_that_is_older_than_a_finished_run_is_refused(tmp_path: Path) -> None:
    """Before, the check called the budget free, and the next run was charged beyond the cap."""
    out = deployed(tmp_path, tiny_set())
    for name in NAMES:
        set_policy(out, name, delta=1e-3)
    settings = replace(private(tmp_path, insecure=False), rounds=1)
    serve(out, settings)
    ledger = out / "south/ledger/south/ledger.jsonl"
    whole, lines = ledger.read_text(), ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join(lines[:-1]))
    (found,) = [one for one in check_site(out / "south/site.toml") if one.what == "ledger"]
    assert found.state == "problem"
    assert "lacks 1 charge(s)" in found.text
    with pytest.raises(FedSynthError, match="south: its ledger lacks private steps"):
        serve(out, replace(settings, seed=1), run="second")
    assert ledger.read_text() == "".join(lines[:-1])  # nobody was charged
    ledger.write_text(whole)
    (found,) = [one for one in check_site(out / "south/site.toml") if one.what == "ledger"]
    assert found.state == "ok"


def test_a_run_that_an_earlier_version_began_is_ended(tmp_path: Path) -> None:
    """Two of four rounds were done by the commit in the file's name; all that it wrote is read."""
    out = plain(tmp_path / "upgraded")
    with tarfile.open(BEGUN) as kept:
        kept.extractall(out, filter="data")
    settings = replace(PLAIN, options={"latent": 2, "hidden": [4], "discriminator_hidden": [4]})
    with pytest.raises(ConfigError, match="the run was started with count = 400, not 500"):
        serve(out, settings)  # a default that has changed since: the difference is named
    run = serve(out, replace(settings, count=400))
    with (run / "rounds.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["round"], row["site"], row["answered"], row["note"]) for row in rows] == [
        (str(number), name, "true", "") for number in (1, 2, 3, 4) for name in NAMES
    ]
    assert (run / "checkpoints/generator.safetensors").exists()
    for name in NAMES:
        (state,) = (out / name / "state").glob("run-*/state-000004.safetensors")
        assert state.exists()
