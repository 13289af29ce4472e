"""Every test starts from the same global random state, whichever test ran before it and on whichever worker."""

import sys

import pytest


@pytest.fixture(autouse=True)
def _same_global_randomness() -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
