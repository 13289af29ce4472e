"""Arrays that follow from public settings alone: made once, kept on disk under the digest of those settings.

A file is whole or absent, and processes that want the same arrays make them once. It knows nothing of what they mean.
"""

import fcntl
import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsynth import atomic_files
from fedsynth.code_digest import code_changed
from fedsynth.errors import FedSynthError

POOLS = "public-pools"

Arrays = dict[str, NDArray[Any]]


def kept_arrays(name: str, keys: tuple[str, ...], make: Callable[[], Mapping[str, NDArray[Any]]]) -> Arrays:
    """The arrays of that name from disk, or made and kept; who asks meanwhile waits."""
    folder = kept_folder(POOLS)
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # it may be the store, which nobody else reads
        folder.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:  # nothing can be kept
        return dict(make())
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (kept := _read(folder / f"{name}.npz", keys)) is not None:
            return kept
        made = dict(make())
        if not code_changed():
            _keep(folder / f"{name}.npz", made)
        return made
    finally:
        os.close(lock)


def kept_folder(kind: str) -> Path:
    """Where such public things are kept: in `$FEDSYNTH_STORE`, or the user's cache directory."""
    if named := os.environ.get("FEDSYNTH_STORE"):
        return Path(named) / kind
    found = os.environ.get("XDG_CACHE_HOME")
    return (Path(found) if found else Path.home() / ".cache") / "fedsynth" / kind


def _keep(path: Path, arrays: Arrays) -> None:
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    try:
        atomic_files.write_bytes(path, content.getvalue())
    except FedSynthError:  # a full disk: the arrays serve this process all the same
        return


def _read(path: Path, keys: tuple[str, ...]) -> Arrays | None:
    """None for a file that is missing or damaged: it is made again."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            return {name: kept[name] for name in keys}
    except (OSError, ValueError, KeyError, EOFError):
        return None
