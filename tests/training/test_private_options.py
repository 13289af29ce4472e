"""What is recommended follows from declared numbers alone: few patients, many patients, nothing to be had."""

import pytest

import fedsynth
from fedsynth.errors import FedSynthError
from fedsynth.training.private_options import private_options, recommended
from fedsynth.training.settings import PlanSettings


def asked(**declared: float) -> PlanSettings:
    return PlanSettings(**({"size": 32} | declared))  # type: ignore[arg-type]


def test_a_hospital_with_fifty_patients_takes_the_release() -> None:
    options = private_options(asked(patients=50))
    assert [one.way.split(",")[0] for one in options if one.works] == ["private release"]
    assert options[0].reads == 1
    assert recommended(options).startswith("Take the private release")


def test_thousands_of_patients_can_be_trained_on() -> None:
    options = private_options(asked(patients=7500, epsilon=10.0))
    assert {one.generator for one in options if one.works} >= {"vae", "dcgan"}
    assert recommended(options).startswith("Train vae by DP-SGD")


def test_where_noise_drowns_everything_nothing_is_spent() -> None:
    assert recommended(private_options(asked(patients=12, epsilon=0.1))).startswith("Spend nothing")


def test_more_sites_and_less_budget_move_the_noise_as_they_must() -> None:
    few, many = (private_options(asked(patients=50, sites=n))[0].feasibility.ratio for n in (1, 4))
    assert few == pytest.approx(2 * many)
    assert private_options(asked(patients=50, epsilon=1.0))[0].feasibility.ratio > few


def test_the_table_says_what_to_do() -> None:
    found = fedsynth.plan(patients=50, size=32)
    assert list(found.index) == ["private release", "DP-SGD, 400 steps", "DP-SGD, 400 steps"]
    assert "private release" in found.attrs["recommended"]
    with pytest.raises(FedSynthError, match="patients"):
        fedsynth.plan(patients=0)
