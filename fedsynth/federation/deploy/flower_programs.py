"""Flower's own programs, started as hospitals need them: offline, silent towards the world, in a home of their own.

Everything here goes by Flower's command line, which is public. It knows no hospital and no run of ours.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsynth import config
from fedsynth.errors import FedSynthError
from fedsynth.federation.flower_start import QUIET

CONNECTION = "fedsynth"
LOOPBACK = "127.0.0.1,localhost"  # never by way of a hospital's web proxy
_PATIENCE = 120.0  # seconds for a command; a busy machine takes ten to start one


@dataclass(frozen=True, kw_only=True)
class Flower:
    """One Flower home: where its programs keep what they install, and how its commands reach their server."""

    home: Path

    def environment(self) -> dict[str, str]:
        """For every program started here. Flower's start each other by name: they must be found."""
        beside = str(Path(sys.executable).parent)
        path = os.pathsep.join([beside, os.environ.get("PATH", os.defpath)])
        direct = ",".join(filter(None, [os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), LOOPBACK]))
        own = {"FLWR_HOME": str(self.home), "PATH": path, "NO_PROXY": direct, "no_proxy": direct}
        return {**os.environ, **QUIET, **own}

    def connect(self, port: int, authority: Path) -> None:
        """Point the commands at the server on this machine."""
        reached = {"address": f"127.0.0.1:{port}", "root-certificates": str(authority)}
        config.save_toml(self.home / "config.toml", {"superlink": {"default": CONNECTION, CONNECTION: reached}})

    def ask(self, *arguments: str) -> Any:
        """Run `flwr` with these arguments and `--format json`; its answer, or its complaint as an error."""
        command = [program("flwr"), *arguments, "--format", "json"]
        try:
            done = subprocess.run(  # noqa: S603
                command, env=self.environment(), capture_output=True, text=True, timeout=_PATIENCE
            )
        except subprocess.TimeoutExpired as error:
            raise FedSynthError(f"`flwr {arguments[0]}` did not end within {_PATIENCE:.0f} s") from error
        answer = _last_object(done.stdout)
        if done.returncode or answer is None or not answer.get("success", True):
            complaint = (answer or {}).get("error-message") or done.stderr.strip() or done.stdout.strip()
            raise FedSynthError(f"`flwr {' '.join(arguments[:2])}` failed: {complaint}")
        return answer


@contextmanager
def leashed(
    command: Sequence[str], *, environment: Mapping[str, str], log: Path, grace: float = 20
) -> Iterator["subprocess.Popen[bytes]"]:
    """A program that runs during the block, and never longer, whatever becomes of this process."""
    leash = [sys.executable, "-m", "fedsynth.federation.deploy.parent_guard", str(os.getpid())]
    with log.open("ab") as output:
        child = subprocess.Popen(  # noqa: S603
            [*leash, *command], env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        yield child
    finally:
        end(child, grace)


def end(child: "subprocess.Popen[bytes]", grace: float) -> None:
    """Ask the process to end, and end it if it does not."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(grace)
        except subprocess.TimeoutExpired:
            child.kill()
    child.wait()


def program(name: str) -> str:
    """The full path of one of Flower's programs, in the environment that fedsynth itself runs in."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        raise FedSynthError(f"Flower's program {name!r} is not installed", remedy="install fedsynth again")
    return found


def wait_until(condition: Callable[[], bool], *, seconds: float, every: float = 0.5) -> bool:
    """Whether the condition came true in time."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(every)
    return True


def _last_object(text: str) -> dict[str, Any] | None:
    """Flower's JSON; what other lines it prints before are not ours to read."""
    start = text.find("{")
    if start < 0:
        return None
    try:
        value = json.loads(text[start:])
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
