"""Replies that wait in a file: the same bits as in memory, whatever the strategy, and memory that does not grow."""

import os
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedsynth.federation import spilled_arrays, strategies
from fedsynth.federation.spilled_arrays import ArrayStore, SpilledArrays
from fedsynth.federation.strategies import STRATEGIES, make_strategy
from tests.federation.tiny import SETTINGS, assert_same, rows, simulated


def test_arrays_are_read_as_they_were_kept(tmp_path: Path) -> None:
    arrays = {
        "a": np.arange(12, dtype=np.float32).reshape(3, 4),
        "b": np.array(7),
        "c": np.zeros((0, 2)),
        "d": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    }
    store = ArrayStore(tmp_path, limit=0)
    kept = [store.keep(arrays), store.keep({name: value + 1 for name, value in arrays.items()})]
    assert all(isinstance(one, SpilledArrays) for one in kept)
    for added, one in enumerate(kept):
        assert list(one) == list(arrays)
        for name, value in arrays.items():
            assert (one[name].dtype, one[name].shape) == (value.dtype, value.shape)
            assert np.array_equal(one[name], value + added)
    assert not list(tmp_path.iterdir())  # a killed server leaves nothing behind
    assert ArrayStore(tmp_path).keep(arrays) is arrays  # few are kept in memory
    assert ArrayStore(None, limit=0).keep(arrays) is arrays


def test_arrays_are_read_whole_though_one_call_reads_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux reads 2 GiB in one call at most."""
    value = np.arange(1000, dtype=np.float32).reshape(10, 100)
    kept, whole = ArrayStore(tmp_path, limit=0).keep({"a": value}), os.preadv
    monkeypatch.setattr(os, "preadv", lambda handle, parts, offset: whole(handle, [parts[0][:16]], offset))
    assert np.array_equal(kept["a"], value)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_ends_the_same_whether_replies_waited_in_memory_or_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    settings = replace(SETTINGS, sites=3, rounds=2, strategy=strategy)
    in_memory = simulated(tmp_path, settings, "memory")
    monkeypatch.setattr(spilled_arrays, "LIMIT", 0)
    monkeypatch.setattr(strategies, "BLOCK", 100)
    in_file = simulated(tmp_path, settings, "file")
    assert_same(in_memory, in_file)
    assert [row["answered"] for row in rows(in_file)] == ["true"] * 6


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam", "fedmedian", "trimmed-mean"])
def test_the_servers_memory_does_not_grow_with_the_number_of_sites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    """A model of 4 MB, its largest array of 2 MB, at 4 sites and at 24."""
    monkeypatch.setattr(strategies, "BLOCK", 2**18)
    old = {"a": np.zeros((2**19,), np.float32), **{f"b{i}": np.zeros((2**16,), np.float32) for i in range(8)}}

    def peak(sites: int) -> float:
        step = make_strategy(strategy)
        step.start(old)
        tracemalloc.start()
        store = ArrayStore(tmp_path, limit=0)
        replies = [(1.0, store.keep({n: v + np.float32(i) for n, v in old.items()})) for i in range(sites)]
        new = step.step(old, replies)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        if strategy == "fedavg":
            assert np.allclose(new["a"], (sites - 1) / 2)
        return found

    few, many = peak(4), peak(24)
    assert many < 1.1 * few, (few, many)
