"""Coins and noise of the mechanism's audit that are the same in every test run.

An audit of an honest mechanism is contradicted now and then by chance, and a test of one such audit would fail as
often. These tests repeat one audit; the slow tests measure how often chance contradicts, with secret coins.
"""

import hashlib
import itertools
from types import ModuleType

import pytest

from fedsynth.experiments import mechanism_training
from fedsynth.privacy import secure_rng


def repeat_coins(patch: pytest.MonkeyPatch, seed: int = 0, *, where: ModuleType = mechanism_training) -> None:
    """The audit's own randomness, keyed by `seed` and the order of its sources."""
    order = itertools.count()

    class Repeated(secure_rng.SecretRandomness):
        def __init__(self) -> None:
            super().__init__()
            key = hashlib.sha256(f"repeated {seed} {next(order)}".encode()).digest()
            self._stream = secure_rng._keyed_stream(key)

    patch.setattr(where, "SecretRandomness", Repeated)
