"""Numbers for people, rounded so that none becomes a limit that it does not reach: 99.6 % is not 100 %."""

from collections.abc import Sequence

MOST_DECIMALS = 6


def rounded(value: float, decimals: int, *, apart_from: Sequence[float]) -> str:
    """With as many `decimals`, and more where fewer would make it one of the limits that it is `apart_from`."""
    said = f"{value:.{decimals}f}"
    while decimals < MOST_DECIMALS and any(float(said) == limit and abs(value - limit) > 1e-9 for limit in apart_from):
        decimals += 1
        said = f"{value:.{decimals}f}"
    return said
