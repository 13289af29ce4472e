"""A pooled cohort shared out to hospitals: every patient once, nobody without patients, roles kept in proportion."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fedsynth.data.partition import Partition, assign_sites
from fedsynth.errors import ConfigError, ImageSetError

PATIENT = st.tuples(st.sampled_from(["member", "holdout", "reference"]), st.sampled_from(["", "low", "high"]))
PARTITIONS = st.sampled_from(["iid", "dirichlet:0.001", "dirichlet:0.3", "dirichlet:100", "quantity:0.1", "quantity:5"])


def cohort(n: int, *, slices: int = 2, site: str = "A") -> pd.DataFrame:
    """`n` patients: every second one a holdout patient, every third one healthy."""
    return table([(["member", "holdout"][i % 2], ["healthy", "low", "high"][i % 3]) for i in range(n)], slices, site)


def table(patients: list[tuple[str, str]], slices: int = 2, site: str = "A") -> pd.DataFrame:
    rows = [
        {"case": f"p{i}-{k}", "patient": f"p{i}", "site": site, "role": role, "class": label, "slice": str(k)}
        for i, (role, label) in enumerate(patients)
        for k in range(slices)
    ]
    return pd.DataFrame(rows, dtype=str)


@given(
    patients=st.lists(PATIENT, min_size=1, max_size=60), text=PARTITIONS, n=st.integers(1, 9), seed=st.integers(0, 99)
)
@settings(max_examples=80, deadline=None)
def test_every_patient_once_and_no_site_without(patients: list[tuple[str, str]], text: str, n: int, seed: int) -> None:
    assume(n <= len(patients))
    cases = table(patients, slices=1)
    assigned = assign_sites(cases, Partition.parse(text), seed, n)
    assert set(assigned) == set(cases["patient"])
    assert set(assigned.values()) == {f"site-{i + 1}" for i in range(n)}
    for role in ("member", "holdout"):
        theirs = cases.loc[cases["role"] == role, "patient"]
        if len(theirs) >= n:
            assert len({assigned[patient] for patient in theirs}) == n


@given(patients=st.lists(PATIENT, min_size=9, max_size=60), n=st.integers(1, 9), seed=st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_iid_is_balanced_to_within_one(patients: list[tuple[str, str]], n: int, seed: int) -> None:
    cases = table(patients, slices=1)
    site = cases["patient"].map(assign_sites(cases, Partition.parse("iid"), seed, n))
    for part in [cases, *(cases[cases["role"] == role] for role in ("member", "holdout", "reference"))]:
        counts = site[part.index].value_counts().reindex([f"site-{i + 1}" for i in range(n)], fill_value=0)
        assert counts.max() - counts.min() <= 1


@given(text=PARTITIONS, seed=st.integers(0, 50), shuffle=st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_the_order_of_rows_does_not_matter(text: str, seed: int, shuffle: object) -> None:
    cases = cohort(20)
    order = list(range(len(cases)))
    shuffle.shuffle(order)  # type: ignore[attr-defined]
    partition = Partition.parse(text)
    assert assign_sites(cases, partition, seed, 4) == assign_sites(cases.iloc[order], partition, seed, 4)


def class_shares(cases: pd.DataFrame, assigned: dict[str, str]) -> pd.DataFrame:
    site = cases["patient"].map(assigned)
    return pd.crosstab(site, cases["class"], normalize="index")


def test_a_large_alpha_is_near_iid_and_a_small_one_is_skewed() -> None:
    cases = cohort(600, slices=1)
    spread = {}
    for alpha in (0.05, 1, 1e6):
        shares = class_shares(cases, assign_sites(cases, Partition(scheme="dirichlet", alpha=alpha), 1, 5))
        spread[alpha] = float(np.abs(shares - 1 / 3).to_numpy().max())
    assert spread[1e6] < 0.01 < spread[1] < spread[0.05]
    assert spread[0.05] > 0.5


def test_dirichlet_by_hand() -> None:
    """One class at a time: the patients of a class follow the proportions that numpy's gammas give."""
    cases = table([("member", "high")] * 1000, slices=1)
    counts = Counter(assign_sites(cases, Partition.parse("dirichlet:2"), 7, 3).values())
    gammas = np.random.default_rng([7, *b"sites"]).standard_gamma(2.0, 3)
    for i, share in enumerate(gammas / gammas.sum()):
        assert abs(counts[f"site-{i + 1}"] - 1000 * share) < 1


def test_members_and_holdout_of_a_class_go_the_same_way() -> None:
    cases = cohort(1200, slices=1)
    assigned = assign_sites(cases, Partition.parse("dirichlet:0.5"), 3, 4)
    members, holdout = (cases[cases["role"] == role] for role in ("member", "holdout"))
    assert np.abs(class_shares(members, assigned) - class_shares(holdout, assigned)).to_numpy().max() < 0.03


def test_quantity_changes_sizes_and_not_the_case_mix() -> None:
    cases = cohort(1200, slices=1)
    assigned = assign_sites(cases, Partition.parse("quantity:0.5"), 3, 4)
    sizes = Counter(assigned.values())
    assert max(sizes.values()) > 3 * min(sizes.values())
    large = class_shares(cases, assigned).loc[[site for site, size in sizes.items() if size > 100]]
    assert np.abs(large - 1 / 3).to_numpy().max() < 0.12


def test_another_seed_is_another_partition() -> None:
    iid = Partition.parse("iid")
    assert assign_sites(cohort(40), iid, 0, 4) != assign_sites(cohort(40), iid, 1, 4)


def test_named_sites() -> None:
    assert set(assign_sites(cohort(9), Partition.parse("iid"), 0, ["north", "south"]).values()) == {"north", "south"}


def test_natural_takes_the_sites_as_they_are() -> None:
    cases = pd.concat([cohort(2, site="A"), cohort(3, site="B").assign(patient=lambda t: "b" + t["patient"])])
    natural = Partition()
    by_name = {"p0": "A", "p1": "A", "bp0": "B", "bp1": "B", "bp2": "B"}
    assert assign_sites(cases, natural, 0) == by_name
    assert assign_sites(cases, natural, 5, 2) == by_name
    assert assign_sites(cases, natural, 0, ["A"]) == {"p0": "A", "p1": "A"}
    with pytest.raises(ImageSetError, match="2 sites of its own, not 4; leave the number out"):
        assign_sites(cases, natural, 0, 4)
    with pytest.raises(ImageSetError, match="a site with no patients: 'C'"):
        assign_sites(cases, natural, 0, ["A", "C"])
    with pytest.raises(ImageSetError, match="'p0' has no site"):
        assign_sites(cohort(3, site=""), natural, 0)


def test_more_sites_than_patients() -> None:
    with pytest.raises(ImageSetError, match=r"more sites \(5\) than patients \(4\)"):
        assign_sites(cohort(4), Partition.parse("iid"), 0, 5)
    assert len(set(assign_sites(cohort(4), Partition.parse("dirichlet:0.01"), 0, 4).values())) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("natral", "unknown partition .*did you mean 'natural'"),
        ("dirichlet", "needs an ALPHA, as in dirichlet:0.5"),
        ("dirichlet:", "positive number"),
        ("dirichlet:x", "positive number"),
        ("dirichlet:0", "positive number"),
        ("quantity:-1", "positive number"),
        ("quantity:nan", "positive number"),
        ("dirichlet:inf", "positive number"),
        ("iid:3", "needs no ALPHA"),
        ("", "unknown partition"),
    ],
)
def test_what_is_no_partition(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Partition.parse(text)


@pytest.mark.parametrize("text", ["natural", "iid", "dirichlet:0.5", "quantity:2"])
def test_a_partition_is_written_as_it_is_read(text: str) -> None:
    assert str(Partition.parse(text)) == text


def test_numbers_and_names_that_cannot_be() -> None:
    iid = Partition.parse("iid")
    with pytest.raises(ConfigError, match="needs the number of sites"):
        assign_sites(cohort(4), iid, 0)
    with pytest.raises(ConfigError, match="at least one site"):
        assign_sites(cohort(4), iid, 0, 0)
    with pytest.raises(ConfigError, match="two sites have one name"):
        assign_sites(cohort(4), iid, 0, ["a", "a"])
    with pytest.raises(ConfigError, match="must not be negative"):
        assign_sites(cohort(4), iid, -1, 2)
