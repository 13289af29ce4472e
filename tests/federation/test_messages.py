"""What Flower puts in the place of an answer, told in our words."""

import pytest
from flwr.app import Error, Message, RecordDict

from fedsynth.federation.engines.flower_names import GONE, identity, number
from fedsynth.federation.messages import read_hello, read_outcome
from fedsynth.federation.refusals import Code


@pytest.mark.parametrize(
    ("code", "text", "told"),
    [
        (GONE[0], "Node Unavailable", Code.UNREACHABLE),
        (GONE[1], "ClientApp stopped responding", Code.UNREACHABLE),
        (2, Code.MEMORY.value, Code.MEMORY),
        (2, "no file /srv/patients/Smith.nii", Code.FAILED),
    ],
)
def test_an_error_is_a_code(code: int, text: str, told: Code) -> None:
    with identity():
        asked = number(Message(RecordDict(), 7, "train"), "a")
        answer = Message(Error(code, text), reply_to=asked)
    assert read_outcome(answer)[1] is told
    assert "Smith" not in str(read_hello(answer))
