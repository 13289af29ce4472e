"""A user's error is one line with everything in it, and survives the way back from another process."""

import pickle
from pathlib import Path

import pytest

from fedsynth.errors import ConfigError, FedSynthError, ImageSetError, RefusedError, SourceError, nearest


def test_everything_stands_in_one_line() -> None:
    error = ImageSetError("unknown role", file=Path("set/cases.csv"), row=7, value="membr", remedy="mend it")
    assert str(error) == "set/cases.csv: row 7: unknown role (found 'membr'); mend it"


def test_only_what_is_given_is_said() -> None:
    assert str(FedSynthError("it broke")) == "it broke"
    assert str(FedSynthError("it broke", row="x", remedy="stop")) == "row x: it broke; stop"
    assert str(FedSynthError("it broke", value=0)) == "it broke (found 0)"
    assert str(FedSynthError("it broke", value="")) == "it broke (found '')"


def test_line_breaks_are_folded_and_names_kept() -> None:
    assert str(FedSynthError("one\n  two\r\n\nthree", file="a  b.toml")) == "a  b.toml: one two three"


def test_a_long_value_is_cut() -> None:
    text = str(FedSynthError("too much", value=list(range(10_000))))
    assert len(text) < 250
    assert text.endswith("...)")


@pytest.mark.parametrize("kind", [FedSynthError, ConfigError, ImageSetError, SourceError, RefusedError])
def test_errors_cross_processes(kind: type[FedSynthError]) -> None:
    error = kind("it broke", file="f", row=1, value=[1], remedy="do this")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error)


@pytest.mark.parametrize(
    ("word", "known", "remedy"),
    [
        ("natral", ["iid", "natural"], "did you mean 'natural'?"),
        ("LGG", ["lgg", "brats"], "did you mean 'lgg'?"),
        ("flair", ["FLAIR", "T1"], "did you mean 'FLAIR'?"),
        ("xyz", ["b", "a", "b"], "known: a, b"),
        ("xyz", [], "known: none"),
        ("", ["a"], "known: a"),
        ("patient-0999", [f"patient-{i:04}" for i in range(1000)], "did you mean 'patient-0999'?"),
    ],
)
def test_the_nearest_spelling(word: str, known: list[str], remedy: str) -> None:
    assert nearest(word, known) == remedy


def test_a_long_list_is_cut() -> None:
    assert nearest("?", [f"a{i:03}" for i in range(100)]).endswith("a019 and 80 more")
