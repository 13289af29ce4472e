"""A SHA-256 within a safetensors file over all of its content, so that one changed bit is seen before the file is used.

The hash stands in the metadata and is taken with zeros in its own place. Knows nothing of networks.
"""

import errno
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsynth.errors import DamagedError, FedSynthError

KEY = "sha256"
_ZEROS = "0" * 64
_WIDTHS = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_DTYPES = {
    np.dtype(kind): name
    for kind, name in {
        "f8": "F64", "i8": "I64", "u8": "U64", "f4": "F32", "i4": "I32", "f2": "F16", "i2": "I16", "i1": "I8",
        "u1": "U8", "?": "BOOL",
    }.items()
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """One array of a file: its type as safetensors calls it, its shape, and its bytes, which are not copied."""

    dtype: str
    shape: tuple[int, ...]
    content: memoryview


def entry_of(value: NDArray[Any], dtype: str = "") -> Entry:
    """An array as it is written; `dtype` where numpy has no name for it."""
    flat = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
    return Entry(dtype=dtype or _DTYPES[value.dtype], shape=value.shape, content=flat.data)


def hashed(entries: Mapping[str, Entry], notes: Mapping[str, str]) -> list[bytes | memoryview]:
    """A safetensors file in parts, with notes and the hash as its metadata; equal in, equal out.

    Arrays lie in the order of their names, the widest numbers first so that each is aligned.
    """
    header: dict[str, Any] = {"__metadata__": dict(sorted({**notes, KEY: _ZEROS}.items()))}
    ordered = sorted(entries.items(), key=lambda item: (-_WIDTHS[item[1].dtype], item[0]))
    end = 0
    for name, entry in ordered:
        begin, end = end, end + entry.content.nbytes
        header[name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    contents = [entry.content for _, entry in ordered]
    return [_put(head, _ZEROS, _digest(head, *contents)), *contents]


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
        start = 8 + int.from_bytes(content[:8], "little")
        notes = dict(json.loads(content[8:start])["__metadata__"])
        found = notes.pop(KEY)
        altered = found != _digest(_put(content[:start], found, _ZEROS), memoryview(content)[start:])
    except (ValueError, KeyError, TypeError) as error:
        problem = "is damaged: it is cut short, or has no hash of its content"
        raise DamagedError(problem, file=path, remedy=remedy) from error
    if altered:
        raise DamagedError("is damaged: its content is not what was written", file=path, remedy=remedy)
    return content, notes


def _put(head: bytes, old: str, new: str) -> bytes:
    """The head with another hash; the quotes of a text within the metadata would be escaped."""
    before, found, after = head.partition(f'"{KEY}":"{old}"'.encode())
    if not found:
        raise ValueError("there is no place for a hash")
    return b"".join((before, f'"{KEY}":"{new}"'.encode(), after))


def _digest(*parts: bytes | memoryview) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()
