"""Membership inference: silent on honest sets as often as it says, loud on leaks, void where a control fails."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fedsynth.evaluation.blind_baseline import patient_facts
from fedsynth.evaluation.membership import inference
from fedsynth.evaluation.membership.inference import (
    Control,
    Membership,
    Released,
    control_aucs,
    infer_membership,
    random_halves,
)
from fedsynth.evaluation.membership.verdict import details_of, membership_verdict, scores_of, site_scores, strongest
from fedsynth.evaluation.roc import auc, auc_interval
from tests.evaluation.memorization.patients import cohort, features


def attacked(
    kind: str,
    *,
    seed: int = 0,
    members: int = 60,
    holdout: int = 60,
    sites: int = 2,
    discriminator: Callable[[np.ndarray], np.ndarray] | None = None,
    reference: str = "",
    **changes: object,
) -> Membership:
    """Attack a release of 200 images of some `kind` of two or three images of each patient."""
    rng = np.random.default_rng([seed, *b"release"])
    patients = cohort(members, holdout, seed=seed, sites=sites, **changes)
    rows, of, shared = features(members + holdout, 3, seed=seed)
    made = features(200, 1, seed=seed + 1000)[0]
    inside = np.flatnonzero(patients.member)
    if kind == "copies":
        made[: len(inside[:40])] = rows[3 * inside[:40]]
    if kind == "identities":  # new images of members, none of them a copy
        chosen = rng.choice(inside, 200)
        made = (shared[chosen] + rng.normal(size=made.shape) * np.sqrt(0.5)).astype(np.float32)
    if kind == "blurred":
        made *= np.float32(0.7)
    if kind == "flat":
        rows, made = np.zeros_like(rows), np.zeros_like(made)
    if kind == "biased":
        rows[patients.member[of]] += 0.8
    given = None
    if reference == "fitted on the holdout":
        given = rows[~patients.member[of]] + 0.05 * rng.normal(size=rows[~patients.member[of]].shape)
    if reference == "honest":
        given = features(100, 1, seed=seed + 2000)[0]
    return infer_membership(
        {"components": Released(real=rows, synthetic=made, reference=given)},
        patients,
        of,
        patient_facts(rows, of, len(patients), counts=True),
        seed=seed,
        discriminator=None if discriminator is None else discriminator(patients.member[of]),
        halves=4,
        permutations=199,
    )


@pytest.mark.parametrize("kind", ["copies", "identities"])
def test_leaks_are_distinguished(kind: str) -> None:
    found = attacked(kind)
    told = membership_verdict(found)
    assert told.verdict == "leak"
    assert "distinguished" in told.words
    best = strongest(found)
    low, _ = auc_interval(best.scores, found.cohort.member, np.random.default_rng(0))
    assert low > 0.5
    assert abs(best.honest.mean() - 0.5) < 0.1


@pytest.mark.parametrize("kind", ["honest", "blurred"])
def test_honest_sets_are_not(kind: str) -> None:
    told = membership_verdict(attacked(kind))
    assert told.verdict == "pass"
    assert "does not prove" in told.words


@pytest.mark.slow
def test_honest_sets_fire_and_are_voided_as_rarely_as_stated() -> None:
    """Over 120 honest sets: 5 % distinguished, 2 % void, 0.5 in 95 % of the intervals; each within its
    binomial.
    """
    fired = void = held = asked = 0
    for seed in range(120):
        found = attacked("honest", seed=seed)
        verdict = membership_verdict(found).verdict
        fired += found.p_value <= 0.05
        void += verdict == "invalid"
        for attack in found.attacks:
            low, high = auc_interval(attack.scores, found.cohort.member, np.random.default_rng(seed), repeats=200)
            held += low <= 0.5 <= high
            asked += 1
    assert fired <= 14
    assert void <= 8
    assert 0.90 <= held / asked <= 0.99


def test_patients_who_differ_by_themselves_void_the_test() -> None:
    told = membership_verdict(attacked("biased"))
    assert told.verdict == "invalid"
    assert "without any synthetic image" in told.words


def test_a_reference_fitted_on_the_holdout_voids_the_test() -> None:
    """Fitted there, the attack reaches an AUC of 1 on honest images: the control must notice."""
    found = attacked("honest", reference="fitted on the holdout")
    calibrated = next(attack for attack in found.attacks if attack.label == "calibrated@components")
    assert auc(calibrated.scores, found.cohort.member) > 0.99
    told = membership_verdict(found)
    assert told.verdict == "invalid"
    assert "calibrated@components singles out" in told.words
    assert membership_verdict(attacked("honest", reference="honest")).verdict == "pass"


def test_a_deliberately_broken_attack_trips_the_control(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attack that peeks at roles, which none may."""
    honest = inference._attack

    def peeking(spaces, patients, released, seed):
        found = honest(spaces, patients, released, seed)
        peeked = found["distance@components"]
        found["distance@components"] = replace(peeked, honest=peeked.honest + 5 * cohort(60, 60, sites=2).member)
        return found

    monkeypatch.setattr(inference, "_attack", peeking)
    assert membership_verdict(attacked("honest")).verdict == "invalid"


def test_the_discriminator_is_an_attack_like_the_others() -> None:
    rng = np.random.default_rng(0)
    found = attacked("honest", discriminator=lambda member: member + rng.normal(size=len(member)))
    best = strongest(found)
    assert (best.label, membership_verdict(found).verdict) == ("discriminator", "leak")
    assert abs(best.honest.mean() - 0.5) < 0.12
    blunt = attacked("honest", discriminator=lambda member: rng.normal(size=len(member)))
    assert membership_verdict(blunt).verdict == "pass"


def test_a_scanner_that_shifts_scores_is_not_membership() -> None:
    """Nine tenths of one site are members, one tenth of the other; the discriminator knows only the site."""
    patients = cohort(50, 50, seed=3)
    site = np.where(np.arange(100) % 2, patients.member, np.arange(100) % 20 < 10).astype(int)
    rows, of, _ = features(100, 3, seed=3)
    found = infer_membership(
        {"components": Released(real=rows, synthetic=features(200, 1, seed=4)[0])},
        replace(patients, site=site, stratum=site, sites=("a", "b")),
        of,
        patient_facts(rows, of, 100),
        seed=0,
        discriminator=(10 * site[of] + np.random.default_rng(0).normal(size=300)),
        halves=2,
        permutations=99,
    )
    assert membership_verdict(found).verdict == "pass"


def test_few_patients_and_roles_that_were_not_drawn_are_inconclusive() -> None:
    told = membership_verdict(attacked("honest", members=8, holdout=8))
    assert told.verdict == "inconclusive"
    assert "members and as many holdout patients would show" in told.words
    alone = cohort(20, 20)
    # nothing to redraw
    told = membership_verdict(attacked("honest", members=20, holdout=20, stratum=alone.member.astype(int)))
    assert told.verdict == "inconclusive"
    assert membership_verdict(attacked("honest", members=1, holdout=1)).verdict == "inconclusive"
    assert membership_verdict(attacked("flat")).verdict == "inconclusive"
    told = membership_verdict(attacked("copies", not_drawn="the set does not record how its roles were drawn"))
    assert told.verdict == "inconclusive"
    assert "does not record" in told.words


def test_numbers_stand_beside_interval_baseline_and_control() -> None:
    found = attacked("copies", members=110, holdout=100)
    scores = scores_of(found, seed=0)
    best = scores[strongest(found).label]
    assert best.value is not None
    assert best.low is not None
    assert best.high is not None
    assert best.low < best.value < best.high
    assert best.baseline == pytest.approx(found.blind.auc)
    assert best.control == pytest.approx(strongest(found).honest.mean())
    rates = {name: score for name, score in scores.items() if strongest(found).label in name and "true" in name}
    assert [score.value is None for score in rates.values()] == [False, True, True]
    assert next(iter(rates.values())).baseline == 0.1
    assert "needs 1000" in list(rates.values())[1].why
    assert set(site_scores(found, seed=0)) == {"site 0", "site 1"}
    roc = details_of(found, membership_verdict(found))["attacks"]["distance@components"]["roc"]
    assert np.trapezoid(roc["true_positive"], roc["false_positive"]) == pytest.approx(
        auc(next(a.scores for a in found.attacks if a.label == "distance@components"), found.cohort.member)
    )


def test_the_same_seed_gives_the_same_numbers() -> None:
    first, again = (attacked("copies", members=20, holdout=20) for _ in range(2))
    assert (first.p_value, first.honest_p) == (again.p_value, again.honest_p)
    assert all(np.array_equal(a.scores, b.scores) for a, b in zip(first.attacks, again.attacks, strict=True))


def test_halves_take_half_of_every_stratum() -> None:
    among = np.array([True] * 10 + [False] * 10)
    strata = np.array([0] * 6 + [1] * 4 + [0] * 10)
    for half in random_halves(among, strata, 5, np.random.default_rng(0)):
        assert not half[~among].any()
        assert (half[:6].sum(), half[6:10].sum()) == (3, 2)


def test_controls_do_not_fire_by_themselves_and_see_what_every_repeat_shows() -> None:
    patients = cohort(30, 30)
    rng = np.random.default_rng(0)
    quiet = rng.normal(size=(5, 60))
    aucs, p = control_aucs({"quiet": Control(scores=quiet, member=patients.member)}, patients, rng)
    assert p > 0.05
    assert aucs["quiet"] == pytest.approx([auc(row, patients.member) for row in quiet])
    for sign in (1, -1):  # an attack that shields members is broken as well
        loud = Control(scores=quiet + sign * 3 * patients.member, member=patients.member)
        assert control_aucs({"quiet": loud}, patients, rng)[1] <= 0.01
