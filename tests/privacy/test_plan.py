import math
from dataclasses import replace

import pytest

from fedsynth.errors import ConfigError
from fedsynth.privacy.accounting import Mechanism, compose, epsilon_of, renyi_noise
from fedsynth.privacy.feasibility import INSTEAD, gauge, noise_ratio
from fedsynth.privacy.noise_shares import NoiseShares
from fedsynth.privacy.plan import PrivatePlan, PrivateSettings, make_plan


def settings(**changes):
    return PrivateSettings(**{"epsilon": 8.0, "delta": 1e-5, "patients": 400, "batch": 100} | changes)


def test_rate_and_batch_follow_from_declared_numbers_and_the_claim_holds():
    plan = make_plan(settings(), {"discriminator": 200})
    assert settings().rate == 0.25
    assert plan.steps == 200
    assert 7.9 < plan.claim.epsilon <= 8.0
    assert plan.claim.renyi > plan.claim.epsilon
    assert plan.claim.replace_one > plan.claim.epsilon


def test_two_private_turns_are_two_charges_for_every_step():
    """Sharing one calibration for both would under-report: 15.0 charged as 14.5 in a trial."""
    one, two = (
        make_plan(settings(), {"discriminator": 200}),
        make_plan(settings(), {"discriminator": 200, "generator": 200}),
    )
    assert two.steps == 400
    assert two.noise > one.noise * 1.2
    assert epsilon_of([two.mechanism], 1e-5) <= 8.0
    assert epsilon_of([Mechanism(rate=0.25, noise=one.noise, steps=400)], 1e-5) > 8.0


def test_the_summary_states_unit_adjacency_and_both_accountants():
    summary = make_plan(settings(), {"discriminator": 20}).summary()
    assert (summary["unit"], summary["adjacency"], summary["declared-patients"]) == ("patient", "add/remove", 400)
    assert summary["epsilon"] < summary["epsilon-renyi"]
    assert summary["epsilon"] < summary["epsilon-replace-one"]


def test_the_full_batch_is_allowed():
    assert make_plan(settings(batch=400), {"discriminator": 20}).settings.rate == 1.0


def test_the_smallest_run_is_allowed_and_a_bare_one_clips_to_one_and_shows_one_view():
    assert PrivateSettings(epsilon=8.0, delta=1e-5, patients=1, batch=1).rate == 1.0
    assert (settings(batch=1).clip, settings().slices_per_patient) == (1.0, 1)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"patients": 0, "batch": 1}, "declared number of patients"),
        ({"batch": 0}, "batch must lie"),
        ({"batch": 401}, "400 is the full batch"),
        ({"slices_per_patient": 0}, "at least one slice"),
        ({"clip": 0.0}, "clip norm"),
        ({"clip": math.inf}, "clip norm"),
        ({"epsilon": 0.0}, "epsilon must be"),
        ({"delta": 0.0}, "delta must lie"),
        ({"delta": 0.0026}, "one patient to be published"),
        ({"delta": 0.01, "patients": 100}, "one patient to be published"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_one_line(wrong, words):
    with pytest.raises(ConfigError, match=words):
        settings(**wrong)


def test_a_run_without_private_steps_is_refused():
    with pytest.raises(ConfigError, match="at least one private step"):
        make_plan(settings(), {"discriminator": 0})


def test_the_noise_ratio_by_hand():
    assert noise_ratio(9.0, 300, 10_000) == pytest.approx(9 * 100 / 300)
    assert noise_ratio(9.0, 300, 10_000, sites=4) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("epsilon", "patients", "batch", "steps", "parameters", "ratio", "verdict"),
    [
        (10.0, 200, 64, 2000, 2_760_000, 198, "hopeless"),
        (10.0, 500, 500, 300, 170_000, 8, "doubtful"),
        (10.0, 2000, 2000, 300, 170_000, 2, "likely"),
    ],
)
def test_the_gauge_says_what_the_published_runs_say(epsilon, patients, batch, steps, parameters, ratio, verdict):
    plan = make_plan(settings(epsilon=epsilon, patients=patients, batch=batch), {"discriminator": steps})
    found = gauge(plan, parameters)
    assert found.ratio == pytest.approx(ratio, rel=0.13)
    assert found.verdict == verdict
    assert bool(found.advice) == (verdict != "likely")


def planned(*, noise: float, batch: int, patients: int = 500, steps: int = 1000, **more) -> PrivatePlan:
    claim = compose([Mechanism(rate=1.0, noise=1.0, steps=1)], 1e-5)
    return PrivatePlan(settings=settings(patients=patients, batch=batch), steps=steps, noise=noise, claim=claim, **more)


@pytest.mark.parametrize(
    ("noise", "verdict", "words"),
    [
        (5.0, "likely", "can work: the noise of a step is 5 times the clip norm (good runs had up to 5)."),
        (5.1, "doubtful", "may give poor images: the noise of a step is 5.1 {}"),
        (36.0, "doubtful", "may give poor images: the noise of a step is 36 {}"),
        (36.1, "hopeless", "will train on noise: the noise of a step is 36 {}"),
    ],
)
def test_the_verdict_changes_at_the_published_ratios(noise, verdict, words):
    found = gauge(planned(noise=noise, batch=100), 10_000)
    assert found.verdict == verdict
    published = "times the clip norm (good runs had up to 5, poor ones 36)."
    assert found.sentence == f"epsilon 8 for 500 declared patients {words.format(published)}"


@pytest.mark.parametrize(
    ("noise", "sites", "verdict", "words", "advice"),
    [
        (3.0, 1, "likely", "can work: {} 0.3", ()),
        (3.1, 1, "doubtful", "tells little: {} 0.31", ("1,034 declared patients would bring it to 0.3.",)),
        (10.0, 1, "doubtful", "tells little: {} 1", ("3,334 declared patients would bring it to 0.3.",)),
        (11.0, 1, "hopeless", "tells noise alone: {} 1.1", ("3,667 declared patients would bring it to 0.3.",)),
        (10.0, 2, "doubtful", "at each of 2 sites tells little: {} 0.71", ("2,358 declared patients {}",)),
    ],
)
def test_a_release_is_gauged_by_hand(noise, sites, verdict, words, advice):
    """A hundred numbers' root times the noise, over 1,000 patients and the root of the sites; 0.3 is clear."""
    found = gauge(planned(noise=noise, batch=1000, patients=1000, release=True), 10_000, sites=sites)
    said = words.format("the noise on the patients' mean is")
    assert found.ratio == pytest.approx(noise * 100 / 1000 / sites**0.5)
    assert found.verdict == verdict
    assert found.sentence == f"epsilon 8 for 1000 declared patients {said} times the longest that it can be."
    assert found.advice == tuple(line.format("would bring it to 0.3.") for line in advice)


def test_a_release_in_shares_is_gauged_by_what_a_site_adds():
    """Four honest sites of five add half the planned deviation each."""
    shares = NoiseShares(sites=5, fewest=5, colluding=1)
    assert gauge(planned(noise=6.0, batch=1000, patients=1000, release=True, shares=shares), 10_000).ratio == 0.3


@pytest.mark.parametrize(
    ("sites", "where", "small"), [(1, "in all", ()), (2, "a site", ("1,953",)), (4, "a site", ("3,906",))]
)
def test_advice_by_hand(sites, where, small):
    """Ratio 8 sqrt(40,000) / 50 / sqrt(sites). A full batch has 100 patients, a quarter of the steps is 250, and a
    discriminator of fewer than 1,000 parameters is none."""
    found = gauge(planned(noise=8.0, batch=50, patients=100), 40_000, sites=sites)
    assert found.ratio == pytest.approx(32 / sites**0.5)
    whole, few = (renyi_noise(settings().budget, 1.0, steps) * 200 / 100 / sites**0.5 for steps in (1000, 250))
    assert found.advice == (
        *([f"With the full batch it would be {whole:.2g}."] if whole < 0.95 * found.ratio else []),
        f"With 250 private steps in full batches it would be {few:.2g}.",
        *(f"A discriminator of {size} parameters instead of 40,000 would bring it to 5." for size in small),
        f"{math.ceil(100 * few / 5 / 10) * 10} patients {where} would do with 250 full-batch steps.",
        INSTEAD,
    )


def test_advice_that_does_not_help_is_not_given():
    only, instead = gauge(planned(noise=8.0, batch=50, patients=50), 1001).advice
    assert instead == INSTEAD
    assert only == "64 patients in all would do with 250 full-batch steps."
    first, second, _ = gauge(planned(noise=20.0, batch=500, steps=4), 40_000).advice
    assert first == "With 1 private steps in full batches it would be 0.26."
    assert second == "A discriminator of 15,625 parameters instead of 40,000 would bring it to 5."


@pytest.mark.parametrize(("noise", "offered"), [(15.805, True), (15.82, False)])
def test_a_discriminator_of_fewer_than_a_thousand_parameters_is_not_advised(noise, offered):
    """40,000 times the square of 5 over twice the noise: 1,000.8 and 998.9."""
    advice = gauge(planned(noise=noise, batch=100), 40_000).advice
    line = "A discriminator of 1,000 parameters instead of 40,000 would bring it to 5."
    assert [one for one in advice if "discriminator" in one] == [line] * offered


def test_advice_followed_brings_the_ratio_down_to_what_it_says():
    plan = make_plan(settings(epsilon=10.0, patients=500, batch=64), {"discriminator": 1000})
    found = gauge(plan, 170_000)
    advised = next(line for line in found.advice if "private steps in full batches" in line)
    said = float(advised.split()[-1].rstrip("."))
    followed = make_plan(settings(epsilon=10.0, patients=500, batch=500), {"discriminator": 250})
    assert gauge(followed, 170_000).ratio == pytest.approx(said, rel=0.1)
    assert said < found.ratio


def test_a_plan_takes_no_number_from_data():
    """The field list is the proof: no place for how many patients there are, or for anything read from images."""
    assert set(PrivateSettings.__dataclass_fields__) == {
        "epsilon",
        "delta",
        "patients",
        "batch",
        "clip",
        "slices_per_patient",
    }
    assert set(PrivatePlan.__dataclass_fields__) == {"settings", "steps", "noise", "claim", "release", "shares"}
    assert set(NoiseShares.__dataclass_fields__) == {"sites", "fewest", "colluding"}


@pytest.mark.parametrize(("patients", "warned"), [(7_500, False), (20_000, True)])
def test_a_delta_near_one_over_the_patients_is_warned_of(patients: int, warned: bool) -> None:
    settings = PrivateSettings(epsilon=8.0, delta=1e-5, patients=patients, batch=patients)
    plan = make_plan(settings, {"discriminator": 2})
    warning = (
        "Warning: delta times the declared patients is 0.2, above 0.1: with that probability such a promise lets one "
        "patient be published whole; take delta at most 5e-06."
    )
    for kind in (plan, replace(plan, release=True)):
        assert [line for line in gauge(kind, parameters=1000).advice if "delta" in line] == [warning] * warned
