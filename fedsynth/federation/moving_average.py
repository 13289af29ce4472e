"""The moving average of the released sampler, which the server keeps: an exact recursion over steps that sites took."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def straight_line(first: int, steps: int, half_life: float) -> tuple[float, float, float]:
    """How a moving average A ends after `steps` steps on the straight line from W0 to W1: a A + b W0 + c W1.

    Step s, counted from the start of the run, keeps min(d, (1 + s) / (10 + s)) of A, as a single site's does.
    """
    limit = 0.5 ** (1 / half_life) if half_life > 0 else 0.0
    kept, from_old, from_new = 1.0, 0.0, 0.0
    for done in range(1, steps + 1):
        step = first + done - 1
        decay, place = min(limit, (1 + step) / (10 + step)), done / steps
        kept = decay * kept
        from_old = decay * from_old + (1 - decay) * (1 - place)
        from_new = decay * from_new + (1 - decay) * place
    return kept, from_old, from_new


def mixed(ema: NDArray[Any], old: NDArray[Any], new: NDArray[Any], parts: tuple[float, float, float]) -> NDArray[Any]:
    """a A + b W0 + c W1 for the `parts` a, b and c, in float64."""
    kept, from_old, from_new = parts
    wide = kept * ema.astype(np.float64) + from_old * old.astype(np.float64) + from_new * new.astype(np.float64)
    return np.asarray(wide, ema.dtype)
