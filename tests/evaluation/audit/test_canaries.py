"""Canaries: nobody's images in the shape of a set, secret fair coins, names that no other audit has."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedsynth.data import Header, ImageSet
from fedsynth.data.format import COLUMNS
from fedsynth.evaluation.audit.canaries import IMAGES, make_canaries
from fedsynth.privacy.secure_rng import InsecureRandomness
from tests.training.tiny import tiny_set


def bare_set(size: tuple[int, ...], dtype: type = np.uint8) -> ImageSet:
    """Four patients with one image each: two channels, no masks, no classes, no roles, two sites."""
    rows = [{"case": f"c{i}", "patient": f"p{i}", "site": f"s{i % 2}"} for i in range(4)]
    return ImageSet(
        header=Header(name="bare", origin="real", channels=("t1", "ct"), spacing_mm=(1.0,) * len(size)),
        cases=pd.DataFrame(rows, columns=list(COLUMNS), dtype=str).fillna(""),
        images=np.zeros((4, 2, *size), dtype),
    )


@pytest.mark.parametrize("size", [(8, 8), (20, 16), (16, 16, 12)], ids=str)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_canaries_fit_any_set(size: tuple[int, ...], dtype: type) -> None:
    members = bare_set(size, dtype)
    canaries = make_canaries(members, 5, seed=0)
    each = IMAGES if len(size) == 2 else 1
    assert canaries.images.images.shape == (5 * each, 2, *size)
    assert canaries.images.images.dtype == dtype
    assert canaries.sites == ("s0", "s1", "s0", "s1", "s0")
    joined = canaries.joined(members)
    joined.validate()
    assert len(joined) == 4 + each * canaries.included.sum()


def test_canaries_are_different_black_and_white_patterns_of_the_set_s_classes() -> None:
    canaries = make_canaries(tiny_set(size=16), 20, seed=0)
    pictures = np.asarray(canaries.images.images[::IMAGES])
    assert len(np.unique(pictures.reshape(20, -1), axis=0)) == 20
    assert set(np.unique(pictures)) == {0, 255}
    assert set(canaries.images.cases["class"]) == {"a", "b"}


def test_only_those_take_part_whose_coin_fell_so() -> None:
    members = tiny_set()
    canaries = make_canaries(members, 20, seed=0, randomness=InsecureRandomness(3))
    inside = {name for name, took_part in zip(canaries.names, canaries.included, strict=True) if took_part}
    assert 0 < len(inside) < 20
    joined = canaries.joined(members)
    assert set(joined.cases["patient"]) == inside | set(members.cases["patient"])
    assert set(joined.cases["role"]) == {"member"}
    assert joined.header.split is None


def test_a_seed_repeats_images_but_neither_coins_nor_names() -> None:
    one, other = (make_canaries(tiny_set(), 40, seed=7) for _ in range(2))
    np.testing.assert_array_equal(one.images.images, other.images.images)
    assert (one.included != other.included).any()
    assert not set(one.names) & set(other.names)


def test_coins_are_fair() -> None:
    members = bare_set((8, 8))
    flips = [make_canaries(members, 50, seed=0).included for _ in range(40)]
    assert abs(np.mean(flips) - 0.5) < 4 * 0.5 / np.sqrt(2000)


def test_phantoms_stay_phantoms_and_patients_patients() -> None:
    members = tiny_set()
    marked = members.with_cases(members.cases, provenance={"phantom": {"seed": 1}})
    assert make_canaries(marked, 20, seed=0).joined(marked).header.phantoms
    assert not make_canaries(members, 20, seed=0).joined(members).header.phantoms


def test_the_coins_are_written_down(tmp_path: Path) -> None:
    canaries = make_canaries(tiny_set(), 20, seed=0)
    canaries.record(tmp_path / "canaries.csv")
    table = pd.read_csv(tmp_path / "canaries.csv")
    assert list(table["canary"]) == canaries.names
    np.testing.assert_array_equal(table["included"] == 1, canaries.included)


def test_roles_are_left_empty_where_none_were_drawn() -> None:
    members = tiny_set()
    without = members.with_cases(members.cases.assign(role=""))
    assert set(make_canaries(without, 20, seed=0).images.cases["role"]) == {""}
