"""Hospitals: their settings are checked, and none is like another."""

from dataclasses import asdict
from itertools import combinations
from typing import Any

import pytest

from fedsynth.config import as_table, read_table
from fedsynth.data.phantoms.scanner import CaseMix, Hospital, Scanner, default_hospitals
from fedsynth.errors import ConfigError


def test_a_hospital_is_read_from_a_table_and_written_back() -> None:
    table = {
        "name": "north",
        "scanner": {"t2-gain": 0.8, "blur-mm": 3},
        "case-mix": {"low-grade": 0.66, "high-grade": 0},
    }
    hospital = read_table(Hospital, table)
    assert hospital == Hospital(
        name="north", scanner=Scanner(t2_gain=0.8, blur_mm=3.0), case_mix=CaseMix(low_grade=0.66, high_grade=0.0)
    )
    assert read_table(Hospital, as_table(hospital)) == hospital


@pytest.mark.parametrize(
    ("kind", "table", "message"),
    [
        (Scanner, {"noise": -0.1}, r"the scanner's 'noise' must be 0 to 0.5 \(found -0.1\)"),
        (Scanner, {"t1ce-gain": 0}, r"'t1ce-gain' must be 0.2 to 2"),
        (Scanner, {"gamma": float("nan")}, r"'gamma' must be a number \(found nan\)"),
        (Scanner, {"blur": 1.0}, r"unknown key 'blur'; did you mean 'blur-mm'"),
        (CaseMix, {"healthy": 0.5}, r"add up to 1"),
        (CaseMix, {"healthy": 1.34, "low-grade": -0.67, "high-grade": 0.33}, r"must be 0 to 1 each"),
    ],
)
def test_a_wrong_setting_is_named(kind: type[Any], table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_table(kind, table)


def test_hospital_i_is_the_same_for_every_count_and_like_no_other() -> None:
    many = default_hospitals(40)
    assert default_hospitals(7) == many[:7]
    assert len({hospital.name for hospital in many}) == 40
    for one, other in combinations(many, 2):
        here, there = asdict(one.scanner), asdict(other.scanner)
        assert sum(abs(here[key] - there[key]) > 0.01 for key in here) >= 4, (one.name, other.name)
