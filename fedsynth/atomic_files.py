"""Files that are whole or absent: everything is written beside its place, synced, then renamed into it."""

import ctypes
import errno
import os
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

from fedsynth.errors import FedSynthError, RefusedError

_MOST_PARTS = 1024  # in one call
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def write_text(path: Path, text: str, *, synced: bool = True) -> None:
    """Replace `path` by `text` in one step; a crash leaves the old file or the new one, never half of one."""
    write_bytes(path, text.encode(), synced=synced)


def write_bytes(
    path: Path,
    content: bytes | Sequence[bytes | memoryview],
    *,
    mode: int = 0o666,
    synced: bool = True,
    over: Path | None = None,
) -> None:
    """Replace `path` by `content`, or by its parts, in one step. The user's umask takes from the rights in `mode`.

    Not `synced`, the file outlives this process but perhaps not a power cut, until somebody calls `sync_all`. `over`
    is a file that nobody needs any more: its place on the disk is used again, which takes a quarter of the time.
    """
    parts = [content] if isinstance(content, bytes) else content
    with told_when_unwritable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            if over is not None:
                os.close(handle)
                os.replace(over, name)
                handle = os.open(name, os.O_WRONLY)
            try:
                os.fchmod(handle, mode & ~_UMASK)
                os.ftruncate(handle, _write(handle, parts))
                if synced:
                    os.fsync(handle)
            finally:
                os.close(handle)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        if synced:
            _sync(path.parent)


def _write(handle: int, parts: Sequence[bytes | memoryview]) -> int:
    """Write all parts without joining them; the number of bytes."""
    left = deque(memoryview(part) for part in parts if len(part))
    total = 0
    while left:
        done = os.writev(handle, list(islice(left, _MOST_PARTS)))
        total += done
        while left and done >= left[0].nbytes:
            done -= left.popleft().nbytes
        if done:
            left[0] = left[0][done:]
    return total


def sweep(folder: Path, pattern: str, *, older: float = 3600.0) -> None:
    """Remove what a kill in the middle of `write_bytes` left of files of this pattern, `older` seconds ago at least."""
    for path in folder.glob(f".{pattern}.*"):
        with suppress(OSError):  # another process sweeps too
            if time.time() - path.stat().st_mtime > older:
                path.unlink()


def append(path: Path, text: str, *, synced: bool = True) -> None:
    """Add lines to `path`. Whoever reads it must bear a last line that is cut short."""
    with told_when_unwritable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(text.encode())
            file.flush()
            if synced:
                os.fsync(file.fileno())


def sync_all(folder: Path) -> None:
    """All that was written to the file system of `folder`, by anybody, is on the disk: one call for many files."""
    with told_when_unwritable(folder):
        handle = os.open(folder, os.O_RDONLY)
        try:
            if sys.platform != "linux":
                os.sync()
            elif ctypes.CDLL(None, use_errno=True).syncfs(handle):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        finally:
            os.close(handle)


@contextmanager
def new_folder(target: Path, *, marker: str, overwrite: bool = False) -> Iterator[Path]:
    """A folder to fill; it takes the name `target` only when the block ends without an error.

    An existing target is refused without `overwrite`, and with it is kept until the new folder is whole.
    Only an empty folder or one that holds the file `marker` is ever replaced: no typing slip deletes a home folder.
    """
    refuse_existing(target, marker=marker, overwrite=overwrite)
    with told_when_unwritable(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        working = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.partial-"))
    try:
        with told_when_unwritable(target, only=_FULL):
            yield working
        with told_when_unwritable(target):
            os.chmod(working, 0o777 & ~_UMASK)
            for path in working.rglob("*"):
                _sync(path)
            _sync(working)
            _take_place(working, target)
            _sync(target.parent)
    except BaseException:
        shutil.rmtree(working, ignore_errors=True)
        raise


def refuse_existing(target: Path, *, marker: str, overwrite: bool = False) -> None:
    """Say before any work is done that `target` is in the way."""
    with told_when_unwritable(target):
        if not target.exists() and not target.is_symlink():
            return
        if not overwrite:
            remedy = "choose another name or give --overwrite"
            raise RefusedError("the output exists already", file=target, remedy=remedy)
        if not target.is_dir() or target.is_symlink():
            raise RefusedError("the output exists and is not a folder", file=target, remedy="choose another name")
        if any(target.iterdir()) and not (target / marker).is_file():
            problem = f"the folder has no {marker} and is not replaced"
            raise RefusedError(problem, file=target, remedy="choose another name")


@contextmanager
def told_when_unwritable(path: Path, *, only: frozenset[int] | None = None) -> Iterator[None]:
    """Turn a full disk, a missing right or a name in the way into a sentence; with `only`, just those error numbers.

    A block that reads other files beside writing `path` wants `only`: their troubles are not those of `path`.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or (only is not None and error.errno not in only):
            raise
        reason = (error.strerror or str(error)).lower()
        raise FedSynthError(f"cannot be written: {reason}", file=path, remedy="nothing was kept") from error


def _take_place(working: Path, target: Path) -> None:
    if not target.exists():
        os.rename(working, target)
        return
    aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.replaced-"))
    os.rename(target, aside / "old")
    try:
        os.rename(working, target)
    except BaseException:
        os.rename(aside / "old", target)
        aside.rmdir()
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    """The rights that new files are to lack. It can only be read by setting it, which no thread may see: read once."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


_UMASK = _umask()
