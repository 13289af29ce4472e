import struct

import numpy as np
import pytest
from flwr.app import Array

from fedsynth.federation.messages import pack, unpack

VALUES = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.array(3.5, np.float32),
    np.array(7),
    np.zeros((0, 4), np.float32),
    np.array([True, False]),
    np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1),
    np.array([np.nan, -0.0, np.inf], np.float16),
    np.arange(5, dtype=np.uint8)[::2],
]


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_bytes_are_flowers_own_and_come_back(value):
    packed, theirs = pack(value), Array(np.ascontiguousarray(value).reshape(value.shape))
    assert (packed.dtype, packed.shape, packed.stype, packed.data) == (
        theirs.dtype,
        theirs.shape,
        theirs.stype,
        theirs.data,
    )
    for array in (packed, Array(value)):
        back = unpack(array)
        assert (back.dtype, back.shape) == (value.dtype, value.shape)
        assert back.tobytes() == value.tobytes()
    assert np.array_equal(packed.numpy(), value, equal_nan=True)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data[:9],
        lambda data: b"\x93NUMPX" + data[6:],
        lambda data: data.replace(b"<f4", b"|O8"),
        lambda data: data.replace(b"'shape'", b"'shapf'"),
        lambda data: data.replace(b"(2, 3)", b"(9, 9)"),
    ],
)
def test_bytes_that_are_no_array_are_refused(spoil):
    good = pack(VALUES[0])
    with pytest.raises(ValueError):
        unpack(Array(good.dtype, good.shape, good.stype, spoil(good.data)))


@pytest.mark.parametrize(
    "text",
    [
        "{'descr': '<f4', 'shape': (",  # tokenize.TokenError, which is nothing but an Exception
        "-" * 9000 + "1",  # MemoryError
        "(" * 5000,
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 5000 + ",)}",
        "{'descr': 'M8[ns]', 'fortran_order': False, 'shape': (1,)}",
    ],
    ids=range(7),
)
def test_headers_that_break_the_parser_are_refused(text):
    data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + bytes(64)
    with pytest.raises(ValueError):
        unpack(Array("float32", (1,), "numpy.ndarray", data))


def test_other_kinds_of_bytes_are_refused():
    good = pack(VALUES[0])
    with pytest.raises(ValueError):
        unpack(Array(good.dtype, good.shape, "torch", good.data))
