"""Digests of the package's source, as it was when this module was imported: what is kept on disk follows from it.

Processes that are forked later have the digests of the code that they run, whatever has become of the files since.
"""

import hashlib
from pathlib import Path

ROOT = Path(__file__).parent


def _read() -> dict[str, str]:
    return {
        path.relative_to(ROOT).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(ROOT.rglob("*.py"))
    }


_IMPORTED = _read()


def code_digest(parts: tuple[str, ...] = ()) -> str:
    """A digest of the code in these files and folders of the package; of all of it without any."""
    chosen = [_of(part) for part in parts] if parts else [_IMPORTED]
    return hashlib.sha256(repr([sorted(files.items()) for files in chosen]).encode()).hexdigest()


def code_changed() -> bool:
    """Whether files of the package differ from those digests: what is imported from now on may be other code."""
    try:
        return _read() != _IMPORTED
    except OSError:
        return True


def _of(part: str) -> dict[str, str]:
    found = {name: one for name, one in _IMPORTED.items() if name == part or name.startswith(f"{part}/")}
    if not found:
        raise FileNotFoundError(f"the package has no file or folder {part}")
    return found
