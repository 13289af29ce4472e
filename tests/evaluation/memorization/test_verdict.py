"""The rule of the verdict, case by case: what is found beats what is not known; silence alone never passes."""

import numpy as np
import pytest
from scipy import stats

from fedsynth.evaluation.bootstrap import clopper_pearson
from fedsynth.evaluation.cohort import Cohort
from fedsynth.evaluation.memorization.dependence import Dependence
from fedsynth.evaluation.memorization.positive_controls import Power
from fedsynth.evaluation.memorization.replication import Copies
from fedsynth.evaluation.memorization.verdict import Findings, bound, exit_code, memorization_verdict
from fedsynth.evaluation.score import Score

PEOPLE = Cohort(
    names=tuple("abcdefgh"),
    member=np.array([True] * 4 + [False] * 4),
    stratum=np.zeros(8, np.int64),
    site=np.zeros(8, np.int64),
)


def copies_of(*patients, why=""):
    n = len(patients)
    return Copies(
        rows=np.arange(n),
        patients=np.array(patients, np.int64),
        spaces=("pixels",) * n,
        ratios=np.zeros(n),
        surprise=np.zeros(n),
        thresholds={},
        why=why,
    )


def dependence(p, why=""):
    return Dependence(p_value=p, min_patients=5, single={}, per_site={}, permutations=1999, why=why)


def findings(*patients, **changes):
    copies = changes.pop("copies", copies_of(*patients))
    given = {
        "n_synthetic": 1000,
        "cohort": PEOPLE,
        "dependence": dependence(0.5),
        "copies": copies,
        "copied": copies.of(PEOPLE.member),
        "control": copies.of(~PEOPLE.member),
        "equal": 0,
        "share": Score(value=0.0, low=0.0, high=0.004),
        "power": 1.0,
        "power_low": changes.get("power", 1.0),
        "weakest": "blurred",
        "detectable": 0.001,
        "tolerance": 0.01,
        "broken": (),
    }
    return Findings(**given | changes)


@pytest.mark.parametrize(
    ("found", "verdict", "words"),
    [
        (findings(), "pass", "no proof of privacy"),
        (findings(0), "leak", "1 of 1000 synthetic images is a copy of a patient"),
        (findings(0, 1, 1), "leak", "3 of 1000 synthetic images are copies of 2 patients"),
        (findings(0, 1, 2, 4), "leak", "there is 1"),
        (findings(dependence=dependence(0.001)), "depends", "p = 0.001"),
        (findings(0, dependence=dependence(0.001)), "leak", "depends on who"),
        (findings(4), "invalid", "holdout"),
        (findings(0, 4), "invalid", "look at the pairs"),
        (findings(0, broken=("a control rejected",)), "invalid", "a control rejected"),
        (findings(0, equal=1, broken=("a control rejected",)), "leak", "byte for byte"),
        (findings(0, 4, 5, equal=0), "invalid", "holdout"),
        (findings(unseen="Nobody looked at the masks."), "inconclusive", "looked at the masks"),
        (findings(dependence=dependence(None, "roles came along")), "inconclusive", "roles came along"),
        (findings(copies=copies_of(why="6 patients")), "inconclusive", "10 real patients would do"),
        (findings(power=0.0), "inconclusive", "not found"),
        (findings(power=None, weakest=""), "inconclusive", "not found"),
        (findings(share=Score(value=0.0, low=0.0, high=0.02)), "inconclusive", "368 synthetic images"),
        (findings(power=0.4), "inconclusive", "only 40 % of positive controls"),
        (findings(power=0.5), "pass", "no proof of privacy"),
        (findings(power=0.9, power_low=0.3), "inconclusive", "1228 synthetic images without a copy would do"),
        (findings(left_out=("encoder",)), "pass", "copies that show in encoder alone were not looked for"),
        (findings(left_out=("a", "b", "c")), "pass", "show in a, b or c alone"),
        (findings(power=0.3), "inconclusive", "no number of synthetic images does"),
        (findings(detectable=0.02), "inconclusive", "only 2 %"),
        (findings(detectable=None), "inconclusive", "no share"),
    ],
)
def test_the_verdict_and_what_it_says(found, verdict, words):
    judged = memorization_verdict(found)
    assert judged.verdict == verdict
    assert words.lower() in " ".join(judged.sentences).lower()


def test_the_bound_is_divided_by_the_power_and_is_a_share():
    assert bound(findings()) == 0.004
    assert bound(findings(power=0.5)) == 0.008
    assert bound(findings(power=0.001)) == 1
    assert bound(findings(power=0.0)) == 1
    assert bound(findings(power=0.5, power_low=0.4)) == 0.01


def test_the_bound_by_hand_and_how_often_it_is_too_low():
    """No copy among 700 images, 58 of 60 positive controls found: 1 - 0.025^(1/700) = 0.526 %, over 0.885 from the
    tables.

    Under every true share and power, hits among the images and among the positive controls are binomial; the bound must
    lie below the true share in no more than 5 %. The sum over all outcomes is exact.
    """
    power, share = Power(found=58, inserted=60, by_space={}), clopper_pearson(0, 700)[1]
    assert power.low == pytest.approx(0.885, abs=5e-4)
    found = findings(share=Score(value=0.0, low=0.0, high=share), power=power.share, power_low=power.low)
    assert bound(found) == pytest.approx(0.00526 / 0.885, abs=2e-5)
    for true_share in (0.004, 0.01, 0.03):
        for true_power in (0.55, 0.8, 0.97):
            hits, plants = np.arange(40), np.arange(61)
            high = np.array([clopper_pearson(int(hit), 700)[1] for hit in hits])
            low = np.array([clopper_pearson(int(make_positive_control), 60)[0] for make_positive_control in plants])
            below = high[:, None] / np.maximum(low, 1e-9) < true_share
            chance = stats.binom.pmf(hits, 700, true_share * true_power)[:, None] * stats.binom.pmf(
                plants, 60, true_power
            )
            assert (chance * below).sum() <= 0.05


def test_exit_codes_stop_a_release_script():
    assert [exit_code(word) for word in ("pass", "leak", "depends", "inconclusive", "invalid")] == [0, 1, 3, 3, 3]


def test_output_that_keeps_away_from_members_depends_on_them():
    away = Dependence(p_value=0.99, min_patients=5, single={}, per_site={}, permutations=1999, avoidance_p=0.0005)
    judged = memorization_verdict(findings(dependence=away))
    assert judged.verdict == "depends"
    assert "keeps away" in judged.sentences[0]


@pytest.mark.parametrize(("copied", "both_roles", "verdict"), [(4, 9, "invalid"), (0, 1, "invalid"), (9, 4, "leak")])
def test_images_near_persons_of_both_roles_count_against_a_leak(copied, both_roles, verdict):
    judged = memorization_verdict(findings(*[0] * copied, both_roles=both_roles))
    assert judged.verdict == verdict
    assert any("members and holdout are not apart" in sentence for sentence in judged.sentences)
    assert memorization_verdict(findings(0, both_roles=9, equal=1)).verdict == "leak"
