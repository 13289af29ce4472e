"""How many rounds of a run a site has worked on without privacy: nothing else bounds what a server learns by asking.

In private runs the ledger bounds it. A server that lost a few rounds asks for them again with other weights, so that
SPARE more than the plan holds are answered.
"""

import json
from pathlib import Path

from fedsynth import atomic_files
from fedsynth.errors import FedSynthError, RefusedError

FILE = "rounds-trained.json"
SPARE = 10


class TrainedRounds:
    """The count in a run's own folder, on disk before the work on an order begins; `planned` by the run's settings."""

    def __init__(self, folder: Path, *, planned: int) -> None:
        self._path, self._most = folder / FILE, planned + SPARE

    def count(self, digest: str) -> None:
        """Count the order of that digest; the one that was counted last is not counted twice."""
        trained, last = self._read()
        if digest == last:
            return
        if trained >= self._most:
            problem = f"the server asks for more rounds than its plan holds: {trained} were trained"
            raise RefusedError(problem, file=self._path, remedy="ask whoever runs the server why rounds are repeated")
        atomic_files.write_text(self._path, json.dumps({"trained": trained + 1, "last": digest}) + "\n")

    def _read(self) -> tuple[int, str]:
        if not self._path.exists():
            return 0, ""
        try:
            read = json.loads(self._path.read_text(encoding="utf-8"))
            return int(read["trained"]), str(read["last"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FedSynthError(f"the count of rounds cannot be read: {error}", file=self._path) from error
