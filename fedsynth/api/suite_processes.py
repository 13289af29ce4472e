"""The processes of a suite: one for each step, forked from one that has imported what steps need.

A step that fails or is killed ends its own process alone, and the memory that it took is given back with it. What it
says goes to its log.
"""

import logging
import multiprocessing
import os
import pkgutil
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

import psutil

from fedsynth.api.progress import Progress
from fedsynth.api.suite_calls import call
from fedsynth.code_digest import ROOT
from fedsynth.errors import FedSynthError
from fedsynth.experiments.suite_steps import Step
from fedsynth.federation.flower_start import QUIET


def _modules(folder: str) -> list[str]:
    path = str(ROOT / folder)
    return [f"fedsynth.{folder.replace('/', '.')}.{one.name}" for one in pkgutil.iter_modules([path])]


IMPORTED = (
    "fedsynth.code_digest",  # the first: it tells when files change after it
    "fedsynth.data.phantoms.cohort",
    "fedsynth.evaluation.fidelity.benchmark",
    "fedsynth.evaluation.membership.benchmark",
    "fedsynth.evaluation.memorization.benchmark",
    "fedsynth.evaluation.memorization.pair_sheets",
    "fedsynth.evaluation.utility.benchmark",
    "fedsynth.experiments.downstream_learners",
    "fedsynth.federation.client_app",
    "fedsynth.federation.engines.local",
    "fedsynth.federation.outputs",
    "fedsynth.federation.server_app",
    "fedsynth.federation.simulation",
    "fedsynth.reporting.figures",
    "fedsynth.training.centralised",
    "fedsynth.training.generate",
    "fedsynth.training.membership_scores",
    *_modules("models/generators"),
    *_modules("models/statistics"),
)
"""What the functions of the interface import when they are called; none of it computes or draws anything by that."""
ALWAYS = QUIET | {"OMP_NUM_THREADS": "1"}
"""The environment of steps, beside what the suite's own holds when a step begins."""
STOP_SECONDS = 10.0

Key = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Ended:
    """Why a step failed (empty if it did not), how long it took, and the processor time that it took."""

    failed: str
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True, kw_only=True, eq=False)
class _Running:
    process: ForkServerProcess
    answer: Connection
    begun: float


class Processes:
    """The steps at work. Whatever breaks off the block (Ctrl-C, a polite kill) ends them too."""

    def __init__(self) -> None:
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(list(IMPORTED))
        self._running: dict[Key, _Running] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for one in self._running.values():
            one.process.terminate()
        until = time.monotonic() + STOP_SECONDS
        for one in self._running.values():
            one.process.join(max(0.0, until - time.monotonic()))
            if one.process.is_alive():
                one.process.kill()
        self._running.clear()

    def __len__(self) -> int:
        return len(self._running)

    def begin(self, key: Key, step: Step, log: Path, **how: Any) -> None:
        """Start a step; what it says is added to `log`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        answer, told = self.context.Pipe(duplex=False)
        given = (step, log, told, dict(os.environ) | ALWAYS, how)
        process = self.context.Process(target=run_step, args=given, name=" ".join(key))
        with _environment(ALWAYS):  # the first step starts the process that all are forked from
            process.start()
        told.close()
        self._running[key] = _Running(process=process, answer=answer, begun=time.monotonic())

    def ended(self) -> Iterator[tuple[Key, Ended]]:
        """Wait for at least one step to end."""
        wait([one.process.sentinel for one in self._running.values()])
        for key, one in list(self._running.items()):
            if not one.process.is_alive():
                del self._running[key]
                yield key, _end_of(one)


def _end_of(one: _Running) -> Ended:
    one.process.join()
    code, failed, cpu_seconds = one.process.exitcode or 0, "", 0.0
    try:
        failed, cpu_seconds = one.answer.recv()
    except EOFError:
        failed = f"killed by signal {-code}" if code < 0 else f"ended with code {code}"
    finally:
        one.answer.close()
        one.process.close()
    return Ended(failed=failed, seconds=time.monotonic() - one.begun, cpu_seconds=cpu_seconds)


def run_step(step: Step, log: Path, told: Connection, environment: Mapping[str, str], how: Mapping[str, Any]) -> None:
    """In a process of its own: do the step and tell why it failed, if it did, and the processor time."""
    signal.signal(signal.SIGTERM, _terminated)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _speak_into(log, step)
    take_environment(environment)
    failed, of_others = "", 0.0
    try:
        call(step, progress=Progress(), **how)
    except FedSynthError as error:
        failed = str(error)
        print(f"fedsynth: {failed}", file=sys.stderr)  # noqa: T201 (the log)
    except Exception as error:
        traceback.print_exc()
        failed = traceback.format_exception_only(error)[-1].strip()
    finally:
        of_others = _end_what_it_started()
    with suppress(OSError):  # nobody listens any more
        told.send((failed, _cpu_seconds() + of_others))


def take_environment(environment: Mapping[str, str]) -> None:
    """Another suite or library may have started the process that this one was forked from, under other settings."""
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)
    import torch

    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))


def _speak_into(log: Path, step: Step) -> None:
    """All that this process and those that it starts print goes to the log, with the time."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for standard in (1, 2):
        os.dup2(handle, standard)
    os.close(handle)
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.WARNING, force=True)
    logging.getLogger("fedsynth").setLevel(logging.INFO)
    print(f"$ {step.as_typed}", file=sys.stderr, flush=True)  # noqa: T201


def _cpu_seconds() -> float:
    own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime


def _end_what_it_started() -> float:
    """End the processes that wait for further work of this one. Returns the processor time that they took."""
    seconds = 0.0
    for one in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            took = one.cpu_times()
            seconds += took.user + took.system
            one.terminate()
    return seconds


def _terminated(number: int, frame: object) -> NoReturn:
    """Ends like Ctrl-C: what is half written is removed."""
    raise SystemExit(128 + number)


def _end_with_parent() -> None:
    """A suite that was killed leaves no step at work."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """For what is started in the block: libraries read these when they are imported."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
