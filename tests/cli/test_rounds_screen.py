"""What is said while rounds go on."""

import pytest

from fedsynth.cli.rounds_screen import Screen
from fedsynth.federation.error_codes import ErrorCode
from fedsynth.federation.messages import Reply
from fedsynth.federation.rounds import Progress
from tests.federation.tiny import SETTINGS


def test_a_hospital_that_broke_down_is_named_at_once_and_once(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(SETTINGS)
    screen.watch(Progress(round=1, rounds=3, failed={"north": ErrorCode.DATA}))
    said = "north takes no part: its images cannot be used; why stands in sites/north/site.log of the run\n"
    assert capsys.readouterr().err == said
    screen.watch(Progress(round=2, rounds=3, failed={"north": ErrorCode.DATA}))
    assert not capsys.readouterr().err
    screen.watch(Progress(round=2, rounds=3, replies=(Reply(site="north", reason=ErrorCode.DATA), Reply(site="south"))))
    assert capsys.readouterr().err.strip().endswith("left; without north its images cannot be used")
