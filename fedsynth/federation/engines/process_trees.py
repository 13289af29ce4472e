"""Programs that an engine starts and ends again, with all that they started. It knows process ids, not Flower.

A mark is a NAME=VALUE that stands in the environment of these programs and of nobody else's: it finds them even when
their parents have died. Run as a program, this file waits for its starter's death and ends whoever bears the mark.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

SECONDS = 8.0  # to stop when asked


def start(command: Sequence[str], *, env: Mapping[str, str], log: Path) -> "subprocess.Popen[bytes]":
    """Start a program of this installation in a session of its own; what it says goes to the end of `log`."""
    program = Path(sys.executable).parent / command[0]
    with log.open("ab") as file:
        return subprocess.Popen(  # noqa: S603 (a program of this installation, no text of users)
            [str(program), *command[1:]],
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the others in order
        )


def end(process: "subprocess.Popen[bytes]", *, mark: str = "", seconds: float = SECONDS) -> None:
    """Ask the program to stop, wait, and kill what is left of it and of all that it had started, by their ids."""
    family = descendants(process.pid) | marked(mark)
    process.terminate()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        family |= descendants(process.pid)  # what is being started while it stops
        if process.poll() is not None and not _living(family):
            return
        time.sleep(0.05)
    process.kill()
    process.wait()
    _kill(family, seconds)


def end_marked(mark: str, *, seconds: float = SECONDS) -> None:
    """Ask everybody who bears the mark to stop, and kill who does not."""
    family = marked(mark)
    for one in family:
        with suppress(psutil.Error):
            one.terminate()
    _wait(family, seconds)
    _kill(family | marked(mark), seconds)


@contextmanager
def leashed(mark: str) -> Iterator[None]:
    """Whoever bears the mark outlives this process by seconds at most, also when it is killed in the block."""
    command = [sys.executable, "-I", __file__, mark]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as keeper:  # noqa: S603
        try:
            yield
        finally:
            assert keeper.stdin is not None
            keeper.stdin.close()  # what its death would do


def descendants(*roots: int) -> set[psutil.Process]:
    """The processes that `roots` started, and theirs. psutil tells a number that was used anew by its time of birth."""
    found: set[psutil.Process] = set()
    for pid in roots:
        with suppress(psutil.Error):
            found |= set(psutil.Process(pid).children(recursive=True))
    return found


def marked(mark: str) -> set[psutil.Process]:
    """The processes whose environment holds `mark` and those that they started, some of which rename it away."""
    name, _, value = mark.partition("=")
    found = set()
    for one in psutil.process_iter() if mark else ():
        with suppress(psutil.Error, OSError):
            if one.environ().get(name) == value:
                found.add(one)
    return found | descendants(*(one.pid for one in found))


def _kill(family: Iterable[psutil.Process], seconds: float) -> None:
    for one in _living(family):
        with suppress(psutil.Error):
            one.kill()
    _wait(family, seconds)  # the system takes a moment to clear away what it has killed


def _wait(family: Iterable[psutil.Process], seconds: float) -> None:
    """Until all have ended, read by their parents or not."""
    until = time.monotonic() + seconds
    while _living(family) and time.monotonic() < until:
        time.sleep(0.01)


def _living(family: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that are the same processes still, and no mere entries that nobody has read yet."""
    living = []
    for one in family:
        with suppress(psutil.Error):
            if one.is_running() and one.status() != psutil.STATUS_ZOMBIE:
                living.append(one)
    return living


def _keep_watch() -> None:
    """Wait until the starter closes the pipe, or dies, which closes it too."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.stdin.buffer.read()
    end_marked(sys.argv[1])


if __name__ == "__main__":
    _keep_watch()
