"""Plans: the numbers by hand, and sentences that say what would do."""

import json

import pytest

from fedsynth.data.roles import Shares
from fedsynth.errors import ConfigError
from fedsynth.evaluation.memorization.power_analysis import plan

EQUAL = Shares(member=0.5, holdout=0.5, reference=0)


def test_the_numbers_of_the_study_by_hand():
    found = plan(patients=200, slices=5, synthetic=700, shares=EQUAL)
    assert (found.members, found.holdout) == (100, 100)
    assert found.share_bound == pytest.approx(1 - 0.025 ** (1 / 700))
    assert found.share_bound_at_power == pytest.approx(found.share_bound / 0.8)
    assert found.fewest_copied == found.surely_copied == 5
    assert found.shortest_list == 10  # 100 / 101 / .1
    assert found.image_share == pytest.approx(1 / (0.05 * 101))
    assert found.smallest_false_positive_rate == 0.1
    assert found.synthetic_needed == 460
    assert found.enough


def test_too_few_images_are_told_how_many_would_do():
    found = plan(patients=200, slices=5, synthetic=100)
    assert not found.enough
    assert "460 synthetic images" in str(found)
    again = plan(patients=200, slices=5, synthetic=found.synthetic_needed)
    assert again.enough
    assert again.share_bound_at_power <= again.tolerance


def test_too_few_patients_are_told_how_many_would_do():
    found = plan(patients=4, slices=5, synthetic=1000)
    assert found.fewest_copied is None
    assert not found.enough
    assert f"{found.patients_needed} patients" in str(found)
    assert plan(patients=found.patients_needed, slices=5, synthetic=1000).fewest_copied is not None
    assert plan(patients=found.patients_needed, slices=5, synthetic=1000).enough
    assert not plan(patients=found.patients_needed - 1, slices=5, synthetic=1000).enough
    assert found.patients_needed == 11, "ten members and holdout patients for the search for copies"


def test_many_small_sites_need_more_patients():
    found = plan(patients=24, slices=1, synthetic=1000, sites=24)
    assert found.fewest_copied is None
    assert not found.enough
    assert found.patients_needed > 24
    assert f"{found.patients_needed} patients" in str(found)


def test_no_holdout_can_never_do():
    found = plan(patients=50, slices=1, synthetic=1000, shares=Shares(member=1, holdout=0, reference=0))
    assert found.patients_needed is None
    assert "more patients" in str(found)


def test_many_sites_blunt_the_test_where_members_are_many():
    one = plan(patients=60, slices=1, synthetic=1000)
    many = plan(patients=60, slices=1, synthetic=1000, sites=12)
    assert many.surely_copied is not None
    assert one.surely_copied is not None
    assert many.surely_copied > one.surely_copied


def test_it_says_the_numbers_and_is_json():
    found = plan(patients=1, slices=1, synthetic=1)
    assert "by luck with so few patients" in str(found)
    assert "1 patient with 1 image each" in str(found)
    text = str(plan(patients=2000, slices=3, synthetic=5000, sites=4, tolerance=0.001))
    assert "2000 patients at 4 sites with 3 images each (6000 real images)" in text
    assert "0.074 %" in text
    assert json.loads(json.dumps(found.as_json()))["enough"] is False


@pytest.mark.parametrize("wrong", [{"patients": 0}, {"synthetic": -1}, {"slices": 0}, {"sites": 0}, {"tolerance": 1.0}])
def test_impossible_numbers_are_refused(wrong):
    with pytest.raises(ConfigError):
        plan(**{"patients": 10, "slices": 1, "synthetic": 10} | wrong)


def test_lists_are_made_site_by_site():
    assert plan(patients=200, slices=5, synthetic=700, shares=EQUAL, sites=4).shortest_list == 10  # 25 / 26 / .1
    few = plan(patients=60, slices=5, synthetic=700, sites=10)
    assert few.shortest_list is None  # 3 members, 2 or 3 holdout patients at a site
    assert "at a site" in str(few)
