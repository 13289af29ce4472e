"""Roles are drawn by patient, within strata, in the wanted numbers, and every assignment is equally likely."""

from collections import Counter
from itertools import combinations, groupby
from math import ceil, floor
from operator import itemgetter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsynth.data import ROLES, Shares
from fedsynth.data.split import draw_roles, nested, rows_with_fewer_members, strata
from fedsynth.errors import ConfigError, ImageSetError, RefusedError


def cases_of(patients: list[tuple[str, str, str]], slices: int = 2) -> pd.DataFrame:
    """A table with `slices` rows for every (patient, site, class)."""
    rows = [
        {"case": f"{name}-{k}", "patient": name, "site": site, "role": "", "class": label, "slice": str(k)}
        for name, site, label in patients
        for k in range(slices)
    ]
    return pd.DataFrame(rows, columns=["case", "patient", "site", "role", "class", "slice"], dtype=str)


def roles_of(cases: pd.DataFrame) -> dict[str, str]:
    return dict(zip(cases["patient"], cases["role"], strict=True))


cohorts = st.lists(
    st.tuples(st.sampled_from("ABCDE"), st.sampled_from(["", "low", "high"])), min_size=1, max_size=60
).map(lambda drawn: cases_of([(f"p{i:02}", site, label) for i, (site, label) in enumerate(drawn)]))
shares = (
    st.tuples(st.integers(0, 10), st.integers(0, 10), st.integers(0, 10))
    .filter(any)
    .map(
        lambda parts: (
            Shares(
                member=parts[0] / sum(parts),
                holdout=parts[1] / sum(parts),
                reference=1 - (parts[0] + parts[1]) / sum(parts),
            )
            if parts[2]
            else Shares(member=parts[0] / sum(parts), holdout=1 - parts[0] / sum(parts), reference=0)
        )
    )
)


def test_by_hand() -> None:
    cases = cases_of([(f"p{i}", "A", "low") for i in range(10)] + [(f"q{i}", "B", "low") for i in range(20)])
    drawn, split = draw_roles(cases, Shares(), seed=3)
    counts = drawn[drawn["slice"] == "0"].groupby("site")["role"].value_counts()
    assert counts["A"].to_dict() == {"member": 5, "holdout": 4, "reference": 1}
    assert counts["B"].to_dict() == {"member": 10, "holdout": 8, "reference": 2}
    assert (split.seed, split.shares, split.strata) == (3, Shares(), ("site", "class"))
    assert (cases["role"] == "").all()


@given(cases=cohorts, shares=shares, seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_numbers_are_within_one_of_the_shares_at_every_level(cases: pd.DataFrame, shares: Shares, seed: int) -> None:
    drawn, _ = draw_roles(cases, shares, seed)
    assert drawn["role"].isin(ROLES).all()
    assert (drawn.groupby("patient")["role"].nunique() == 1).all()
    patients = drawn.drop_duplicates("patient")
    levels = [patients.groupby(["site", "class"]), patients.groupby("site"), [("all", patients)]]
    for level in levels:
        for _, part in level:
            for role in ROLES:
                wanted = getattr(shares, role) * len(part)
                assert floor(wanted + 1e-6) <= (part["role"] == role).sum() <= ceil(wanted - 1e-6)


@given(cases=cohorts, seed=st.integers(0, 1000), shuffle=st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_the_order_of_rows_does_not_matter(cases: pd.DataFrame, seed: int, shuffle: object) -> None:
    order = list(range(len(cases)))
    shuffle.shuffle(order)  # type: ignore[attr-defined]
    shuffled = cases.iloc[order]
    drawn, again = draw_roles(cases, Shares(), seed)[0], draw_roles(shuffled, Shares(), seed)[0]
    assert roles_of(drawn) == roles_of(again)
    assert list(again["case"]) == list(shuffled["case"])


def test_strata_of_one_patient_share_the_roles_between_them() -> None:
    cases = cases_of([(f"p{i}", f"S{i}", "low") for i in range(10)])
    seen = set()
    for seed in range(10):
        roles = roles_of(draw_roles(cases, Shares(), seed)[0])
        assert Counter(roles.values()) == {"member": 5, "holdout": 4, "reference": 1}
        seen.add(tuple(roles.values()))
    assert len(seen) > 5


def test_every_assignment_within_a_stratum_is_equally_likely() -> None:
    """Every draw is one of each of twenty sites, which are drawn independently."""
    sites = [f"S{k:02}" for k in range(20)]
    four = [(f"{site} p{i}", site, "low") for site in sites for i in range(4)]
    two = [(f"{site} q{i}", site, "high") for site in sites for i in range(2)]
    cases, half = cases_of(four + two, slices=1), Shares(member=0.5, holdout=0.5, reference=0)
    n_draws = 36
    found: Counter[frozenset[str]] = Counter()
    for seed in range(n_draws):
        roles = roles_of(draw_roles(cases, half, seed)[0])
        members = sorted(patient.split() for patient, role in roles.items() if role == "member")
        found.update(frozenset(name for _, name in one) for _, one in groupby(members, key=itemgetter(0)))
    assert set(found) == {
        frozenset([*pair, q]) for pair in combinations(["p0", "p1", "p2", "p3"], 2) for q in ("q0", "q1")
    }
    expected = n_draws * len(sites) / 12
    statistic = sum((count - expected) ** 2 / expected for count in found.values())
    assert statistic < 31.3  # the 99.9 % point of chi-squared with 11 degrees of freedom


def test_another_seed_is_another_draw() -> None:
    cases = cases_of([(f"p{i}", "A", "low") for i in range(30)])
    assert roles_of(draw_roles(cases, Shares(), 0)[0]) != roles_of(draw_roles(cases, Shares(), 1)[0])
    assert roles_of(draw_roles(cases, Shares(), 1)[0]) == roles_of(draw_roles(cases, Shares(), 1)[0])


def test_few_patients_leave_the_smallest_role_empty() -> None:
    assert roles_of(draw_roles(cases_of([("p", "A", "")]), Shares(), 0)[0]) == {"p": "member"}
    three = draw_roles(cases_of([(f"p{i}", "A", "") for i in range(3)]), Shares(), 0)[0]
    assert set(roles_of(three).values()) == {"member", "holdout"}


def test_standing_roles_are_drawn_again_only_when_told() -> None:
    cases = cases_of([(f"p{i}", "A", "low") for i in range(4)])
    cases.loc[0:1, "role"] = "member"
    with pytest.raises(RefusedError, match="have roles already"):
        draw_roles(cases, Shares(), 0)
    assert (draw_roles(cases, Shares(), 0, replace=True)[0]["role"] != "").all()


def test_what_cannot_be_drawn() -> None:
    cases = cases_of([("p", "A", "low")])
    with pytest.raises(ConfigError, match="must not be negative"):
        draw_roles(cases, Shares(), -1)
    with pytest.raises(ImageSetError, match="no named patients"):
        draw_roles(cases.assign(patient=""), Shares(), 0)
    with pytest.raises(ConfigError, match="add up to 1"):
        Shares(member=0.5, holdout=0.6)


def test_images_without_a_patient_get_no_role() -> None:
    cases = cases_of([("p", "A", "low"), ("", "A", "low")])
    assert list(draw_roles(cases, Shares(), 0)[0]["role"]) == ["member", "member", "", ""]


def test_the_strata_of_a_patient_with_several_classes() -> None:
    cases = cases_of([("b", "A", "low"), ("a", "B", "low")])
    cases.loc[0, "class"] = "high"
    cases.loc[3, "class"] = ""
    assert strata(cases) == {"a": ("B", "low"), "b": ("A", "high+low")}
    assert strata(cases, ["class"]) == {"a": ("low",), "b": ("high+low",)}


def test_nested_strata() -> None:
    coarse = {"a": ("A", "low"), "b": ("A", "low"), "c": ("B", "low")}
    assert nested({"a": ("1",), "b": ("2",), "c": ("3",)}, coarse)
    assert nested({"a": ("1",), "b": ("1",)}, coarse)
    assert not nested({"a": ("1",), "c": ("1",)}, coarse)


def test_a_large_cohort_is_drawn_in_a_moment() -> None:
    rng = np.random.default_rng(0)
    patients = [(f"p{i}", f"s{rng.integers(100)}", f"c{rng.integers(10)}") for i in range(3000)]
    counts = Counter(roles_of(draw_roles(cases_of(patients, slices=1), Shares(), 0)[0]).values())
    assert counts == {"member": 1500, "holdout": 1200, "reference": 300}


def test_fewer_members_leave_everybody_else_and_the_shares_as_they_are() -> None:
    people = [(f"p{i:02}", "AB"[i % 2], ["low", "high"][i // 2 % 2]) for i in range(80)]
    cases, _ = draw_roles(cases_of(people), Shares(), 0)
    kept = cases.iloc[rows_with_fewer_members(cases, 12, 0)]
    before, after = (table[["patient", "role", "site", "class"]].drop_duplicates() for table in (cases, kept))
    assert (after["role"] == "member").sum() == 12
    assert len(kept) == 2 * len(after)
    others = [set(table.loc[table["role"] != "member", "patient"]) for table in (before, after)]
    assert others[0] == others[1]
    assert after[after["role"] == "member"].groupby(["site", "class"]).size().tolist() == [3, 3, 3, 3]
    assert rows_with_fewer_members(cases, 12, 1).tolist() != rows_with_fewer_members(cases, 12, 0).tolist()
    assert len(rows_with_fewer_members(cases, 40, 0)) == len(cases)
    for count in (0, 41):
        with pytest.raises(ConfigError, match="there are 40"):
            rows_with_fewer_members(cases, count, 0)


def test_every_member_of_a_stratum_stays_equally_often() -> None:
    """One of ten, 100 fixed seeds: 10 each, and beyond 30 with a chance below 1e-6."""
    cases = cases_of([(f"p{i}", "A", "") for i in range(10)], slices=1).assign(role="member")
    stays = Counter(int(rows_with_fewer_members(cases, 1, seed)[0]) for seed in range(100))
    assert len(stays) == 10
    assert max(stays.values()) < 30
