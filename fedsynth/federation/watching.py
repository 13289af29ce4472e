"""Who watches the sites at work in this process. Engines with processes of their own are watched by the round."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fedsynth.federation.work import OnStep
from fedsynth.training.preparing import Prepared

OnOpened = Callable[[str, Prepared], None]

_watcher: OnStep | None = None
_auditor: OnOpened | None = None


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


@contextmanager
def trainings(auditor: OnOpened) -> Iterator[None]:
    """`auditor(site, prepared)` is shown every simulated site's training before its first round, during the block."""
    global _auditor
    before, _auditor = _auditor, auditor
    try:
        yield
    finally:
        _auditor = before


def opened(site: str, prepared: Prepared) -> None:
    """A simulated site is ready to train."""
    if _auditor is not None:
        _auditor(site, prepared)
