"""The list of everything that left a site, in its own folder: written and synced before the message goes.

It names arrays and numbers and their sizes, never their values.
"""

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedsynth import atomic_files
from fedsynth.errors import FedSynthError

EGRESS = "egress.jsonl"


class EgressLog:
    """`egress.jsonl` in the site's folder, one line per message that left; of a simulated site not `synced`."""

    def __init__(self, folder: Path, *, synced: bool = True) -> None:
        self.path, self._synced = folder / EGRESS, synced

    def record(
        self,
        message: str,
        names: Sequence[str],
        shapes: Sequence[Sequence[int]],
        bytes: int,  # noqa: A002
        round: int,  # noqa: A002
    ) -> None:
        """Add one line. When this returns it is on disk; when it fails, nothing may leave."""
        line = {
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "message": message,
            "round": round,
            "bytes": bytes,
            "content": {name: list(shape) for name, shape in zip(names, shapes, strict=True)},
        }
        with atomic_files.told_when_unwritable(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                _cut_unfinished(file.fileno(), self.path)
                file.write(json.dumps(line).encode() + b"\n")
                file.flush()
                if self._synced:
                    os.fsync(file.fileno())


def read_egress(path: Path) -> list[dict[str, Any]]:
    """The lines of an egress log. A last line that a crash cut short is left out: its message had not gone."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    whole = content[: content.rfind(b"\n") + 1]
    lines = []
    for row, line in enumerate(whole.splitlines(), 1):
        try:
            lines.append(json.loads(line))
        except ValueError as error:
            raise FedSynthError("the list of what left is damaged", file=path, row=row) from error
    return lines


def _cut_unfinished(handle: int, path: Path) -> None:
    """A line without its end was being written when the site died: its message never left."""
    size = os.fstat(handle).st_size
    if not size or os.pread(handle, 1, size - 1) == b"\n":
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.ftruncate(handle, whole)
