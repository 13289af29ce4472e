"""Who watches the sites at work in this process. Engines with processes of their own are watched by the round."""

from collections.abc import Iterator
from contextlib import contextmanager

from fedsynth.federation.work import OnStep

_watcher: OnStep | None = None


@contextmanager
def steps(watcher: OnStep | None) -> Iterator[None]:
    """`watcher(site, done, of)` hears of every step during the block."""
    global _watcher
    before, _watcher = _watcher, watcher
    try:
        yield
    finally:
        _watcher = before


def watcher() -> OnStep | None:
    """Whoever watches now."""
    return _watcher
