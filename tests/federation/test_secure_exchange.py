"""The three exchanges of a secure sum, with real sites on disk and no engine: who drops out when, and what a site
refuses."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from fedsynth.errors import FedSynthError, RefusedError
from fedsynth.federation.error_codes import ErrorCode
from fedsynth.federation.exchange import Arrays, Order, Outcome
from fedsynth.federation.messages import Reply
from fedsynth.federation.secure_exchange import SecureExchange
from fedsynth.federation.secure_site import KEY_NAME, SEED_NAME, VECTOR_NAME, SecureSite
from fedsynth.federation.secure_sum import Roster, as_array, as_bytes, unmasked
from fedsynth.training.fitting import from_grid

NAMES = ("a", "b", "c", "d")
LENGTH = 6
ORDER = Order(round=1, first_step=0, steps=0, experiment="run-1")
Drops = Callable[[Order, str], bool]


def nobody(order: Order, name: str) -> bool:
    return False


@dataclass
class Hospitals:
    """Sites with their disks; `drops` says who does not answer, `lost` whose answer was sent and does not arrive."""

    folder: Path
    fewest: int = 4
    drops: Drops = nobody
    lost: Drops = nobody
    told: list[tuple[str, int, str]] = field(default_factory=list)
    sent: dict[tuple[str, int, str], np.ndarray] = field(default_factory=dict)

    def site(self, name: str) -> SecureSite:
        return SecureSite(self.folder / name, name, fewest=self.fewest, most=4)

    def vector(self, name: str) -> np.ndarray:
        return np.random.default_rng(NAMES.index(name)).integers(-(2**30), 2**30, LENGTH)

    def ask(self, order: Order, asked: Sequence[str], sent: Arrays, expected: Arrays) -> list[Reply]:
        return [self._reply(order, name, sent) for name in asked]

    def _reply(self, order: Order, name: str, sent: Arrays) -> Reply:
        self.told.append((order.stage, order.attempt, name))
        if self.drops(order, name):
            return Reply(site=name, reason=ErrorCode.UNREACHABLE, bytes_down=1)
        sums = from_grid(torch.from_numpy(self.vector(name)), noise=0.5)
        try:
            arrays = self.site(name).answer(order, sent, lambda: sums)
        except RefusedError:
            return Reply(site=name, reason=ErrorCode.REFUSED, bytes_down=1)
        (value,) = arrays.values()
        self.sent[order.stage, order.attempt, name] = value
        if self.lost(order, name):
            return Reply(site=name, reason=ErrorCode.LATE, bytes_down=1)
        return Reply(site=name, outcome=Outcome(arrays=arrays, metrics={"charged": 1.0}), bytes_up=1, bytes_down=1)

    def exchange(self, sites: Sequence[str] = NAMES) -> SecureExchange:
        return SecureExchange(sites, quorum=self.fewest, length=LENGTH, order=ORDER, folder=self.folder, ask=self.ask)

    def total(self, names: Sequence[str] = NAMES) -> list[int]:
        return np.sum([self.vector(name) for name in names], axis=0).tolist()


def test_the_server_learns_the_sum_and_sees_masked_vectors_alone(tmp_path: Path) -> None:
    hospitals = Hospitals(tmp_path)
    exchange = hospitals.exchange()
    summed = exchange.collect()
    assert summed is not None
    assert (summed.total.tolist(), summed.sites) == (hospitals.total(), NAMES)
    assert [(reply.reason, reply.bytes_up, reply.bytes_down) for reply in exchange.replies] == [(None, 3, 3)] * 4
    for name in NAMES:
        masked = hospitals.sent["masked", 0, name].view(np.int64)
        assert np.abs(masked - hospitals.vector(name)).min() > 2**40


def test_who_drops_out_before_the_seeds_makes_the_attempt_void_and_is_left_out_of_the_next(tmp_path: Path) -> None:
    hospitals = Hospitals(tmp_path, fewest=3, lost=lambda order, name: name == "d" and order.stage == "masked")
    exchange = hospitals.exchange()
    summed = exchange.collect()
    assert summed is not None
    assert (summed.total.tolist(), summed.sites) == (hospitals.total("abc"), ("a", "b", "c"))
    assert ("seeds", 0, "a") not in hospitals.told
    assert ("keys", 1, "d") not in hospitals.told
    assert {reply.site: reply.reason for reply in exchange.replies} == dict.fromkeys("abc") | {"d": ErrorCode.LATE}


def test_an_answer_that_comes_late_opens_no_second_sum(tmp_path: Path) -> None:
    """With two sums over other sites the difference would be one site's vector under its own share of noise."""
    hospitals = Hospitals(tmp_path, fewest=3, lost=lambda order, name: name == "d" and order.stage == "masked")
    assert hospitals.exchange().collect() is not None
    keys = {name: as_bytes(hospitals.sent["keys", 0, name]) for name in NAMES}
    given_up = Roster(experiment="run-1", round=1, attempt=0, keys=keys)
    late = {name: hospitals.sent["masked", 0, name] for name in NAMES}  # all of them, that of d too
    on_disk = {
        name: bytes.fromhex(json.loads((tmp_path / name / "secure-sum.json").read_text())["seed"]) for name in NAMES
    }
    opened = unmasked(late, on_disk, given_up)  # even with what the sites still have
    assert np.abs(opened - np.array(hospitals.total())).min() > 2**40
    for name in "abc":  # nor will the sites send those seeds any more
        with pytest.raises(RefusedError, match="no key for this attempt"):
            hospitals.site(name).answer(_staged("seeds", 0), {n: as_array(key) for n, key in keys.items()}, _sums)


def test_where_all_are_needed_the_same_sites_are_asked_again(tmp_path: Path) -> None:
    hospitals = Hospitals(
        tmp_path, drops=lambda order, name: name == "d" and (order.stage, order.attempt) == ("masked", 0)
    )
    summed = hospitals.exchange().collect()
    assert summed is not None
    assert summed.total.tolist() == hospitals.total()
    one, other = (hospitals.sent["masked", attempt, "a"] for attempt in (0, 1))
    assert not np.any(one == other)


def test_too_few_sites_are_no_sum(tmp_path: Path) -> None:
    hospitals = Hospitals(tmp_path, fewest=3, drops=lambda order, name: name in "cd")
    exchange = hospitals.exchange()
    assert exchange.collect() is None
    assert exchange.waiting() is None
    assert not any(stage == "masked" for stage, _, _ in hospitals.told)
    assert [reply.site for reply in exchange.replies if reply.reason is not None] == ["c", "d"]


def test_a_seed_that_is_lost_on_the_way_is_sent_again(tmp_path: Path) -> None:
    hospitals = Hospitals(tmp_path)
    hospitals.lost = lambda order, name: (
        order.stage == "seeds" and name == "b" and hospitals.told.count((order.stage, order.attempt, name)) == 1
    )
    summed = hospitals.exchange().collect()
    assert summed is not None
    assert summed.total.tolist() == hospitals.total()
    assert [name for stage, _, name in hospitals.told if stage == "seeds"] == ["a", "b", "c", "d", "b"]


def test_who_drops_out_after_seeds_were_sent_is_waited_for_and_no_other_sum_is_opened(tmp_path: Path) -> None:
    hospitals = Hospitals(tmp_path, fewest=3, drops=lambda order, name: name == "d" and order.stage == "seeds")
    hospitals.drops = lambda order, name: name == "d" and (order.stage == "seeds" or order.attempt > 0)
    assert hospitals.exchange().collect() is None
    assert not any(stage == "masked" and attempt for stage, attempt, _ in hospitals.told)
    (tmp_path / "secure-sum.json").unlink()  # a server that forgets, and tries it without the missing one
    assert hospitals.exchange().collect() is None
    assert not any(stage == "seeds" and attempt for stage, attempt, _ in hospitals.told)
    hospitals.drops = nobody
    summed = hospitals.exchange().collect()
    assert summed is not None
    assert (summed.total.tolist(), summed.sites) == (hospitals.total(), NAMES)


def test_a_server_that_is_started_again_goes_on_with_the_sites_whose_seeds_it_asked_for(tmp_path: Path) -> None:
    hospitals = Hospitals(
        tmp_path, fewest=3, drops=lambda order, name: name == "d" or (order.stage == "seeds" and name == "c")
    )
    assert hospitals.exchange().collect() is None
    hospitals.drops = nobody
    hospitals.told.clear()
    summed = hospitals.exchange().collect()
    assert summed is not None
    assert (summed.total.tolist(), summed.sites) == (hospitals.total("abc"), ("a", "b", "c"))
    assert "d" not in {name for _, _, name in hospitals.told}


def test_a_sum_whose_masks_do_not_cancel_is_no_sum(tmp_path: Path) -> None:
    hospitals = Hospitals(tmp_path)

    def ask(order: Order, asked: Sequence[str], sent: Arrays, expected: Arrays) -> list[Reply]:
        replies = hospitals.ask(order, asked, sent, expected)
        if order.stage == "masked":
            replies[0].outcome.arrays[VECTOR_NAME] = np.full(LENGTH, 7, np.uint64)
        return replies

    exchange = SecureExchange(NAMES, quorum=4, length=LENGTH, order=ORDER, folder=tmp_path, ask=ask)
    with pytest.raises(FedSynthError, match="do not cancel"):
        exchange.collect()


def test_a_server_that_is_sent_one_key_twice_ends_the_run(tmp_path: Path) -> None:
    hospitals = Hospitals(tmp_path)

    def ask(order: Order, asked: Sequence[str], sent: Arrays, expected: Arrays) -> list[Reply]:
        replies = hospitals.ask(order, asked, sent, expected)
        replies[1].outcome.arrays[KEY_NAME] = replies[0].outcome.arrays[KEY_NAME]
        return replies

    with pytest.raises(FedSynthError, match="one key"):
        SecureExchange(NAMES, quorum=4, length=LENGTH, order=ORDER, folder=tmp_path, ask=ask).collect()


# What one site refuses of a server.


def _staged(stage: str, attempt: int = 0) -> Order:
    return Order(round=1, first_step=0, steps=0, experiment="run-1", attempt=attempt, stage=stage)


def _sums() -> dict[str, torch.Tensor]:
    return from_grid(torch.arange(LENGTH), noise=0.5)


def _begun(tmp_path: Path, attempt: int = 0, fewest: int = 3) -> tuple[SecureSite, Arrays]:
    """Site a after its key, and a list of four sites with it."""
    site = SecureSite(tmp_path / "a", "a", fewest=fewest, most=4)
    own = site.answer(_staged("keys", attempt), {}, _sums)[KEY_NAME]
    others = {
        name: SecureSite(tmp_path / name, name, fewest=3, most=4).answer(_staged("keys", attempt), {}, _sums)[KEY_NAME]
        for name in ("b", "c", "d")
    }
    return site, {"a": own, **others}


def _without(listed: Arrays, name: str) -> Arrays:
    return {site: key for site, key in listed.items() if site != name}


@pytest.mark.parametrize("stage", ["", "train", "sums"])
def test_a_noised_sum_never_leaves_without_masks(tmp_path: Path, stage: str) -> None:
    site, listed = _begun(tmp_path)
    with pytest.raises(RefusedError, match="without its masks"):
        site.answer(_staged(stage), listed, _sums)


def test_a_list_with_too_few_or_too_many_sites_is_refused(tmp_path: Path) -> None:
    site, listed = _begun(tmp_path)
    few = _without(_without(listed, "b"), "c")
    for wrong in (few, {"a": listed["a"]}, listed | {"e": np.arange(32, dtype=np.uint8)}):
        with pytest.raises(RefusedError, match="3 to 4 sites: the noise is planned for them"):
            site.answer(_staged("masked"), wrong, _sums)


def test_one_key_for_two_sites_is_refused(tmp_path: Path) -> None:
    site, listed = _begun(tmp_path)
    with pytest.raises(RefusedError, match="one key"):
        site.answer(_staged("masked"), listed | {"b": listed["c"]}, _sums)


def test_a_list_that_changes_within_an_attempt_is_refused(tmp_path: Path) -> None:
    site, listed = _begun(tmp_path)
    first = site.answer(_staged("masked"), listed, _sums)[VECTOR_NAME]
    again = site.answer(_staged("masked"), listed, _sums)[VECTOR_NAME]
    assert np.array_equal(first, again)  # an answer that was lost is sent again
    for other in (_without(listed, "d"), listed | {"d": as_array(bytes(range(32)))}):
        with pytest.raises(RefusedError, match="changed within an attempt"):
            site.answer(_staged("masked"), other, _sums)
        with pytest.raises(RefusedError, match="no such list"):
            site.answer(_staged("seeds"), other, _sums)


def test_a_seed_is_sent_for_what_was_masked_and_for_nothing_else(tmp_path: Path) -> None:
    site, listed = _begun(tmp_path)
    with pytest.raises(RefusedError, match="no such list"):
        site.answer(_staged("seeds"), listed, _sums)
    site.answer(_staged("masked"), listed, _sums)
    with pytest.raises(RefusedError, match="no key for this attempt"):
        site.answer(_staged("seeds", 1), listed, _sums)
    assert site.answer(_staged("seeds"), listed, _sums)[SEED_NAME].shape == (32,)
    with pytest.raises(RefusedError, match="was given up"):  # the key is gone with the seed
        site.answer(_staged("masked"), listed, _sums)


def test_a_site_that_has_sent_its_seed_adds_to_no_other_list(tmp_path: Path) -> None:
    site, listed = _begun(tmp_path)
    site.answer(_staged("masked"), listed, _sums)
    site.answer(_staged("seeds"), listed, _sums)
    restarted, listed = _begun(tmp_path, attempt=1)
    with pytest.raises(RefusedError, match="opened its sum with a, b, c, d and adds to no other"):
        restarted.answer(_staged("masked", 1), _without(listed, "d"), _sums)
    assert restarted.answer(_staged("masked", 1), listed, _sums)[VECTOR_NAME].dtype == np.uint64


def test_an_attempt_whose_seed_was_not_sent_can_never_be_opened(tmp_path: Path) -> None:
    site, listed = _begun(tmp_path)
    site.answer(_staged("masked"), listed, _sums)
    before = (tmp_path / "a" / "secure-sum.json").read_text()
    restarted, later = _begun(tmp_path, attempt=1)
    assert json.loads(before)["seed"] not in (tmp_path / "a" / "secure-sum.json").read_text()
    with pytest.raises(RefusedError, match="no key for this attempt"):
        restarted.answer(_staged("seeds"), listed, _sums)
    assert restarted.answer(_staged("masked", 1), _without(later, "d"), _sums)[VECTOR_NAME].dtype == np.uint64


def test_a_memory_that_is_damaged_stops_the_site(tmp_path: Path) -> None:
    site, listed = _begun(tmp_path)
    (tmp_path / "a" / "secure-sum.json").write_text("{")
    for stage in ("keys", "masked"):
        with pytest.raises(RefusedError, match="nobody knows which sums"):
            site.answer(_staged(stage), listed, _sums)
