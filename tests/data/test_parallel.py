"""Without a number of workers there are as many as cores: two of them work at a time, in order."""

import os
import threading
import time

import pytest

from fedsynth.data.parallel import ordered_map


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)


def test_two_threads_work_at_a_time_by_default():
    both = threading.Barrier(2, timeout=20)

    def meet(item):
        both.wait()
        return item

    assert list(ordered_map(meet, range(6))) == list(range(6))


def meet_another(folder):
    """Waits until a second process works."""
    (folder / str(os.getpid())).touch()
    until = time.monotonic() + 20
    while len(list(folder.iterdir())) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    return os.getpid()


def test_two_processes_work_at_a_time_by_default(tmp_path):
    found = set(ordered_map(meet_another, [tmp_path] * 4, processes=True))
    assert len(list(tmp_path.iterdir())) == 2
    assert os.getpid() not in found
