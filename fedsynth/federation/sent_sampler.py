"""That a site's whole sampler leaves once: a mark in the run's folder, on disk before it is sent.

Which rounds a site has missed is the server's business, so that it may be asked for early; but then it trains no more,
and what is sent again after a restart is the same sampler.
"""

from pathlib import Path

from fedsynth import atomic_files
from fedsynth.errors import FedSynthError, RefusedError

FILE = "sampler-sent.txt"


class SentSampler:
    """The mark of one run: after how many steps the sampler left, if it did."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE

    def refuse_training(self) -> None:
        """Once the sampler has left: a second one would show what was learnt in between."""
        if self._sent_after() is not None:
            problem = "the server goes on training after it was sent this site's sampler"
            raise RefusedError(problem, file=self._path, remedy="ask whoever runs the server; a new run trains again")

    def note(self, step: int) -> None:
        """That it leaves now, trained for so many steps; another one than before is refused."""
        before = self._sent_after()
        if before is None:
            atomic_files.write_text(self._path, f"{step}\n")
        elif before != step:
            problem = f"the sampler was sent after {before} steps and is now that of {step}"
            raise RefusedError(problem, file=self._path, remedy="put the site's folder back as it was")

    def _sent_after(self) -> int | None:
        if not self._path.exists():
            return None
        try:
            return int(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FedSynthError(f"the mark of the sampler cannot be read: {error}", file=self._path) from error
