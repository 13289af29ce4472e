"""What Flower puts in the place of an answer, told in our words."""

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict

from fedsynth.federation.engines.flower_names import GONE, identity, number
from fedsynth.federation.error_codes import ErrorCode
from fedsynth.federation.exchange import Facts
from fedsynth.federation.messages import Hello, facts_content, read_hello, read_outcome


@pytest.mark.parametrize(
    ("code", "text", "told"),
    [
        (GONE[0], "Node Unavailable", ErrorCode.UNREACHABLE),
        (GONE[1], "ClientApp stopped responding", ErrorCode.UNREACHABLE),
        (2, ErrorCode.MEMORY.value, ErrorCode.MEMORY),
        (2, "no file /srv/patients/Smith.nii", ErrorCode.FAILED),
    ],
)
def test_an_error_is_a_code(code: int, text: str, told: ErrorCode) -> None:
    with identity():
        asked = number(Message(RecordDict(), 7, "train"), "a")
        answer = Message(Error(code, text), reply_to=asked)
    assert read_outcome(answer)[1] is told
    assert "Smith" not in str(read_hello(answer))


FACTS = Facts(
    channels=("t1",),
    size=(8, 8),
    classes=(),
    mask_labels=("background", "tumour"),
    spacing_mm=(1.0, 1.0),
    phantoms=False,
)


def greeting(**changed: object) -> Hello:
    """What the server reads of a site's handshake."""
    with identity():
        asked = number(Message(RecordDict(), 7, "query.hello"), "a")
        words = dict(facts_content("north", FACTS)["words"]) | changed  # type: ignore[call-overload]
        content = RecordDict({"words": ConfigRecord({name: v for name, v in words.items() if v is not None})})
        return read_hello(Message(content, reply_to=asked))


@pytest.mark.parametrize(
    "wrong",
    [
        {"channels": 5},
        {"channels": "t1"},
        {"channels": [1.0]},
        {"channels": []},
        {"size": [8]},
        {"size": [8, 0]},
        {"size": [8.0, 8.0]},
        {"spacing_mm": ["1", "1"]},
        {"phantoms": "no"},
        {"phantoms": None},
        {"more": 1},
    ],
    ids=str,
)
def test_facts_of_another_kind_are_a_site_that_failed(wrong: dict[str, object]) -> None:
    assert greeting() == Hello(site="north", facts=FACTS)
    assert greeting(**wrong) == Hello(site="north", refused=ErrorCode.FAILED)
