"""What travels between server and sites, as Flower's records and as plain values. The only place that knows both.

One ArrayRecord with keys `<network>.<parameter>`, one MetricRecord with the same keys at every site, and a ConfigRecord
for words. A site that will not or cannot answer says so in words: a neutral code, never the text of an exception.
"""

import math
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from numpy.lib import format as npy
from numpy.typing import NDArray

from fedsynth.federation.engines.flower_names import GONE
from fedsynth.federation.error_codes import ErrorCode
from fedsynth.federation.exchange import Arrays, Facts, Order, Outcome, SiteNote

# Arrays as the bytes that Flower sends, and back: numpy's own file format, its headers read and written once.
#
# The same bytes as Flower's `Array(value)` makes and `.numpy()` reads, in less time for the many arrays of a network.


NUMPY = "numpy.ndarray"  # Flower's word for this kind of bytes
_PREFIX = len(npy.magic(1, 0)) + 2  # then two bytes with the header's length
_NUMBERS = "biufc"  # what may be read from bytes: never objects, which are code


def pack(value: NDArray[Any]) -> Array:
    """An array as Flower holds it."""
    content = b"".join((_header(value.dtype.str, value.shape), np.ascontiguousarray(value).data))  # in C order
    return Array(_name(value.dtype), tuple(map(int, value.shape)), NUMPY, content)


def unpack(array: Array) -> NDArray[Any]:
    """The array that was sent, to be read and not written; `ValueError` where the bytes are none."""
    data = array.data
    if array.stype != NUMPY or data[: _PREFIX - 2] != npy.magic(1, 0):
        raise ValueError("these bytes are no array as numpy saves it")
    length = _PREFIX + int.from_bytes(data[_PREFIX - 2 : _PREFIX], "little")
    dtype, shape, fortran = _parsed(data[:length])
    flat = np.frombuffer(data, dtype, math.prod(shape), length) if math.prod(shape) else np.empty(0, dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


@lru_cache(maxsize=64)
def _name(dtype: np.dtype[Any]) -> str:
    return str(dtype)


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


ARRAYS, METRICS, WORDS = "arrays", "metrics", "words"
HELLO, TRAIN = "query.hello", "train"
REFUSED, SITE, NOTE, NONCE = "refused", "site", "note", "nonce"
_KINDS: dict[str, tuple[type, ...]] = {
    "channels": (str,), "size": (int,), "classes": (str,), "mask_labels": (str,), "spacing_mm": (int, float)
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the server knows of one site's answer; `reason` is empty where it answered, `asked` false where nothing was
    sent to it. `note` is what the round log adds of its storage."""

    site: str
    outcome: Outcome = field(default_factory=Outcome)
    reason: ErrorCode | None = None
    seconds: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0
    asked: bool = True
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Hello:
    """A site's handshake: its name and what its images are like, or why it will not take part."""

    site: str
    facts: Facts | None = None
    refused: ErrorCode | None = None


def order_contents(orders: Mapping[str, Order], arrays: Mapping[str, Any]) -> dict[str, RecordDict]:
    """Everybody's order for a round; the arrays are turned into bytes once, and bytes can be shared."""
    record = _to_record(arrays)
    return {name: RecordDict({ARRAYS: record, WORDS: _unguessable(asdict(order))}) for name, order in orders.items()}


def read_order(message: Message) -> tuple[Order, Arrays]:
    """The order in a message."""
    words = {name: value for name, value in _words(message).items() if name != NONCE}
    return Order(**words), _from_record(message)


def hello_content(experiment: str) -> RecordDict:
    """The server's handshake."""
    return RecordDict({WORDS: _unguessable({"experiment": experiment})})


def read_handshake(message: Message) -> str:
    """The run's own name in a handshake."""
    return str(_words(message)["experiment"])


def outcome_content(site: str, outcome: Outcome) -> RecordDict:
    """A round's result."""
    note = {} if outcome.note is None else {NOTE: outcome.note.value}
    return RecordDict(
        {
            ARRAYS: _to_record(outcome.arrays),
            METRICS: MetricRecord(dict(outcome.metrics)),
            WORDS: ConfigRecord({SITE: site, **note}),
        }
    )


def read_outcome(message: Message) -> tuple[Outcome, ErrorCode | None]:
    """A round's result, or the code in its place."""
    try:
        if (code := _refusal(message)) is not None:
            return Outcome(), code
        metrics = {name: float(value) for name, value in _metrics(message).items()}
        return Outcome(arrays=_from_record(message), metrics=metrics, note=_note(message)), None
    except (KeyError, ValueError, TypeError, OverflowError):
        return Outcome(), ErrorCode.SHAPE


def facts_content(site: str, facts: Facts) -> RecordDict:
    """A site's handshake."""
    words = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(facts).items()}
    return RecordDict({WORDS: ConfigRecord({SITE: site, **words})})


def refusal_content(site: str, code: ErrorCode) -> RecordDict:
    """A site's refusal, with the records of any other reply left empty."""
    return RecordDict({WORDS: ConfigRecord({SITE: site, REFUSED: code.value})})


def read_hello(message: Message) -> Hello:
    """A site's handshake or refusal; the name is empty where it did not get as far as that."""
    if message.has_error():
        return Hello(site="", refused=ErrorCode.parse(str(message.error.reason)))
    site = ""
    try:
        words = _words(message)
        site = str(words.pop(SITE))
        if REFUSED in words:
            return Hello(site=site, refused=ErrorCode.parse(str(words[REFUSED])))
        return Hello(site=site, facts=_facts(words))
    except (KeyError, TypeError):
        return Hello(site=site, refused=ErrorCode.FAILED)  # one handshake that is none must not stop the others


def content_bytes(message: Message) -> int:
    """The size of the arrays in a message."""
    return 0 if message.has_error() else record_bytes(message.content)


def record_bytes(content: RecordDict) -> int:
    """The same of a message's content."""
    if ARRAYS not in content.array_records:
        return 0
    return sum(len(array.data) for array in content.array_records[ARRAYS].values())


def _unguessable(words: Mapping[str, Any]) -> ConfigRecord:
    """Words with a secret of this one message. Flower numbers a message by its digest and takes a reply from any node
    that knows the number: without the secret a site could reckon it from its own message, and answer for another."""
    return ConfigRecord({**words, NONCE: secrets.token_hex(16)})


def _refusal(message: Message) -> ErrorCode | None:
    if message.has_error():
        return ErrorCode.UNREACHABLE if message.error.code in GONE else ErrorCode.parse(str(message.error.reason))
    words = _words(message) if WORDS in message.content else {}
    return ErrorCode.parse(str(words[REFUSED])) if REFUSED in words else None


def _note(message: Message) -> SiteNote | None:
    """The site's note; anything else that it may have written is not repeated."""
    said = str(_words(message).get(NOTE, "")) if WORDS in message.content else ""
    return SiteNote(said) if said in {note.value for note in SiteNote} else None


def _to_record(arrays: Mapping[str, Any]) -> ArrayRecord:
    return ArrayRecord({name: pack(value) for name, value in arrays.items()})


def _from_record(message: Message) -> Arrays:
    return {name: unpack(array) for name, array in _array_record(message).items()}


def _facts(words: Mapping[str, Any]) -> Facts:
    """The facts in a handshake; `TypeError` where one is missing or is of another kind."""
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in words.items()}
    facts = Facts(**given)
    for name, kinds in _KINDS.items():
        values = getattr(facts, name)
        if not isinstance(values, tuple) or not all(type(value) in kinds for value in values):
            raise TypeError(f"{name} is of another kind")
    if type(facts.public) is not str:
        raise TypeError("the public pool is of another kind")
    if type(facts.phantoms) is not bool or not facts.channels or len(facts.size) not in (2, 3) or min(facts.size) < 1:
        raise TypeError("these are no images")
    return facts


def _words(message: Message) -> dict[str, Any]:
    return dict(message.content.config_records[WORDS])


def _metrics(message: Message) -> dict[str, Any]:
    return dict(message.content.metric_records[METRICS])


def _array_record(message: Message) -> dict[str, Array]:
    return dict(message.content.array_records[ARRAYS])
