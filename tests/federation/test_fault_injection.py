import pytest

from fedsynth.errors import ConfigError
from fedsynth.federation.fault_injection import Faults


def test_shares_are_read_and_written_back():
    faults = Faults.parse("dropout=0.2, straggler=0.1,nan=0.05")
    assert faults == Faults(dropout=0.2, straggler=0.1, nan=0.05)
    assert Faults.parse(str(faults)) == faults
    assert Faults.parse("") == Faults()
    assert str(Faults()) == ""


def test_failures_come_as_often_as_asked_and_again_the_same():
    faults = Faults.parse("dropout=0.2,straggler=0.1,nan=0.05")
    drawn = [faults.of(7, site, round_) for site in range(20) for round_ in range(100)]
    assert drawn == [faults.of(7, site, round_) for site in range(20) for round_ in range(100)]
    counts = {name: drawn.count(name) for name in ("dropout", "straggler", "nan", "")}
    for name, share in (("dropout", 0.2), ("straggler", 0.1), ("nan", 0.05), ("", 0.65)):
        assert abs(counts[name] - 2000 * share) < 4 * (2000 * share * (1 - share)) ** 0.5
    assert drawn != [faults.of(8, site, round_) for site in range(20) for round_ in range(100)]


def test_nothing_is_injected_unless_asked_and_always_where_the_share_is_one():
    assert {Faults().of(0, site, 0) for site in range(50)} == {""}
    assert {Faults(nan=1).of(0, site, 0) for site in range(50)} == {"nan"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dropuot=0.1", "did you mean 'dropout'"),
        ("dropout", "needs a share.*write dropout=0.1"),
        ("dropout=much", "needs a share"),
        ("dropout=-0.1", "must lie between 0 and 1"),
        ("dropout=nan", "must lie between 0 and 1"),
        ("dropout=0.7,nan=0.7", "add up to more than 1"),
        ("nan=0.1,nan=0.2", "names a failure twice"),
    ],
)
def test_wrong_shares_are_told(text, words):
    with pytest.raises(ConfigError, match=words):
        Faults.parse(text)
