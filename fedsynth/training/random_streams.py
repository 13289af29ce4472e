"""The experiment's random streams: every number of step k follows from the seed and k alone.

So nothing random has to be saved: a resumed run draws what the uninterrupted one would have drawn.
"""

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fedsynth.models.base import SeededSource


def stream_seed(seed: int, *names: int | str) -> int:
    """A seed for one purpose, independent of every other purpose of the same experiment."""
    words = [_word(name) if isinstance(name, str) else name for name in names]
    return int(np.random.SeedSequence([seed, *words]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _word(name: str) -> int:
    """A number for a name; long ones by their digest, for two hospitals may share their first letters."""
    content = name.encode()
    return int.from_bytes(content if len(content) < 8 else hashlib.sha256(content).digest()[:8], "little") % 2**63


def step_rng(seed: int, step: int, phase: int) -> "SeededSource":
    """The draws of one phase of one step."""
    from fedsynth.models.base import SeededSource

    return SeededSource(stream_seed(seed, "step", step, phase))


def batch_rows(seed: int, step: int, batch: int, count: int) -> NDArray[np.int64]:
    """The rows of step `step`: `count` images shuffled anew every epoch and taken in order, `batch` at a time."""
    places = np.arange(step * batch, (step + 1) * batch)
    epochs = places // count
    rows = np.empty(batch, np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        rows[here] = _shuffled(seed, int(epoch), count)[places[here] % count]
    return rows


@lru_cache(maxsize=16)
def _shuffled(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng(stream_seed(seed, "epoch", epoch)).permutation(count)
