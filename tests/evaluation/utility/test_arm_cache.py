"""Kept arms: made once, made again when anything differs or the file is damaged, and never by two at a time."""

import numpy as np
import pandas as pd

from fedsynth.evaluation.utility.arm_cache import ArmCache, Trainings

FACTS = {"arm": "real", "seed": 0}


def made(value=0.1):
    table = pd.DataFrame({"patient": ["007", "p"], "of": "", "dice": [value, np.nan], "row": [1, 2]})
    return Trainings(table=table, steps=[50], repeated=1)


def fails():
    raise AssertionError("it was kept")


def test_what_was_kept_comes_back_to_the_bit(tmp_path):
    kept = ArmCache(folder=tmp_path)
    first = kept.get(FACTS, lambda: made(1 / 3), wait=False)
    again = kept.get(FACTS, fails, wait=False)
    pd.testing.assert_frame_equal(again.table, first.table, check_exact=True)
    assert (again.steps, again.repeated, again.collapsed) == ([50], 1, 0)


def test_anything_else_is_made_anew(tmp_path):
    kept = ArmCache(folder=tmp_path)
    kept.get(FACTS, made, wait=True)
    assert kept.get({**FACTS, "seed": 1}, lambda: made(0.2), wait=True).table["dice"][0] == 0.2
    (file,) = [path for path in tmp_path.glob("*.json") if "0.2" not in path.read_text()]
    file.write_text("{")
    assert kept.get(FACTS, lambda: made(0.3), wait=True).table["dice"][0] == 0.3


def test_who_does_not_wait_is_told_that_another_is_at_work(tmp_path):
    kept, found = ArmCache(folder=tmp_path), []

    def slow():
        found.append(kept.get(FACTS, fails, wait=False))
        return made()

    kept.get(FACTS, slow, wait=True)
    assert found == [None]


def test_without_a_folder_nothing_is_kept():
    assert ArmCache().get(FACTS, made, wait=False).steps == [50]


def test_a_folder_that_cannot_be_made_stops_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    assert ArmCache(folder=tmp_path / "file" / "arms").get(FACTS, made, wait=False).steps == [50]
