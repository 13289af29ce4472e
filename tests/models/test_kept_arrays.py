"""Arrays of public settings are made once; code edited meanwhile keeps nothing, and a full disk stops nothing."""

import numpy as np
import pytest

from fedsynth import code_digest
from fedsynth.models.kept_arrays import POOLS, kept_arrays, kept_folder
from tests.test_atomic_files import disk_that_takes


@pytest.fixture(autouse=True)
def _own_store(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDSYNTH_STORE", str(tmp_path))


def made(value):
    return kept_arrays("pool", ("a",), lambda: {"a": np.full(100, value)})["a"][0]


def test_arrays_are_made_once():
    assert [made(1), made(2)] == [1, 1]
    assert kept_folder(POOLS).stat().st_mode & 0o777 == 0o700


def test_code_that_was_edited_meanwhile_keeps_nothing(monkeypatch):
    monkeypatch.setattr(code_digest, "_read", lambda: {"models/base.py": "edited"})
    assert [made(1), made(2)] == [1, 2]


def test_a_full_disk_stops_nothing():
    with disk_that_takes(100):
        assert made(1) == 1
    assert made(2) == 2
