"""Every test starts from the same global random state, whichever test ran before it and on whichever worker.

Workers compute on one thread each: with more threads than cores, torch takes many times as long. What would take all
cores takes one, unless the test names a number: pytest's own workers are on the others.
"""

import gc
import os
import sys
from collections.abc import Iterator

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything imports torch or numpy
gc.disable()  # while tests are collected, which makes much and drops nothing


@pytest.fixture(autouse=True)
def _same_global_randomness() -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _one_core_and_no_waiting_for_disks() -> Iterator[None]:
    """No test can see whether a file is synced but by the call: only a machine that loses its power could."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "cpu_count", lambda: 1)
        patch.setattr(os, "fsync", lambda handle: None)
        yield


def pytest_collection_finish() -> None:
    gc.freeze()  # modules stay: no collection looks at them again
    gc.enable()


@pytest.fixture(autouse=True, scope="session")
def _store_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test writes into the user's store. Its salt is the same every time: keyed digests are seeds of some draws."""
    store = tmp_path_factory.mktemp("store")
    (store / "salt").write_text("5a" * 32, encoding="ascii")
    (store / "salt").chmod(0o600)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDSYNTH_STORE", str(store))
        yield
