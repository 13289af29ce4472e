"""What is lost or damaged between two starts of a run: the run says so, and goes on from what is whole."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fedsynth.cli.rounds_screen import Screen
from fedsynth.errors import FedSynthError, RefusedError
from fedsynth.federation import client_app, server_app
from fedsynth.federation.charge_totals import ChargeTotals
from fedsynth.federation.checkpoints import ROWS, newest_checkpoint
from fedsynth.federation.egress_log import read_egress
from fedsynth.federation.error_codes import ErrorCode
from fedsynth.federation.exchange import Order, Outcome
from fedsynth.federation.messages import Reply
from fedsynth.federation.round_log import LogMark
from fedsynth.federation.rounds import Progress
from fedsynth.models.base import ImageShape
from fedsynth.privacy.ledger import Ledger
from fedsynth.runs import Run
from fedsynth.training.session import fresh_family, plan_privacy
from fedsynth.training.site_storage import SiteStorage
from tests.federation.tiny import SETTINGS, assert_same, go, killed_after, private, rows, simulated, start

EARLIER = "its newest state was damaged: it went on from an earlier one"
ANEW = "it began anew: it has no state of an earlier round"
LEDGER = "its ledger lacks private steps that it was charged"


def flip(path: Path) -> None:
    """One bit in the middle of the weights."""
    content = bytearray(path.read_bytes())
    content[-len(content) // 4] ^= 1
    path.write_bytes(bytes(content))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def notes(run: Run) -> dict[tuple[str, str], str]:
    return {(row["round"], row["site"]): row["note"] for row in rows(run) if row["note"]}


def resumed(run: Run, settings: object) -> list[str]:
    """Go on, and what a screen is told beside the rows."""
    said: list[str] = []

    def watch(progress: Progress) -> None:
        said.extend([*progress.notes, *(f"{reply.site}: {reply.note}" for reply in progress.replies if reply.note)])

    go(run, settings, watch=watch)  # type: ignore[arg-type]
    return said


@pytest.mark.parametrize("damage", [flip, cut])
def test_a_damaged_checkpoint_of_the_server_is_done_again(
    tmp_path: Path, whole: Run, damage: Callable[[Path], None]
) -> None:
    broken = killed_after(tmp_path, SETTINGS, 2)
    damage(broken.checkpoints / "round-0002.safetensors")
    said = resumed(broken, SETTINGS)
    assert_same(whole, broken)
    why = "the server's checkpoint of exchange 2 was damaged: done again"
    assert said[0] == why
    assert notes(broken) == {("2", "site-0"): why, ("2", "site-1"): why}
    assert [row["round"] for row in rows(broken)] == ["1", "1", "2", "2", "3", "3"]


def test_a_run_without_any_whole_checkpoint_does_not_begin_from_nothing(tmp_path: Path) -> None:
    settings = replace(SETTINGS, rounds=5)
    broken = killed_after(tmp_path, settings, 4)
    for path in broken.checkpoints.glob("round-*"):
        flip(path)
    with pytest.raises(FedSynthError, match="no checkpoint of the run is whole"):
        go(broken, settings)
    for path in broken.checkpoints.glob("round-*"):
        path.unlink()
    with pytest.raises(FedSynthError, match="the checkpoints of the run are gone"):
        go(broken, settings)
    assert len(rows(broken)) == 8


def test_a_run_whose_first_checkpoint_is_damaged_begins_again_and_says_so(tmp_path: Path, whole: Run) -> None:
    broken = killed_after(tmp_path, SETTINGS, 1)
    flip(broken.checkpoints / "round-0001.safetensors")
    resumed(broken, SETTINGS)
    assert_same(whole, broken)
    why = "the server's checkpoint of exchange 1 was damaged: done again"
    assert notes(broken) == {("1", "site-0"): why, ("1", "site-1"): why}


@pytest.mark.parametrize("damage", [flip, cut])
def test_a_site_goes_on_from_its_older_state_and_says_so(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    broken = killed_after(tmp_path, SETTINGS, 2)
    damage(broken.site("site-0") / "state-000002.safetensors")
    said = resumed(broken, SETTINGS)
    assert {row["answered"] for row in rows(broken)} == {"true"}
    assert notes(broken) == {("3", "site-0"): EARLIER}
    assert said == [f"site-0: {EARLIER}"]
    assert EARLIER in read_egress(broken.site("site-0") / "egress.jsonl")[-1]["content"]
    assert "state-000002" in (broken.site("site-0") / "site.log").read_text()


@pytest.mark.parametrize("all_damaged", [True, False])
def test_a_site_that_lost_its_folder_begins_anew_and_says_so(tmp_path: Path, all_damaged: bool) -> None:
    broken = killed_after(tmp_path, SETTINGS, 2)
    if all_damaged:
        for path in broken.site("site-0").glob("state-*"):
            cut(path)
    else:
        shutil.rmtree(broken.site("site-0"))
    resumed(broken, SETTINGS)
    assert notes(broken) == {("3", "site-0"): ANEW}


def test_a_folder_that_goes_while_the_run_goes_on_is_seen(tmp_path: Path) -> None:
    run = start(tmp_path, SETTINGS)

    def watch(progress: Progress) -> None:
        if progress.replies and progress.round == 2:
            shutil.rmtree(run.site("site-0"))

    go(run, SETTINGS, watch=watch)
    assert notes(run) == {("3", "site-0"): ANEW}


def test_who_comes_later_begins_and_does_not_begin_anew(tmp_path: Path) -> None:
    settings = replace(SETTINGS, sites=3, min_sites=1, inject="dropout=0.5", rounds=4, seed=3)
    run = simulated(tmp_path, settings)
    first = {row["site"]: row["answered"] for row in rows(run) if row["round"] == "1"}
    assert "false" in first.values()
    assert notes(run) == {}


def test_a_sampler_that_was_never_trained_is_not_sent(tmp_path: Path) -> None:
    settings = replace(SETTINGS, federation="one-shot", min_sites=1)
    broken = killed_after(tmp_path, settings, 3)
    (broken.checkpoints / "round-0004.safetensors").unlink(missing_ok=True)
    shutil.rmtree(broken.site("site-0"))
    go(broken, settings)
    assert {row["site"]: row["reason"] for row in rows(broken) if row["round"] == "4"} == {
        "site-0": "lost what it had trained",
        "site-1": "",
    }


def test_a_private_site_that_lost_its_folder_pays_by_its_ledger(tmp_path: Path) -> None:
    settings = private(tmp_path, insecure=False)
    broken = killed_after(tmp_path, settings, 2)
    name = (broken.site("site-0") / "ledger-name").read_text()
    shutil.rmtree(broken.site("site-0"))
    go(broken, settings)
    assert notes(broken) == {("3", "site-0"): ANEW}
    assert (broken.site("site-0") / "ledger-name").read_text() == name
    assert sum(charge.steps for charge in Ledger("site-0", tmp_path / "store").charges()) == 6
    assert [row["charged"] for row in rows(broken) if row["site"] == "site-0"] == ["2", "4", "6"]


def test_a_private_site_with_a_damaged_state_never_trains_for_free(tmp_path: Path) -> None:
    settings = private(tmp_path, insecure=False)
    broken = killed_after(tmp_path, settings, 2)
    (broken.checkpoints / "round-0002.safetensors").unlink()
    flip(broken.site("site-0") / "state-000002.safetensors")
    go(broken, settings)
    told = {row["round"]: row for row in rows(broken) if row["site"] == "site-0"}
    assert (told["2"]["steps"], told["2"]["charged"]) == ("2", "6")  # round 2 was charged again
    assert (told["3"]["steps"], told["3"]["charged"]) == ("0", "6")
    assert notes(broken) == {("2", "site-0"): EARLIER}
    assert sum(charge.steps for charge in Ledger("site-0", tmp_path / "store").charges()) == 6


def test_a_site_that_lost_folder_and_ledger_is_refused_before_it_trains(tmp_path: Path) -> None:
    settings = replace(private(tmp_path, insecure=False), min_sites=1)
    broken = killed_after(tmp_path, settings, 2)
    before = {row["site"]: float(row["epsilon"]) for row in rows(broken)}
    shutil.rmtree(broken.site("site-0"))
    shutil.rmtree(tmp_path / "store" / "site-0")
    go(broken, settings)
    last = {row["site"]: row for row in rows(broken) if row["round"] == "3"}
    assert last["site-0"]["reason"] == LEDGER
    assert float(last["site-0"]["epsilon"]) == before["site-0"]
    assert last["site-0"]["charged"] == "4"
    assert last["site-1"]["charged"] == "6"
    assert Ledger("site-0", tmp_path / "store").charges() == []
    assert "put its ledger back" in (broken.site("site-0") / "site.log").read_text()


def test_what_sites_told_in_a_round_that_failed_is_kept(tmp_path: Path) -> None:
    settings = private(tmp_path, insecure=False)
    broken = killed_after(tmp_path, settings, 2)
    place = broken.site("site-1") / "state-000003.safetensors"
    place.mkdir()  # its disk is not what it should be
    with pytest.raises(FedSynthError, match="1 of 2 sites answered"):
        go(broken, settings)
    found, _ = newest_checkpoint(broken.checkpoints)
    assert found is not None
    assert (found.round, found.charged) == (2, {"site-0": 6, "site-1": 4})
    client_app.forget_everything()
    place.rmdir()
    go(broken, settings)
    assert [row["charged"] for row in rows(broken)] == ["2", "2", "4", "4", "6", "6"]


def test_too_few_with_their_ledgers_are_told_what_to_do(tmp_path: Path) -> None:
    settings = private(tmp_path, insecure=False)
    broken = killed_after(tmp_path, settings, 2)
    shutil.copytree(tmp_path / "store", tmp_path / "backup")
    shutil.copytree(broken.site("site-0"), tmp_path / "folder")
    shutil.rmtree(broken.site("site-0"))
    shutil.rmtree(tmp_path / "store" / "site-0")
    with pytest.raises(FedSynthError, match="put the site's ledger and folder back"):
        go(broken, settings)
    client_app.forget_everything()
    shutil.rmtree(broken.site("site-0"))
    shutil.copytree(tmp_path / "folder", broken.site("site-0"))
    shutil.copytree(tmp_path / "backup" / "site-0", tmp_path / "store" / "site-0", dirs_exist_ok=True)
    go(broken, settings)
    assert [row["charged"] for row in rows(broken)] == ["2", "2", "4", "4", "6", "6"]


def test_the_round_log_is_written_again_from_the_checkpoint(tmp_path: Path) -> None:
    whole = killed_after(tmp_path, SETTINGS, 2)
    before = whole.rounds.read_text()
    whole.rounds.unlink()
    said = resumed(whole, SETTINGS)
    assert [row["round"] for row in rows(whole)] == ["1", "1", "2", "2", "3", "3"]
    assert whole.rounds.read_text().startswith(before)
    assert said[0] == "the round log lacked rounds: written again from the checkpoint"
    whole.rounds.write_text(before)  # a finished run too
    resumed(whole, SETTINGS)
    assert len(rows(whole)) == 6


def test_a_checkpoint_holds_the_totals_that_sites_told(tmp_path: Path) -> None:
    run = killed_after(tmp_path, private(tmp_path, insecure=False), 2)
    found, damaged = newest_checkpoint(run.checkpoints)
    assert found is not None
    assert (found.charged, damaged) == ({"site-0": 4, "site-1": 4}, [])
    assert len(found.norms) == 2
    rows = (run.checkpoints / ROWS).read_bytes()
    assert found.log == LogMark(bytes=len(rows), sha256=hashlib.sha256(rows).hexdigest())
    assert rows.count(b"\n") == 4


def test_the_round_log_is_added_to_and_either_of_its_two_files_makes_up_for_the_other(tmp_path: Path) -> None:
    settings = replace(SETTINGS, rounds=4)
    run = killed_after(tmp_path, settings, 2)
    table, rows = run.rounds, run.checkpoints / ROWS
    before, place = table.read_text(), table.stat().st_ino
    content = bytearray(rows.read_bytes())
    content[20] ^= 1
    rows.write_bytes(bytes(content))
    go(run, replace(settings))
    assert table.read_text().startswith(before)
    assert table.stat().st_ino == place  # no round wrote it anew
    assert [row["round"] for row in map(json.loads, rows.read_bytes().splitlines())] == list("11223344")
    other = killed_after(tmp_path, settings, 2, "other")
    for file in (other.rounds, other.checkpoints / ROWS):
        file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(FedSynthError, match="the round log is damaged, and so is the list"):
        go(other, settings)


def test_a_site_that_tells_of_fewer_steps_than_before_is_refused_and_the_total_never_falls(tmp_path: Path) -> None:
    """One that does not look at its order: what it knew and what it tells of now were both spent."""
    settings = private(tmp_path)
    training = settings.training()
    family = fresh_family(training, ImageShape(channels=1, size=(8, 8), n_classes=2, n_labels=0))
    plan = plan_privacy(training, family, settings.total_steps)
    totals = ChargeTotals(plan, family, known={"a": 4.0}, most={"a": 4.0})
    order = Order(round=3, first_step=4, steps=2, experiment="x")
    assert totals.order_for("a", order).charged == 4
    found = []
    for told in (2.0, 4.0, 6.0, 2.0):  # lost again before the last
        reply = totals.counted(Reply(site="a", outcome=Outcome(metrics={"charged": told})), order)
        found.append((reply.reason, reply.outcome.metrics["charged"]))
    assert found == [
        (ErrorCode.LEDGER, 6.0),
        (ErrorCode.LEDGER, 8.0),
        (ErrorCode.LEDGER, 10.0),
        (ErrorCode.LEDGER, 12.0),
    ]
    late = totals.counted(Reply(site="a", reason=ErrorCode.LATE), order)
    assert late.outcome.metrics["charged"] == 12.0
    assert totals.order_for("a", order).charged == 12


def test_screens_tell_what_was_lost(capsys: pytest.CaptureFixture[str]) -> None:
    reply = Reply(site="north", note=ANEW)
    for watch in (Screen(SETTINGS).watch, server_app._say):
        watch(Progress(round=2, rounds=3, notes=("a checkpoint was damaged",)))
        watch(Progress(round=2, rounds=3, replies=(reply,)))
        said = "".join(capsys.readouterr())
        assert "a checkpoint was damaged" in said
        assert f"north: {ANEW}" in said


def test_a_lost_folder_whose_ledger_has_two_names_of_the_run_is_refused(tmp_path: Path) -> None:
    storage = SiteStorage(folder=tmp_path / "site", run="run-1", states="state-*")
    first, other = f"run-1-{'0' * 16}", f"run-1-{'1' * 16}"
    with pytest.raises(RefusedError, match="several names"):
        storage.find_name([first, other, first])
    storage.find_name(["run-2", f"run-1-x-{'0' * 16}"])
    assert not (tmp_path / "site").exists()
    storage.find_name([first, first])
    assert storage.ledger_name(phantoms=False) == first
    storage.find_name([first, other])  # it has one already
