"""Programs that an engine starts and ends again, with all that they started. It knows process ids, not Flower.

A mark is a NAME=VALUE that stands in the environment of these programs and of nobody else's: it finds them even when
their parents have died. Run as a program, this file waits for its starter's death and ends whoever bears the mark.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

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
    with suppress(ProcessLookupError):
        process.terminate()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        family |= descendants(process.pid)  # what is being started while it stops
        if process.poll() is not None and not any(_lives(*one) for one in family.items()):
            return
        time.sleep(0.05)
    with suppress(ProcessLookupError):
        process.kill()
    process.wait()
    _kill(family, seconds)


def end_marked(mark: str, *, seconds: float = SECONDS) -> None:
    """Ask everybody who bears the mark to stop, and kill who does not."""
    family = marked(mark)
    for pid in family:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + seconds
    while any(_lives(*one) for one in family.items()) and time.monotonic() < until:
        time.sleep(0.05)
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


def descendants(*roots: int) -> dict[int, str]:
    """The processes that `roots` started, and theirs, with the time of birth: a number used anew has another."""
    parents: dict[int, tuple[int, str]] = {}
    for pid in _everybody():
        with suppress(OSError, IndexError):
            fields = _stat(pid)
            parents[pid] = int(fields[1]), fields[19]
    found: dict[int, str] = {}
    newest = set(roots)
    while newest:
        newest = {pid for pid, (parent, _) in parents.items() if parent in newest and pid not in found}
        found |= {pid: parents[pid][1] for pid in newest}
    return found


def marked(mark: str) -> dict[int, str]:
    """The processes whose environment holds `mark` and those that they started, some of which rename it away."""
    found = {}
    for pid in _everybody() if mark else ():
        with suppress(OSError, IndexError):
            if mark.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found[pid] = _stat(pid)[19]
    return found | descendants(*found)


def _kill(family: Mapping[int, str], seconds: float) -> None:
    for pid, born in family.items():
        if _lives(pid, born):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + seconds
    while any(_lives(*one) for one in family.items()) and time.monotonic() < until:
        time.sleep(0.01)  # the system takes a moment to clear away what it has killed


def _everybody() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def _stat(pid: int) -> list[str]:
    """State, parent and so on: what follows the name, which may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _lives(pid: int, born: str) -> bool:
    """Whether it is the same process still, and no mere entry that nobody has read yet."""
    try:
        fields = _stat(pid)
    except OSError:
        return False
    return fields[19] == born and fields[0] != "Z"


def _keep_watch() -> None:
    """Wait until the starter closes the pipe, or dies, which closes it too."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.stdin.buffer.read()
    end_marked(sys.argv[1])


if __name__ == "__main__":
    _keep_watch()
