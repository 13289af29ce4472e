"""What a site's policy caps over days and runs: minutes of work, megabytes that left, runs that are kept.

The day's sums lie in the site's own folder, whatever the run. Knows nothing of networks or images.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fedsynth import atomic_files
from fedsynth.federation.error_codes import ErrorCode, PolicyRefusedError
from fedsynth.federation.policy import Policy

USAGE, RUN_FOLDERS = "usage.json", "run-*"


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Of one day (UTC): seconds at work, and bytes of arrays that left."""

    day: str
    seconds: float = 0.0
    bytes: int = 0


class DailyUsage:
    """The sums of the day in the file `usage.json`; a file of another day, or a damaged one, counts as nothing."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / USAGE

    def today(self) -> Usage:
        """What was used since midnight UTC."""
        day = datetime.now(UTC).date().isoformat()
        try:
            read = json.loads(self._path.read_text(encoding="utf-8"))
            usage = Usage(day=str(read["day"]), seconds=float(read["seconds"]), bytes=int(read["bytes"]))
        except (OSError, ValueError, KeyError, TypeError):
            return Usage(day=day)
        return usage if usage.day == day else Usage(day=day)

    def check_minutes(self, policy: Policy) -> None:
        """Refuse work for which the day has no time left. A round that has begun is ended: the next one is refused."""
        used = self.today()
        if policy.minutes_a_day is not None and used.seconds >= 60 * policy.minutes_a_day:
            problem = f"{used.seconds / 60:.1f} minutes were used today, of minutes-a-day = {policy.minutes_a_day:g}"
            raise PolicyRefusedError(problem, ErrorCode.POLICY_MINUTES)

    def check_bytes(self, policy: Policy, bytes: int) -> None:  # noqa: A002
        """Refuse an answer of so many bytes beyond what may leave in a day."""
        used = self.today()
        if policy.megabytes_a_day is not None and used.bytes + bytes > 1e6 * policy.megabytes_a_day:
            problem = (
                f"{used.bytes / 1e6:.1f} MB left today and {bytes / 1e6:.1f} would, of megabytes-a-day = "
                f"{policy.megabytes_a_day:g}"
            )
            raise PolicyRefusedError(problem, ErrorCode.POLICY_MEGABYTES)

    def add(self, *, seconds: float, bytes: int) -> None:  # noqa: A002
        """Count work that was done and what left."""
        with self._locked():
            used = self.today()
            line = {"day": used.day, "seconds": used.seconds + seconds, "bytes": used.bytes + bytes}
            atomic_files.write_text(self._path, json.dumps(line) + "\n")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Flower may work on messages of two runs at once, each in a process of its own."""
        with atomic_files.told_when_unwritable(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def runs_kept(home: Path) -> list[Path]:
    """The folders of runs that a real site keeps, in its own folder."""
    return sorted(path for path in home.glob(RUN_FOLDERS) if path.is_dir())


def check_kept(policy: Policy, home: Path, folder: Path) -> None:
    """Refuse a new run where as many are kept as may be; one that is known goes on."""
    if policy.runs_kept is None or folder.exists() or len(runs_kept(home)) < policy.runs_kept:
        return
    problem = f"as many runs are kept as may be, runs-kept = {policy.runs_kept}: remove the folder of one that is over"
    raise PolicyRefusedError(problem, ErrorCode.POLICY_RUNS)
