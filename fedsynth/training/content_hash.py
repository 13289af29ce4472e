"""A SHA-256 within a safetensors file over all of its content, so that one changed bit is seen before the file is used.

The hash stands in the metadata and is taken with zeros in its own place. Knows nothing of networks.
"""

import errno
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from fedsynth.errors import DamagedError, FedSynthError

KEY = "sha256"
_ZEROS = "0" * 64


def hashed(content: bytes, notes: Mapping[str, str]) -> bytes:
    """A serialised file with notes and the hash as its metadata, in the order of their names: equal in, equal out."""
    length = int.from_bytes(content[:8], "little")
    header = {"__metadata__": dict(sorted({**notes, KEY: _ZEROS}.items())), **json.loads(content[8 : 8 + length])}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    whole = b"".join((len(text).to_bytes(8, "little"), text, content[8 + length :]))
    return _put(whole, _ZEROS, _digest(whole))


def read_whole(path: Path) -> tuple[bytes, dict[str, str]]:
    """A file and its metadata. `DamagedError` where it is cut short, altered or without a hash."""
    remedy = "use an earlier one"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:  # a bad sector is damage; a missing right or a folder in its place is not
        kind = DamagedError if error.errno == errno.EIO else FedSynthError
        raise kind(f"cannot be read: {(error.strerror or str(error)).lower()}", file=path) from error
    try:
        notes = _metadata(content)
        found = notes.pop(KEY)
        altered = found != _digest(_put(content, found, _ZEROS))
    except (ValueError, KeyError, TypeError) as error:
        problem = "is damaged: it is cut short, or has no hash of its content"
        raise DamagedError(problem, file=path, remedy=remedy) from error
    if altered:
        raise DamagedError("is damaged: its content is not what was written", file=path, remedy=remedy)
    return content, notes


def _metadata(content: bytes) -> dict[str, str]:
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return dict(header["__metadata__"])


def _put(content: bytes, old: str, new: str) -> bytes:
    """The content with another hash; the quotes of a text within the metadata would be escaped."""
    before, found, after = content.partition(f'"{KEY}":"{old}"'.encode())
    if not found:
        raise ValueError("there is no place for a hash")
    return b"".join((before, f'"{KEY}":"{new}"'.encode(), after))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
