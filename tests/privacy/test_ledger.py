import contextlib
import json
import os
import signal
import stat
import time
from multiprocessing import get_context

import pytest

from fedsynth.errors import BudgetSpentError, ConfigError, FedSynthError, RefusedError
from fedsynth.privacy.accounting import Budget, Mechanism, epsilon_of
from fedsynth.privacy.ledger import Charge, Ledger, default_store, read_ledger, sites_of
from fedsynth.privacy.patient_tags import Identities
from tests.privacy.prv import prv_bounds


def charge_of(group, **options):
    usual = {"rate": 0.25, "noise": 2.0, "steps": 10, "delta": 1e-5, "run": "a", "round": 0, "patients": group.digest}
    return Charge(**usual | options)


def spend(ledger, patients, **options):
    group = ledger.group(patients)
    ledger.charge(charge_of(group, **options), group)
    return group


def epsilon(steps, noise=2.0):
    return epsilon_of([Mechanism(rate=0.25, noise=noise, steps=steps)], 1e-5)


def names(first, last):
    return [f"patient-{i}" for i in range(first, last)]


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


def test_a_line_has_the_agreed_keys_and_names_no_patient(store):
    ledger = Ledger("north", store)
    spend(ledger, names(0, 5), round=3)
    (line,) = (store / "north" / "ledger.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert list(record) == ["unit", "adjacency", "rate", "noise", "steps", "delta", "run", "round", "patients"]
    assert (record["unit"], record["adjacency"], record["round"]) == ("patient", "add/remove", 3)
    for path in store.rglob("*"):
        assert path.is_dir() or "patient-" not in path.read_text()


def test_salt_and_tags_are_the_owners_alone_and_another_store_has_other_tags(tmp_path, store):
    group = spend(Ledger("north", store), names(0, 2))
    for path in (store / "salt", store / ".lock", store / "patients" / f"{group.digest}.tags"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with Ledger("north", tmp_path / "new" / "store")._locked():
        assert stat.S_IMODE((tmp_path / "new" / "store").stat().st_mode) == 0o700
    assert Ledger("north", tmp_path / "other").group(names(0, 2)).tags.isdisjoint(group.tags)


def test_the_same_patients_have_the_same_digest_in_any_order_and_as_another_image_set(store):
    ledger = Ledger("north", store)
    assert ledger.group(names(0, 5)) == ledger.group(names(0, 5)[::-1] * 2) == Ledger("south", store).group(names(0, 5))
    assert ledger.group(names(0, 5)).digest != ledger.group(names(0, 6)).digest


def test_reruns_on_the_same_patients_add_and_the_outside_accountant_agrees(store):
    ledger = Ledger("north", store)
    spend(ledger, names(0, 5), run="a", steps=100)
    spend(ledger, names(0, 5), run="b", steps=50, noise=3.0)
    blocks = [Mechanism(rate=0.25, noise=2.0, steps=100), Mechanism(rate=0.25, noise=3.0, steps=50)]
    low, high = prv_bounds(blocks, 1e-5)
    account = ledger.account()
    assert low <= account.spent.epsilon <= high
    assert account.runs == ("a", "b")
    assert account.spent.epsilon > max(epsilon(100), epsilon(50, 3.0))


def test_partial_overlap_adds_only_for_those_who_were_in_both(store):
    """By hand: 0-5 meet run a, 4-9 run b, 20-25 run c; patient 4 is the one who paid most, a and b together."""
    ledger = Ledger("north", store)
    spend(ledger, names(0, 5), run="a", steps=20)
    spend(ledger, names(4, 9), run="b", steps=30)
    spend(ledger, names(20, 25), run="c", steps=40)
    account = ledger.account()
    assert (account.steps, account.runs) == (50, ("a", "b"))
    assert account.spent.epsilon == epsilon(50)


def test_disjoint_patients_spend_in_parallel_and_shared_ones_add_across_sites(store):
    north, south = Ledger("north", store), Ledger("south", store)
    spend(north, names(0, 5), steps=30)
    spend(south, names(5, 9), steps=20)
    assert north.account().steps == 30
    assert south.account().steps == 20
    spend(south, names(4, 9), steps=7)  # one of the north's patients turns up in the south
    assert north.account().steps == 37
    assert south.account().steps == 37


def test_a_group_whose_tags_are_lost_counts_for_everybody(store):
    ledger = Ledger("north", store)
    lost = spend(ledger, names(0, 5), steps=30)
    (store / "patients" / f"{lost.digest}.tags").unlink()
    spend(ledger, names(50, 55), steps=20)
    assert ledger.account().steps == 50
    Ledger("north", store).check(ledger.group(names(90, 95)), [], Budget(epsilon=epsilon(30), delta=1e-5))
    with pytest.raises(RefusedError):
        ledger.check(ledger.group(names(90, 95)), [], Budget(epsilon=epsilon(30) * 0.9, delta=1e-5))


def test_a_forecast_is_that_of_the_patient_who_has_spent_most(store):
    """By hand: of 4-9 only patient 4 met run a."""
    ledger = Ledger("north", store)
    spend(ledger, names(0, 5), run="a", steps=20)
    spend(ledger, names(8, 20), run="b", steps=5)
    group = ledger.group(names(4, 9))
    assert ledger.forecast(group, [charge_of(group, steps=10).mechanism], 1e-5) == (epsilon(20), epsilon(30))
    assert [charge.run for charge in ledger.charges()] == ["a", "b"]


def test_where_nobody_knows_who_was_in_a_block_one_patient_was_in_all(store):
    ledger = Ledger("north", store)
    lost = spend(ledger, names(0, 5), steps=30)
    (store / "patients" / f"{lost.digest}.tags").unlink()
    assert ledger.account().steps == 30
    spend(ledger, names(5, 6), run="b", steps=20)
    spend(ledger, names(6, 7), run="c", steps=10)
    assert ledger.account().steps == 60


def test_a_charge_is_for_the_group_that_it_names_and_within_the_steps_of_its_run(store):
    ledger = Ledger("north", store)
    group = ledger.group(names(0, 5))
    with pytest.raises(ValueError, match="must name the group"):
        ledger.charge(charge_of(group), ledger.group(names(0, 4)))
    ledger.charge(charge_of(group, steps=10), group, most=15)
    with pytest.raises(BudgetSpentError, match="6 private steps are asked for and 5 are left"):
        ledger.charge(charge_of(group, steps=6), group, most=15)
    ledger.charge(charge_of(group, steps=5), group, most=15)
    ledger.charge(charge_of(group, run="b", steps=15), group, most=15)
    assert [charge.steps for charge in ledger.charges()] == [10, 5, 15]


def test_a_run_directory_is_no_store(tmp_path):
    (tmp_path / "config.toml").write_text("")
    with pytest.raises(RefusedError, match="is a run directory"):
        Ledger("north", tmp_path)


def test_tags_that_were_changed_are_not_believed(store):
    ledger = Ledger("north", store)
    group = spend(ledger, names(0, 5))
    path = store / "patients" / f"{group.digest}.tags"
    path.write_text("\n".join(path.read_text().splitlines()[:-2]) + "\n")  # somebody takes two patients off the list
    assert Identities(store).tags(group.digest) is None


def test_without_the_salt_a_store_with_ledgers_is_refused(store):
    spend(Ledger("north", store), names(0, 5))
    (store / "salt").unlink()
    with pytest.raises(FedSynthError, match="its salt is gone"):
        Ledger("north", store).group(names(0, 5))
    (store / "salt").write_text("zz")
    with pytest.raises(FedSynthError, match="salt cannot be read"):
        Ledger("north", store).group(names(0, 5))


def test_a_cap_is_checked_for_the_patient_who_has_spent_most_before_the_start_and_at_every_charge(store):
    ledger = Ledger("north", store)
    cap = Budget(epsilon=epsilon(100) * 1.001, delta=1e-5)
    first, second = ledger.group(names(0, 5)), ledger.group(names(4, 9))
    ledger.check(first, [charge_of(first, steps=100).mechanism], cap)
    ledger.charge(charge_of(first, steps=60), first, cap=cap)
    with pytest.raises(RefusedError, match=r"site north allows epsilon .* is spent and this would make it"):
        ledger.check(second, [charge_of(second, steps=41).mechanism], cap)
    ledger.charge(charge_of(second, run="b", steps=40), second, cap=cap)
    with pytest.raises(RefusedError):
        ledger.charge(charge_of(second, run="b", steps=1), second, cap=cap)
    assert [charge.steps for charge in ledger.charges()] == [60, 40]
    assert not (store / "south").exists()


def _grab(store, cap):
    ledger = Ledger("north", store)
    group = ledger.group(["x", "y"])
    for _ in range(8):
        with contextlib.suppress(RefusedError):
            ledger.charge(charge_of(group, run="r", steps=5), group, cap=cap)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_two_processes_cannot_both_take_the_last_of_a_budget(store):
    cap = Budget(epsilon=epsilon(40) * 1.0001, delta=1e-5)
    workers = [get_context("fork").Process(target=_grab, args=(store, cap)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert Ledger("north", store).steps_charged("r") == 40


def _work(store, pipe):
    ledger = Ledger("north", store)
    group = ledger.group(["x", "y"])
    while True:
        ledger.charge(charge_of(group, run="r", steps=1), group)
        os.write(pipe, b"x")  # the step's result leaves


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_kill_at_any_point_never_under_counts_and_over_counts_by_one_block_at_most(store):
    before = 0
    for seconds in (0.005, 0.02, 0.04, 0.05, 0.11):
        reading, writing = os.pipe()
        child = get_context("fork").Process(target=_work, args=(store, writing))
        child.start()
        os.close(writing)
        released = len(os.read(reading, 1))
        time.sleep(seconds)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        with os.fdopen(reading, "rb") as pipe:
            released += len(pipe.read())
        charged = Ledger("north", store).steps_charged("r") - before
        assert released <= charged <= released + 1
        before += charged


@pytest.mark.parametrize("cut", [1, 2, 30, 100])
def test_a_line_cut_off_by_a_crash_neither_stops_nor_loses_the_others(store, cut):
    ledger = Ledger("north", store)
    spend(ledger, names(0, 5), steps=10)
    spend(ledger, names(0, 5), steps=20)
    os.truncate(ledger.path, ledger.path.stat().st_size - cut)
    kept = [10, 20] if cut == 1 else [10]  # only the end of the line was missing: it is whole and counts
    assert [charge.steps for charge in ledger.charges()] == kept
    spend(ledger, names(0, 5), steps=40)
    assert [charge.steps for charge in ledger.charges()] == [*kept, 40]
    assert ledger.path.read_text().endswith("\n")


def test_a_charge_and_the_folders_of_a_new_ledger_are_on_the_disk_when_it_returns(store, monkeypatch):
    """A line that only the system's memory holds is lost with the power, after the step has left."""
    ledger, synced, sync = Ledger("north", store), [], os.fsync

    def noting(handle):
        synced.append((os.fstat(handle).st_ino, os.fstat(handle).st_size))
        sync(handle)

    group = spend(ledger, names(0, 5))
    for path in (ledger.path, ledger.path.parent):
        assert path.exists()
    ledger.path.unlink()
    monkeypatch.setattr(os, "fsync", noting)
    ledger.charge(charge_of(group), group)
    file = (ledger.path.stat().st_ino, ledger.path.stat().st_size)
    folders = [path.stat().st_ino for path in (store / "north", store)]
    assert synced[0] == file
    assert [inode for inode, _ in synced[1:]] == folders
    synced.clear()
    ledger.charge(charge_of(group), group)
    assert synced == [(ledger.path.stat().st_ino, ledger.path.stat().st_size)]


WRONG_RATE = '{"rate": 2, "noise": 1, "steps": 1, "delta": 1e-5, "run": "a", "round": 0, "patients": ""}'


@pytest.mark.parametrize("damage", ["{}", "not json", '{"steps": 1}', WRONG_RATE])
def test_a_damaged_line_in_the_middle_stops_everything_with_its_row(store, damage):
    ledger = Ledger("north", store)
    spend(ledger, names(0, 5))
    ledger.path.write_text(damage + "\n" + ledger.path.read_text())
    with pytest.raises(FedSynthError, match=r"row 1: the ledger is damaged"):
        ledger.account()


def test_a_ledger_that_is_no_text_stops_everything(store):
    ledger = Ledger("north", store)
    spend(ledger, names(0, 5))
    ledger.path.write_bytes(b"\xff" + ledger.path.read_bytes())
    with pytest.raises(FedSynthError, match="the ledger cannot be read"):
        ledger.account()


def test_a_ledger_of_another_unit_is_not_composed(store):
    ledger = Ledger("north", store)
    spend(ledger, names(0, 5))
    ledger.path.write_text(ledger.path.read_text().replace('"patient"', '"image"') * 2)
    with pytest.raises(FedSynthError, match="cannot be composed"):
        ledger.charges()


def test_insecure_runs_are_named_and_stamped(store):
    ledger = Ledger("north", store)
    spend(ledger, names(0, 5), run="a")
    spend(ledger, names(0, 5), run="test", insecure=True)
    assert json.loads(ledger.path.read_text().splitlines()[1])["insecure"] is True
    assert ledger.account().not_private == ("test",)


def test_epsilon_is_reported_at_the_smallest_declared_delta(store):
    ledger = Ledger("north", store)
    spend(ledger, names(0, 5), delta=1e-5)
    spend(ledger, names(0, 5), delta=1e-6)
    assert ledger.account().spent.delta == 1e-6
    assert ledger.account(1e-4).spent.epsilon < ledger.account().spent.epsilon


def test_steps_of_one_run_are_counted_over_restarts(store):
    spend(Ledger("north", store), names(0, 5), run="a", steps=10)
    spend(Ledger("north", store), names(0, 5), run="b", steps=99)
    spend(Ledger("north", store), names(0, 5), run="a", steps=5)
    assert Ledger("north", store).steps_charged("a") == 15
    assert [charge.steps for charge in Ledger("north", store).charges("a")] == [10, 5]


@pytest.mark.parametrize("site", ["..", "a/b", ".hidden", "St. Mary's / ward 3", "São Paulo"])
def test_a_site_may_have_any_name_and_never_leaves_the_store(site, store):
    ledger = Ledger(site, store)
    spend(ledger, names(0, 3))
    assert ledger.path.parent.parent == store
    assert sites_of(store) == [site]


def test_of_two_processes_that_make_a_salt_the_first_counts(store):
    """The other may have tagged patients with its own already."""
    spend(Ledger("north", store), names(0, 3))
    tags = Identities(store).group(names(0, 3)).tags
    (store / "north" / "ledger.jsonl").rename(store / "ledger.jsonl")  # as if nothing had been charged yet
    Identities(store)._make_salt(store / "salt")
    assert Identities(store).group(names(0, 3)).tags == tags
    assert not list(store.glob(".salt*"))


def test_a_salt_is_whole_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced, sync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle)) or sync(handle))
    salt = tmp_path / "new" / "store" / "salt"
    assert len(Identities(salt.parent).fingerprint("x")) == 32
    ((inode, size),) = {(one.st_ino, one.st_size) for one in synced}
    assert (inode, size) == (salt.stat().st_ino, 64), "32 bytes in hexadecimal"


def test_whether_somebody_is_in_a_group_is_unknown_without_its_tags(store):
    group, identities = spend(Ledger("north", store), names(0, 5)), Identities(store)
    assert identities.shares(names(4, 9), group.digest) is True
    assert identities.shares(names(5, 9), group.digest) is False
    assert identities.shares(names(4, 9), "0" * 32) is None
    assert identities.shares(names(4, 9), "") is None


def test_a_store_that_was_made_for_a_hash_is_the_owners_alone(store):
    """Whoever reads the salt can try names, and contents."""
    assert len(Identities(store).fingerprint("x")) == 32
    assert [stat.S_IMODE(path.stat().st_mode) for path in (store, store / "salt")] == [0o700, 0o600]
    other = store.parent / "empty"
    other.mkdir()
    assert Identities(other).fingerprint("x") != Identities(store).fingerprint("x")


def test_a_site_without_a_name_is_refused(store):
    with pytest.raises(RefusedError, match="name of its site"):
        Ledger("", store)


def test_a_run_holds_a_copy_of_its_own_charges(store, tmp_path):
    ledger = Ledger("north", store)
    spend(ledger, names(0, 5), run="a", steps=10)
    spend(ledger, names(0, 5), run="b", steps=99)
    ledger.copy("b", tmp_path / "run" / "ledger.jsonl")
    assert read_ledger(tmp_path / "run" / "ledger.jsonl") == ledger.charges("b")


def test_nobody_to_charge_is_refused(store):
    with pytest.raises(RefusedError, match="named patients"):
        Ledger("north", store).group([])


def test_an_unknown_ledger_is_empty_and_reading_makes_nothing(store):
    assert read_ledger(store / "north" / "ledger.jsonl") == []
    assert not store.exists()
    account = Ledger("north", store).account()
    assert (account.spent.epsilon, account.spent.delta, account.steps, account.runs) == (0, 1e-5, 0, ())


def test_a_store_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises((FedSynthError, ConfigError)):
        Ledger("north", tmp_path / "file").group(["x"])


def test_the_store_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("FEDSYNTH_STORE", str(tmp_path / "a"))
    assert default_store() == tmp_path / "a"
    monkeypatch.delenv("FEDSYNTH_STORE")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "b"))
    assert default_store() == tmp_path / "b" / "fedsynth"
