"""Commands of fedsynth as processes of their own, which end with the one that started them."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock


class Children:
    """The processes at work, of several threads. When this one is stopped they are too, and no further one begins."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped, self._lock = False, Lock()

    def run(self, command: Sequence[str]) -> tuple[int, str]:
        """The exit code, and what was said on stderr."""
        settings = {**os.environ, "OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0"}
        with self._lock:
            if self._stopped:
                return 1, "stopped"
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "fedsynth", *command],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                env=settings,
            )
            self._running.add(process)
        said = process.communicate()[1]
        with self._lock:
            self._running.discard(process)
        return process.returncode, said

    @contextmanager
    def ended_with_us(self, pool: ThreadPoolExecutor) -> Iterator[None]:
        """Whatever breaks off the block (Ctrl-C, a polite kill) ends the processes too."""
        self._stopped = False
        try:
            yield
        except BaseException:
            with self._lock:
                self._stopped = True
                for process in self._running:
                    process.terminate()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
