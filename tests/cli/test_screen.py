"""What is shown of a suite's steps."""

import itertools

from fedsynth.cli import screen


def test_steps_of_a_suite_say_what_they_took_and_foretell_nothing(monkeypatch, capsys):
    clock = itertools.count(0, 65.0)
    monkeypatch.setattr(screen.time, "monotonic", lambda: next(clock))  # a minute passes between all looks
    with screen.steps_shown("suite quick") as told:
        told("one", "simulate", 0, 3)
        told("one", "simulate", 1, 3)
        told("one", "fidelity", 1, 3)
    said = capsys.readouterr().err.splitlines()
    assert said == ["[0/3] one: simulate", "[1/3] one: simulate took 1:05", "[1/3] one: fidelity"]


def test_steps_that_are_alike_say_how_long_the_rest_will_take(monkeypatch, capsys):
    clock = itertools.count(0, 65.0)
    monkeypatch.setattr(screen.time, "monotonic", lambda: next(clock))
    with screen.progress_bar("reading") as bar:
        bar(1, 3)
    assert capsys.readouterr().err == "reading: 1 of 3, 2:10 left\n"
