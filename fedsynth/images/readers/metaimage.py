"""Looks at a MetaImage (.mhd, .mha) before ITK does, which tells of missing or short data on stderr only."""

import math
from pathlib import Path

from fedsynth.errors import SourceError
from fedsynth.images.readers.volume import SKIP

BYTES = {"UCHAR": 1, "CHAR": 1, "USHORT": 2, "SHORT": 2, "UINT": 4, "INT": 4, "FLOAT": 4, "DOUBLE": 8}
LONGEST_HEADER = 65536


def check_metaimage(path: Path) -> None:
    """The data must be there and as long as the header says; kinds that only ITK understands are left to ITK."""
    if path.suffix.lower() not in (".mhd", ".mha"):
        return
    with path.open("rb") as file:
        start = file.read(LONGEST_HEADER)
    head, found, tail = start.partition(b"ElementDataFile")
    if not found:
        raise SourceError("is not a MetaImage: its header names no data", file=path, remedy=SKIP)
    named = dict(_field(line) for line in head.splitlines() if b"=" in line)
    line = tail.splitlines()[0]
    data = line.replace(b"=", b"", 1).strip().decode("utf-8", "replace")
    if data.upper() == "LOCAL":
        header = len(head) + len(found) + len(line) + 1
        _check_length(path, path.stat().st_size - header, named)
    elif data.upper().split()[:1] != ["LIST"] and "%" not in data:
        beside = path.parent / data
        if not beside.is_file():
            raise SourceError(f"its data file {data!r} is missing", file=path, remedy="put both files side by side")
        _check_length(beside, beside.stat().st_size, named)


def _field(line: bytes) -> tuple[str, str]:
    key, _, value = line.decode("latin1").partition("=")
    return key.strip(), value.strip()


def _check_length(path: Path, length: int, named: dict[str, str]) -> None:
    wanted = _announced(named)
    if wanted is not None and length < wanted:
        raise SourceError(f"is cut off: {wanted} bytes of voxels are announced", file=path, value=length, remedy=SKIP)


def _announced(named: dict[str, str]) -> int | None:
    """The bytes that the header promises, or None where it does not say."""
    if named.get("CompressedData", "False").lower() == "true":
        packed = named.get("CompressedDataSize", "")
        return int(packed) if packed.isdigit() else None
    width = BYTES.get(named.get("ElementType", "").removeprefix("MET_"))
    sizes = named.get("DimSize", "").split()
    if width is None or not all(size.isdigit() for size in sizes):
        return None
    return math.prod(int(size) for size in sizes) * width
