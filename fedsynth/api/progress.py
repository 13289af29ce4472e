"""What long work tells whoever called it: notes, how far it is, and rounds with their sites.

The base class writes log lines under the name `fedsynth`; the command line draws on the screen instead.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedsynth.federation.rounds import Progress as RoundProgress
    from fedsynth.federation.settings import FederationSettings

log = logging.getLogger("fedsynth")
SECONDS_BETWEEN_LINES = 10.0

Advance = Callable[[int, int], None]
"""`advance(done, total)`."""


def now_and_then(text: str, say: Callable[[str], object]) -> Advance:
    """A callback that says every ten seconds how far the work is, and how long the rest will take at that pace."""
    begun = time.monotonic()
    told = [begun]

    def advance(done: int, total: int) -> None:
        now = time.monotonic()
        if now - told[0] > SECONDS_BETWEEN_LINES:
            told[0] = now
            left = (now - begun) / done * (total - done) if 0 < done <= total else None
            rest = "" if left is None else f", {minutes(left)} left"
            say(f"{text}: {done} of {total}{rest}")

    return advance


def minutes(seconds: float) -> str:
    """As a clock shows them: 1:05."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class Rounds:
    """What is told of a federation's rounds; the base class logs a line now and then."""

    def __init__(self, settings: "FederationSettings") -> None:
        self.settings, self._told = settings, 0.0

    def watch(self, progress: "RoundProgress") -> None:
        """A round begins, or has ended."""
        if progress.replies and time.monotonic() - self._told > SECONDS_BETWEEN_LINES:
            self._told = time.monotonic()
            log.info("round %d of %d", progress.round, progress.rounds)

    def on_step(self, site: str, done: int, total: int) -> None:
        """A site took a step."""

    def beat(self) -> None:
        """An engine that tells nothing else is alive."""


class Progress:
    """Log lines: warnings always, how far it is every ten seconds where the level INFO is shown."""

    def note(self, text: str) -> None:
        """Something that the user should know before the result is there."""
        log.warning(text)

    @contextmanager
    def bar(self, text: str) -> Iterator[Advance]:
        """A callback for the block, told how much is done of how much."""
        yield now_and_then(text, log.info)

    @contextmanager
    def rounds(self, settings: "FederationSettings") -> Iterator[Rounds]:
        """Callbacks for the rounds of the block."""
        yield Rounds(settings)
