"""Arrays as the bytes that Flower sends, and back: numpy's own file format, its headers read and written once.

The same bytes as Flower's `Array(value)` makes and `.numpy()` reads, in less time for the many arrays of a network.
"""

import math
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import Array
from numpy.lib import format as npy
from numpy.typing import NDArray

NUMPY = "numpy.ndarray"  # Flower's word for this kind of bytes
_PREFIX = len(npy.magic(1, 0)) + 2  # then two bytes with the header's length
_NUMBERS = "biufc"  # what may be read from bytes: never objects, which are code


def pack(value: NDArray[Any]) -> Array:
    """An array as Flower holds it."""
    content = _header(value.dtype.str, value.shape) + value.tobytes()  # in C order, whatever the order in memory
    return Array(str(value.dtype), tuple(map(int, value.shape)), NUMPY, content)


def unpack(array: Array) -> NDArray[Any]:
    """The array that was sent, to be read and not written; `ValueError` where the bytes are none."""
    data = array.data
    if array.stype != NUMPY or data[: _PREFIX - 2] != npy.magic(1, 0):
        raise ValueError("these bytes are no array as numpy saves it")
    length = _PREFIX + int.from_bytes(data[_PREFIX - 2 : _PREFIX], "little")
    dtype, shape, fortran = _parsed(data[:length])
    flat = np.frombuffer(data, dtype, math.prod(shape), length) if math.prod(shape) else np.empty(0, dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


@lru_cache(maxsize=4096)
def _header(descr: str, shape: tuple[int, ...]) -> bytes:
    made = BytesIO()
    npy.write_array_header_1_0(made, {"descr": descr, "fortran_order": False, "shape": shape})
    return made.getvalue()


@lru_cache(maxsize=4096)
def _parsed(header: bytes) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    try:
        shape, fortran, dtype = npy.read_array_header_1_0(BytesIO(header[_PREFIX - 2 :]))
    except Exception as error:  # numpy hands it to Python's own parser, which fails in every way: also out of memory
        raise ValueError("these bytes have no header that numpy can read") from error
    if dtype.kind not in _NUMBERS or any(type(length) is not int or length < 0 for length in shape):
        raise ValueError("these bytes are no numbers")
    return dtype, shape, fortran
