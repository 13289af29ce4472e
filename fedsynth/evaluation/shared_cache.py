"""Results that do not depend on the synthetic set, kept on disk: runs of one real set compute them once.

A file may hold scores of named patients, or networks trained on them, and never leaves the site. Its name is a digest
of everything that the result follows from: the images and their roles, the settings, the seed and the code.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from fedsynth import atomic_files
from fedsynth.code_digest import code_changed, code_digest
from fedsynth.errors import FedSynthError

Kept = TypeVar("Kept")


@dataclass(frozen=True, kw_only=True)
class Form(Generic[Kept]):
    """How a result is written to a file and read back to the bit."""

    ending: str
    write: Callable[[Kept], bytes]
    read: Callable[[bytes], Kept]


@dataclass(frozen=True, kw_only=True)
class SharedCache:
    """The folder of kept results; without a `folder`, or where it cannot be written, nothing is kept."""

    folder: Path | None = None

    def get(self, facts: Mapping[str, Any], make: Callable[[], Kept], form: Form[Kept]) -> Kept:
        """What was kept for `facts`, or what `make` gives, kept from now on. Waits for who is making it."""
        found = self.get_now(facts, make, form, wait=True)
        assert found is not None  # it has waited
        return found

    def get_now(
        self, facts: Mapping[str, Any], make: Callable[[], Kept], form: Form[Kept], *, wait: bool = False
    ) -> Kept | None:
        """The same; without `wait` None is given where another process is making it."""
        of = {**facts, "code": code_digest(), "torch": torch.__version__}  # other code may give other results
        name = hashlib.sha256(json.dumps(of, sort_keys=True, default=str).encode()).hexdigest()
        if (handle := self._open(f"{name}.lock")) is None or self.folder is None:
            return make()
        path = self.folder / f"{name}{form.ending}"
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                return None
            if (kept := _read(path, form)) is not None:
                return kept
            made = make()
            if not code_changed():
                _keep(path, form.write(made))
            return made
        finally:
            os.close(handle)

    def _open(self, name: str) -> int | None:
        """The file to lock; None where nothing can be kept."""
        if self.folder is None:
            return None
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)
            return os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            return None


def _keep(path: Path, content: bytes) -> None:
    try:
        atomic_files.write_bytes(path, content, mode=0o600)
    except FedSynthError:  # a full disk: the result serves this process all the same
        return


def _read(path: Path, form: Form[Kept]) -> Kept | None:
    """None for a file that is missing or damaged: it is made again."""
    try:
        return form.read(path.read_bytes())
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return None
