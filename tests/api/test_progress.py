"""Long work without a terminal says every ten seconds how far it is."""

import pytest

from fedsynth.api import progress
from fedsynth.api.progress import minutes, now_and_then


def test_a_line_every_ten_seconds_with_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 9.0, 11.0, 12.0, 22.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    said: list[str] = []
    advance = now_and_then("reading", said.append)
    for done in (1, 2, 3, 4):
        advance(done, 10)
    assert said == ["reading: 2 of 10, 0:44 left", "reading: 4 of 10, 0:33 left"]


def test_more_than_was_expected_promises_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 11.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    said: list[str] = []
    now_and_then("measuring", said.append)(17, 16)
    assert said == ["measuring: 17 of 16"]


def test_clock_times() -> None:
    assert [minutes(s) for s in (0.9, 65, 3600)] == ["0:00", "1:05", "60:00"]
