"""Shares of noise: what the honest ones add up to, and how near their sum is to one discrete Gaussian."""

import math

import numpy as np
import pytest

from fedsynth.errors import ConfigError, RefusedError
from fedsynth.privacy.accounting import Budget, compose, epsilon_of
from fedsynth.privacy.ledger import Charge, Ledger, mechanisms_of
from fedsynth.privacy.mechanism import GaussianMechanism
from fedsynth.privacy.noise_shares import NoiseShares, log_divergence
from fedsynth.privacy.patient_statistics import GRID, RELEASE, PatientStatistics
from fedsynth.privacy.plan import PrivatePlan, PrivateSettings, make_plan
from fedsynth.privacy.secure_rng import InsecureRandomness, SecretRandomness

SETTINGS = PrivateSettings(epsilon=8.0, delta=1e-5, patients=20, batch=20)
SHARES = NoiseShares(sites=4, fewest=4, colluding=1)


def plan_with(shares: NoiseShares | None = SHARES) -> PrivatePlan:
    made = make_plan(SETTINGS, {RELEASE: 1})
    return PrivatePlan(settings=SETTINGS, steps=1, noise=made.noise, claim=made.claim, release=True, shares=shares)


def discrete(sigma: float) -> np.ndarray:
    """Probabilities of -60 to 60; what lies beyond is below any float that matters here."""
    values = np.exp(-(np.arange(-60, 61) ** 2) / (2 * sigma**2))
    return values / values.sum()


@pytest.mark.parametrize("sigma", [0.5, 0.6, 0.8])
@pytest.mark.parametrize("terms", [2, 3, 4])
def test_the_bound_holds_for_sums_that_can_be_computed(sigma: float, terms: int) -> None:
    total = discrete(sigma)
    for _ in range(terms - 1):
        total = np.convolve(total, discrete(sigma))
    middle, reach = len(total) // 2, 12
    found = total[middle - reach : middle + reach + 1]
    values = np.exp(-(np.arange(-60, 61) ** 2) / (2 * terms * sigma**2))
    one = (values / values.sum())[60 - reach : 60 + reach + 1]
    apart = np.abs(np.log(found / one)).max()
    assert 0 < apart <= math.exp(log_divergence(sigma, terms))


def test_the_bound_by_hand_and_at_its_ends() -> None:
    by_hand = 10 * sum(math.exp(-2 * math.pi**2 * k / (k + 1)) for k in (1, 2, 3))
    assert log_divergence(1, 4) == pytest.approx(math.log(by_hand))
    assert log_divergence(1, 4, numbers=26) == pytest.approx(math.log(26 * by_hand))
    assert log_divergence(1e6, 1) == -math.inf
    assert log_divergence(0.4, 2) == math.inf


def test_at_the_noise_of_a_release_the_sum_cannot_be_told_from_one_discrete_gaussian() -> None:
    plan = plan_with(NoiseShares(sites=100, fewest=100, colluding=1))
    deviation = math.floor(plan.added / GRID)
    assert deviation > 900_000
    assert log_divergence(deviation, 100, 10**6) < -(10**12)  # natural logarithm: e to the minus a trillion
    assert plan.shares is not None
    plan.shares.check(plan.noise, GRID)
    with pytest.raises(ConfigError, match="too small for their grid"):
        plan.shares.check(plan.noise, plan.added)


def test_the_honest_shares_add_up_to_the_planned_noise() -> None:
    plan = plan_with()
    assert plan.added**2 * SHARES.honest == pytest.approx(plan.noise**2)
    assert math.sqrt(4) * plan.added == pytest.approx(plan.noise * math.sqrt(4 / 3))
    assert plan.summary()["holds-against"] == "a server that colludes with at most 1 of the 4 sites"
    assert plan_with(None).added == plan.noise
    assert "holds-against" not in plan_with(None).summary()


def test_fewer_sites_mean_larger_shares() -> None:
    assert NoiseShares(sites=4, fewest=3, colluding=1).honest == 2
    for wrong in ({"fewest": 1}, {"fewest": 5}, {"colluding": 4}, {"colluding": -1}):
        with pytest.raises(ConfigError):
            NoiseShares(**({"sites": 4, "fewest": 4, "colluding": 1} | wrong))


def mechanism_of(plan: PrivatePlan, ledger: Ledger | None = None, **options: object) -> GaussianMechanism:
    sums = PatientStatistics(lambda batch: batch["image"], length=199)
    names = [f"p{i}" for i in range(20)]
    given = {"randomness": SecretRandomness(), "run": "r", "joint": "run-1" if ledger else ""} | options
    return GaussianMechanism(plan, {RELEASE: sums}, patients=names, ledger=ledger, **given)  # type: ignore[arg-type]


def test_a_site_adds_its_share_on_the_grid() -> None:
    import torch

    mechanism = mechanism_of(plan_with(), randomness=InsecureRandomness(3))
    mechanism.charge({RELEASE: 1}, round=1)
    nothing = {"image": torch.zeros(1, 1, 199)}
    released = mechanism.step(RELEASE, lambda patients: (nothing, {}))[RELEASE] * 20
    assert float(released[:-1].std()) == pytest.approx(plan_with().added, rel=0.2)
    assert float(released[:-1].std()) < 0.75 * plan_with().noise


def test_the_charge_names_the_total_noise_and_the_assumption(tmp_path) -> None:  # type: ignore[no-untyped-def]
    ledger, plan = Ledger("a", tmp_path), plan_with()
    mechanism_of(plan, ledger).charge({RELEASE: 1}, round=1)
    (charge,) = ledger.charges()
    assert (charge.noise, charge.assumption, charge.joint) == (plan.noise, plan.assumption, "run-1")
    assert '"assumption": "a server that colludes with at most 1 of the 4 sites"' in charge.line()
    with pytest.raises(ValueError, match="name of their sum"):
        mechanism_of(plan, ledger, joint="")


def test_a_run_that_was_charged_for_a_secure_sum_is_never_resumed_without_it(tmp_path) -> None:  # type: ignore[no-untyped-def]
    ledger = Ledger("a", tmp_path)
    mechanism_of(plan_with(), ledger).charge({RELEASE: 1}, round=1)
    for other in (None, NoiseShares(sites=4, fewest=4, colluding=2)):
        with pytest.raises(RefusedError, match="charged under other settings"):
            mechanism_of(plan_with(other), ledger, joint="" if other is None else "run-1")


def charge_of(patients: str, **changes: object) -> Charge:
    table = {"rate": 1.0, "noise": 0.6, "steps": 1, "delta": 1e-5, "run": "r", "round": 1, "patients": patients}
    return Charge(**(table | {"joint": "run-1", "assumption": "x"} | changes))  # type: ignore[arg-type]


def test_a_patient_of_two_sites_moves_their_sum_twice() -> None:
    """The noise is on the sum, and not on each: two patients' worth of one noise costs more than two releases."""
    both = mechanisms_of([charge_of("a"), charge_of("b")])
    twice = [charge_of("a", noise=0.3, joint="").mechanism]
    assert epsilon_of(both, 1e-5) == pytest.approx(epsilon_of(twice, 1e-5), rel=1e-3)
    apart = mechanisms_of([charge_of("a"), charge_of("b", joint="run-2")])
    assert epsilon_of(apart, 1e-5) < 0.8 * epsilon_of(both, 1e-5)


def test_the_ledger_counts_and_caps_a_patient_of_two_sites_so(tmp_path) -> None:  # type: ignore[no-untyped-def]
    cap = Budget(epsilon=14.0, delta=1e-5)
    first, second = Ledger("a", tmp_path), Ledger("b", tmp_path)
    group = first.group(["p", "q"])
    first.charge(charge_of(group.digest, noise=plan_with().noise), group, cap=cap)
    once = compose([charge_of("", noise=plan_with().noise).mechanism] * 2, 1e-5).epsilon
    assert once < 14 < compose(mechanisms_of([charge_of("a", noise=plan_with().noise)] * 2), 1e-5).epsilon
    with pytest.raises(RefusedError, match="is spent and this would make it"):
        second.charge(charge_of(group.digest, noise=plan_with().noise, run="s"), group, cap=cap)
    second.charge(charge_of(group.digest, noise=plan_with().noise, run="s", joint="run-2"), group, cap=cap)
