"""Files that are whole or absent: everything is written beside its place, synced, then renamed into it."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedsynth.errors import FedSynthError, RefusedError


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step; a crash leaves the old file or the new one, never half of one."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step."""
    with told_when_full(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        _sync(path.parent)


@contextmanager
def new_folder(target: Path, *, marker: str, overwrite: bool = False) -> Iterator[Path]:
    """A folder to fill; it takes the name `target` only when the block ends without an error.

    An existing target is refused without `overwrite`, and with it is kept until the new folder is whole.
    Only an empty folder or one that holds the file `marker` is ever replaced: no typing slip deletes a home folder.
    """
    refuse_existing(target, marker=marker, overwrite=overwrite)
    with told_when_full(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        working = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.partial-"))
        os.chmod(working, 0o777 & ~_umask())
        try:
            yield working
            for file in working.rglob("*"):
                if file.is_file():
                    _sync(file)
            _sync(working)
            _take_place(working, target)
        except BaseException:
            shutil.rmtree(working, ignore_errors=True)
            raise
        _sync(target.parent)


def refuse_existing(target: Path, *, marker: str, overwrite: bool) -> None:
    """Say before any work is done that `target` is in the way."""
    if not target.exists() and not target.is_symlink():
        return
    if not overwrite:
        raise RefusedError("the output exists already", file=target, remedy="choose another name or give --overwrite")
    if not target.is_dir() or target.is_symlink():
        raise RefusedError("the output exists and is not a folder", file=target, remedy="choose another name")
    if any(target.iterdir()) and not (target / marker).is_file():
        raise RefusedError(f"the folder has no {marker} and is not replaced", file=target, remedy="choose another name")


@contextmanager
def told_when_full(path: Path) -> Iterator[None]:
    """Turn a full disk, a missing right or a name in the way into a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno is None or isinstance(error, FedSynthError):
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
    mask = os.umask(0)
    os.umask(mask)
    return mask
