"""The arithmetic of a secure sum: exact for any numbers, uniform for whoever sees a part, useless elsewhere."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsynth.errors import FedSynthError, RefusedError
from fedsynth.federation.secure_sum import Roster, Secrets, _pair_mask, as_array, as_bytes, masked, unmasked

INT64 = st.integers(-(2**63), 2**63 - 1)


def drawn(n: int) -> dict[str, Secrets]:
    return {f"site-{i}": Secrets.fresh() for i in range(n)}


def roster_of(own: dict[str, Secrets], **changes: object) -> Roster:
    keys = {name: one.public for name, one in own.items()}
    return Roster(**({"experiment": "run-1", "round": 1, "attempt": 0, "keys": keys} | changes))  # type: ignore[arg-type]


def summed(vectors: dict[str, np.ndarray], own: dict[str, Secrets]) -> np.ndarray:
    roster = roster_of(own)
    sent = {name: masked(vector, own[name], name, roster) for name, vector in vectors.items()}
    return unmasked(sent, {name: one.seed for name, one in own.items()}, roster)


@pytest.mark.parametrize("n", range(2, 7))
def test_the_sum_is_exact_for_two_to_six_sites(n: int) -> None:
    rng = np.random.default_rng(n)
    vectors = {f"site-{i}": rng.integers(-(2**40), 2**40, 33) for i in range(n)}
    total = summed(vectors, drawn(n))
    assert total.dtype == np.int64
    assert np.array_equal(total, sum(vectors.values()))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(INT64, INT64), min_size=2, max_size=6))
def test_the_sum_wraps_as_whole_numbers_modulo_two_to_the_64_do(rows: list[tuple[int, int]]) -> None:
    vectors = {f"site-{i}": np.array(row, np.int64) for i, row in enumerate(rows)}
    total = summed(vectors, drawn(len(rows)))
    expected = [(sum(column) + 2**63) % 2**64 - 2**63 for column in zip(*rows, strict=True)]
    assert total.tolist() == expected


def test_a_sum_of_negative_numbers_by_hand() -> None:
    vectors = {"site-0": np.array([-5, 2**62, 0]), "site-1": np.array([-7, -(2**62) - 1, 0])}
    assert summed(vectors, drawn(2)).tolist() == [-12, -1, 0]


@pytest.mark.parametrize("seeds_known", [False, True])
def test_a_masked_vector_is_uniform_also_for_who_has_all_seeds(seeds_known: bool) -> None:
    own = drawn(3)
    roster = roster_of(own)
    sent = masked(np.full(40_000, 3, np.int64), own["site-0"], "site-0", roster)
    if seeds_known:  # what the masks between sites alone hide
        zero = masked(np.zeros(40_000, np.int64), replace(own["site-0"], seed=bytes(32)), "site-0", roster)
        blank = masked(np.zeros(40_000, np.int64), own["site-0"], "site-0", roster)
        sent = sent - blank + zero
    octets = np.bincount(sent.view(np.uint8), minlength=256)
    expected = len(sent) * 8 / 256
    chi_square = ((octets - expected) ** 2 / expected).sum()
    assert 255 - 6 * np.sqrt(2 * 255) < chi_square < 255 + 6 * np.sqrt(2 * 255)
    assert len(np.unique(sent)) == len(sent)


def test_the_sum_over_some_of_the_sites_is_uniform_too() -> None:
    own, n = drawn(4), 20_000
    roster = roster_of(own)
    seeds = {name: one.seed for name, one in own.items()}
    blank = masked(np.zeros(n, np.int64), own["site-3"], "site-3", roster)
    sent = {name: masked(np.zeros(n, np.int64), one, name, roster) for name, one in own.items()}
    assert not unmasked(sent, seeds, roster).any()
    without = unmasked(sent | {"site-3": np.zeros(n, np.uint64)}, seeds, roster).view(np.uint64)
    assert np.array_equal(without + blank, np.zeros(n, np.uint64))
    assert abs(without.astype(float).mean() / 2**64 - 0.5) < 6 / np.sqrt(12 * n)


def test_a_sum_without_the_seed_of_one_site_stays_hidden() -> None:
    own = drawn(3)
    roster, seeds = roster_of(own), {name: one.seed for name, one in own.items()}
    sent = {name: masked(np.zeros(50, np.int64), one, name, roster) for name, one in own.items()}
    wrong = unmasked(sent, seeds | {"site-1": bytes(32)}, roster)
    assert (np.abs(wrong.astype(float)) > 2**50).mean() > 0.9
    with pytest.raises(FedSynthError, match="do not cancel"):
        unmasked(sent, {name: seeds[name] for name in ("site-0", "site-2")}, roster)


@pytest.mark.parametrize("changes", [{"round": 2}, {"attempt": 1}, {"experiment": "run-2"}])
def test_masks_differ_by_round_attempt_and_run(changes: dict[str, object]) -> None:
    own, blank = drawn(3), np.zeros(64, np.int64)
    here, there = roster_of(own), roster_of(own, **changes)
    one, other = masked(blank, own["site-0"], "site-0", here), masked(blank, own["site-0"], "site-0", there)
    assert not np.any(one == other)
    between = [_pair_mask(own["site-0"].key, "site-0", "site-1", roster, 64) for roster in (here, there)]
    assert not np.any(between[0] == between[1])
    assert np.array_equal(between[0], _pair_mask(own["site-1"].key, "site-1", "site-0", here, 64))


def test_a_mask_replayed_in_another_attempt_cancels_nothing() -> None:
    own, vector = drawn(2), np.arange(20)
    first, second = roster_of(own), roster_of(own, attempt=1)
    sent = {"site-0": masked(vector, own["site-0"], "site-0", first)}
    sent["site-1"] = masked(vector, own["site-1"], "site-1", second)
    total = unmasked(sent, {name: one.seed for name, one in own.items()}, second)
    assert not np.any(total == 2 * vector)


def test_sites_that_were_told_different_lists_have_masks_that_do_not_cancel() -> None:
    own = drawn(3)
    whole = roster_of(own)
    part = roster_of({name: own[name] for name in ("site-0", "site-1")})
    vector = np.arange(20)
    sent = {"site-0": masked(vector, own["site-0"], "site-0", part)}
    sent["site-1"] = masked(vector, own["site-1"], "site-1", whole)
    assert not np.any(unmasked(sent, {name: one.seed for name, one in own.items()}, part) == 2 * vector)


def test_one_key_for_two_sites_is_refused() -> None:
    own = drawn(3)
    keys = {name: one.public for name, one in own.items()}
    with pytest.raises(RefusedError, match="one key"):
        roster_of(own, keys=keys | {"site-2": keys["site-1"]})


def test_a_list_without_the_site_or_with_another_key_of_it_is_refused() -> None:
    own = drawn(3)
    keys = {name: one.public for name, one in own.items()}
    for changed in (
        {name: keys[name] for name in ("site-1", "site-2")},
        keys | {"site-0": Secrets.fresh().public},
    ):
        with pytest.raises(RefusedError, match="does not stand in the list"):
            masked(np.zeros(3, np.int64), own["site-0"], "site-0", roster_of(own, keys=changed))


def test_keys_that_give_no_secret_are_refused() -> None:
    own = drawn(2)
    keys = {name: one.public for name, one in own.items()}
    with pytest.raises(RefusedError, match="gives no secret"):
        masked(np.zeros(3, np.int64), own["site-0"], "site-0", roster_of(own, keys=keys | {"site-1": bytes(32)}))
    with pytest.raises(RefusedError, match="is none"):
        roster_of(own, keys=keys | {"site-1": b"short"})
    with pytest.raises(RefusedError, match="fewer than two"):
        roster_of(own, keys={"site-0": keys["site-0"]})


def test_secrets_are_never_shown_and_keys_travel_whole() -> None:
    own = Secrets.fresh()
    assert own.key.hex() not in repr(own)
    assert str(own.key) not in repr(own)
    assert as_bytes(as_array(own.public)) == own.public
    with pytest.raises(RefusedError, match="is none"):
        as_bytes(np.zeros(31, np.uint8))
