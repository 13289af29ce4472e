"""Groups of patients: who is in which, scores as if they were the holdout alone, and no number of a few."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fedsynth.data.phantoms.cohort import make_phantoms
from fedsynth.data.phantoms.settings import PhantomSettings
from fedsynth.evaluation.score import Result, load_result
from fedsynth.evaluation.utility.patient_scores import mean_over_patients, ratio, score
from fedsynth.evaluation.utility.subgroups import CLASS, SIZE, THIRDS, patient_groups, subgroup_scores


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    settings = PhantomSettings(size=16, patients=40, slices=2, sites=1)
    return make_phantoms(tmp_path_factory.mktemp("set") / "set", settings, workers=1)


def measure_of(values):
    """One training, a patient per value, named in order."""
    names = np.array([f"p{n:02d}" for n in range(len(values))])
    return mean_over_patients(np.array([values], float), names, np.full(len(values), "a"))


def test_every_patient_with_one_class_is_in_its_group_and_lesions_come_in_thirds_by_size(phantoms):
    groups = patient_groups(phantoms)
    first = phantoms.cases.drop_duplicates("patient").set_index("patient")["class"]
    assert {name: set(of) for name, of in groups[CLASS].items()} == {
        name: set(first.index[first == name]) for name in phantoms.header.classes
    }
    lesion = np.asarray(phantoms.masks).reshape(len(phantoms), -1).astype(bool).sum(1)
    size = {p: int(lesion[(phantoms.cases["patient"] == p).to_numpy()].sum()) for p in first.index}
    thirds = [sorted(size[p] for p in groups[SIZE][name]) for name in THIRDS]
    assert sum(map(len, thirds)) == sum(s > 0 for s in size.values())
    assert max(map(len, thirds)) - min(map(len, thirds)) <= 1
    assert thirds[0][-1] <= thirds[1][0]
    assert thirds[1][-1] <= thirds[2][0]


def test_a_patient_of_two_classes_is_in_no_class(phantoms):
    cases = phantoms.cases.copy()
    cases.loc[0, "class"] = next(name for name in phantoms.header.classes if name != cases.loc[0, "class"])
    groups = patient_groups(replace(phantoms, cases=cases))
    assert all(cases.loc[0, "patient"] not in of for of in groups[CLASS].values())


def test_a_set_without_masks_has_no_sizes(phantoms):
    bare = replace(phantoms, masks=None, header=replace(phantoms.header, mask_labels=()))
    assert patient_groups(bare)[SIZE] == {}


def test_a_group_scores_as_if_it_were_the_holdout_and_few_patients_have_no_score():
    made, real = measure_of([0.2] * 8 + [0.6] * 8), measure_of([0.4] * 8 + [0.8] * 8)
    names = made.patients
    groups = {"kind": {"low": names[:8], "high": names[8:], "few": names[:5]}}
    found = subgroup_scores({"synthetic": made, "real": real}, {"synthetic": real}, groups, name="dice", seed=0)
    assert list(found["kind"]) == ["low", "high"]
    assert found["kind"]["low"]["dice/synthetic"].value == pytest.approx(0.2)
    assert found["kind"]["high"]["dice_ratio/synthetic"].value == pytest.approx(0.75)
    assert "dice_ratio/real" not in found["kind"]["low"]
    alone = measure_of([0.1, 0.3] * 4)
    other = measure_of([0.5, 0.4] * 4)
    whole = {"kind": {"all": alone.patients}}
    same = subgroup_scores({"synthetic": alone}, {"synthetic": other}, whole, name="dice", seed=3)["kind"]["all"]
    assert same["dice/synthetic"] == score(alone, seed=3)
    assert same["dice_ratio/synthetic"] == ratio(alone, other, seed=3)


def test_patients_without_a_score_do_not_count():
    made = measure_of([0.2] * 5 + [np.nan] * 5)
    assert subgroup_scores({"synthetic": made}, {}, {"kind": {"all": made.patients}}, name="dice", seed=0) == {}


def test_they_survive_a_file(tmp_path):
    made = measure_of([0.2, 0.4] * 5)
    found = subgroup_scores({"synthetic": made}, {}, {"kind": {"all": made.patients}}, name="dice", seed=0)
    result = Result(
        benchmark="segmentation", scores={}, inputs={}, seed=0, settings={}, seconds=1.0, details={"subgroups": found}
    )
    result.save(tmp_path / "a.json")
    kept = load_result(tmp_path / "a.json").details["subgroups"]["kind"]["all"]["dice/synthetic"]
    assert kept["value"] == pytest.approx(0.3)
    assert kept["n"] == 10
    json.dumps(kept)
