import math
import random

import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar
from scipy.special import ndtr

from fedsynth.errors import ConfigError
from fedsynth.privacy import accounting
from fedsynth.privacy.accounting import (
    Budget,
    Mechanism,
    calibrate,
    compose,
    epsilon_of,
    fits,
    group_of_two,
    rounded_up,
    said_beside,
)
from tests.privacy.prv import prv_bounds


def gaussian_epsilon(sensitivity, delta):
    """The exact curve of one normal (Balle and Wang 2018, theorem 8), sensitivity in standard deviations."""

    def excess(epsilon):
        a, b = sensitivity / 2, epsilon / sensitivity
        return ndtr(a - b) - math.exp(epsilon) * ndtr(-a - b) - delta

    return brentq(excess, 0, 100)


MECHANISMS = [
    Mechanism(rate=0.25, noise=3.0, steps=400),
    Mechanism(rate=0.128, noise=2.7, steps=2000),
    Mechanism(rate=0.05, noise=1.0, steps=4000),
    Mechanism(rate=0.01, noise=0.7, steps=10),
    Mechanism(rate=0.9, noise=10.0, steps=300),
    Mechanism(rate=0.25, noise=58.0, steps=2000),
    Mechanism(rate=1.0, noise=9.2, steps=300),
    Mechanism(rate=0.5, noise=2.0, steps=1),
]


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_the_claim_lies_between_the_bounds_of_opacus_for_adding_and_removing_a_patient(mechanism):
    low, high = prv_bounds([mechanism], 1e-5)
    assert low <= epsilon_of([mechanism], 1e-5) <= high
    assert high < low * 1.02


def history(seed):
    """Two to five blocks of different kinds, as runs on the same patients leave them."""
    source, blocks = random.Random(seed), []
    for _ in range(source.randint(2, 5)):
        rate, steps = source.choice([1.0, 0.5, 0.25, 0.1, 0.03]), source.choice([1, 7, 50, 300])
        noise = max(0.6, rate * math.sqrt(steps) * source.uniform(0.5, 6))
        blocks.append(Mechanism(rate=rate, noise=noise, steps=steps))
    return blocks


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 20))])
def test_mixed_histories_cost_what_opacus_says_in_any_order(seed):
    blocks = history(seed)
    claim, (low, high) = compose(blocks, 1e-5), prv_bounds(blocks, 1e-5)
    assert low <= claim.epsilon <= high
    assert high < low * 1.01
    assert claim == compose(blocks[::-1], 1e-5)
    assert claim.accountant == "pld"


def test_the_discretisation_of_losses_adds_less_than_a_thousandth(monkeypatch):
    """Small losses over many steps suffer most from a wide interval."""
    mechanism = Mechanism(rate=0.0085, noise=2.0, steps=174_000)
    claim = epsilon_of([mechanism], 1e-5)
    monkeypatch.setattr(accounting, "_interval", lambda mechanisms: 3e-5)
    accounting._pld.cache_clear()
    fine = epsilon_of([mechanism], 1e-5)
    assert fine <= claim <= fine * 1.001
    accounting._pld.cache_clear()


@pytest.mark.parametrize(
    ("patients", "batch", "steps", "noise", "delta", "renyi", "fine"),
    [
        (200, 32, 1000, 2.0, 1 / 2000, 13.07, 11.87),
        (500, 64, 2000, 2.0, 1 / 5000, 16.1, 14.8),
        (2000, 128, 4000, 1.5, 1 / 20000, 17.1, 15.8),
        (60000, 512, 174_000, 2.0, 1e-5, 10.08, 9.40),  # Bie et al. 2023, epsilon 10 on MNIST
    ],
)
def test_known_values(patients, batch, steps, noise, delta, renyi, fine):
    spent = compose([Mechanism(rate=batch / patients, noise=noise, steps=steps)], delta)
    assert spent.renyi == pytest.approx(renyi, rel=0.01)
    assert spent.epsilon == pytest.approx(fine, rel=0.01)


def test_a_full_batch_is_the_gaussian_mechanism():
    spent = compose([Mechanism(rate=1.0, noise=9.2, steps=300)], 1e-5)
    sensitivity = math.sqrt(300) / 9.2
    assert spent.epsilon == pytest.approx(gaussian_epsilon(sensitivity, 1e-5), rel=0.005)
    assert spent.replace_one == pytest.approx(gaussian_epsilon(2 * sensitivity, 1e-5), rel=0.005)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_replacing_a_patient_costs_more_than_removing_one_and_less_than_group_privacy(mechanism):
    spent = compose([mechanism], 1e-5)
    assert spent.epsilon < spent.replace_one * 1.005
    assert spent.replace_one <= group_of_two([mechanism], 1e-5)


def test_group_privacy_by_hand():
    """(e, d') twice gives (2e, d' (1 + exp(e))): at the bound's own e the second must not exceed delta."""
    mechanism = Mechanism(rate=1.0, noise=100.0, steps=100)
    half = group_of_two([mechanism], 1e-5) / 2
    assert accounting._renyi((mechanism,), 1e-5 / (1 + math.exp(half))) <= half * 1.0001
    less = half * 0.998
    assert accounting._renyi((mechanism,), 1e-5 / (1 + math.exp(less))) > less, "and hardly more than is needed"


@pytest.mark.parametrize("noise", [0.02, 0.0])
def test_group_privacy_is_infinite_where_numerics_end(noise):
    assert group_of_two([Mechanism(rate=1.0, noise=noise, steps=1)], 1e-5) == math.inf


@pytest.mark.parametrize("sensitivity", [0.05, 0.5, 2.0, 6.0, 9.0])
def test_the_renyi_bound_of_full_batches_is_the_least_over_all_orders(sensitivity):
    """By hand: order a costs a / 2 sensitivities squared (Balle et al. 2020, theorem 21)."""

    def bound(order):
        return order * sensitivity**2 / 2 - math.log(1e-5 * order) / (order - 1) + math.log(1 - 1 / order)

    least = minimize_scalar(bound, bounds=(1.01, 600), method="bounded", options={"xatol": 1e-6}).fun
    found = accounting._renyi((Mechanism(rate=1.0, noise=1 / sensitivity, steps=1),), 1e-5)
    assert least * (1 - 1e-9) <= found <= 1.005 * least


def test_both_accountants_are_shown_where_they_differ_by_more_than_one_percent():
    apart = compose([Mechanism(rate=0.25, noise=3.0, steps=400)], 1e-5)
    close = compose([Mechanism(rate=0.5, noise=0.5, steps=2000)], 1e-5)
    said = [said_beside(one.epsilon, one.renyi, one.replace_one) for one in (apart, close)]
    assert said[0] == "replace-one 18.9; 9.07 by Renyi accounting"
    assert "Renyi" not in said[1]
    assert said_beside(10.0, 10.09, 20.001) == "replace-one 20.1"
    assert said_beside(10.0, 10.15, 20.0) == "replace-one 20; 10.2 by Renyi accounting"
    assert said_beside(10.0, math.inf, 20.0) == "replace-one 20"


@pytest.mark.parametrize(
    ("value", "digits", "told"),
    [
        (1.2341, 4, 1.235),
        (1.234, 4, 1.234),
        (0.0012341, 3, 0.00124),
        (99.91, 3, 100.0),
        (712.1, 2, 720.0),
        (0.0, 3, 0.0),
        (math.inf, 3, math.inf),
        (-1.234, 2, -1.234),
    ],
)
def test_what_people_are_told_they_spend_is_rounded_up_by_hand(value, digits, told):
    assert rounded_up(value, digits) == told


def test_hopeless_runs_keep_a_finite_upper_bound_by_renyi_and_no_noise_is_infinite():
    hopeless = compose([Mechanism(rate=0.5, noise=0.5, steps=2000)], 1e-5)
    assert hopeless.accountant == "rdp"
    assert 60 < hopeless.epsilon == hopeless.renyi < math.inf
    assert hopeless.replace_one > hopeless.epsilon
    assert compose([Mechanism(rate=0.5, noise=0.0, steps=1)], 1e-5).epsilon == math.inf


def test_nothing_costs_nothing():
    assert compose([], 1e-5).epsilon == 0
    assert compose([Mechanism(rate=0.5, noise=1.0, steps=0)], 1e-5).replace_one == 0


@pytest.mark.parametrize(
    ("epsilon", "rate", "steps"), [(8.0, 0.25, 500), (1.0, 0.25, 500), (10.0, 1.0, 300), (8.0, 0.01, 20), (3.0, 1.0, 1)]
)
def test_calibration_ends_on_the_safe_side_and_wastes_little(epsilon, rate, steps):
    budget = Budget(epsilon=epsilon, delta=1e-5)
    noise = calibrate(budget, rate=rate, steps=steps)
    claim = epsilon_of([Mechanism(rate=rate, noise=noise, steps=steps)], 1e-5)
    assert epsilon * 0.997 < claim <= epsilon
    assert compose([Mechanism(rate=rate, noise=noise, steps=steps)], 1e-5).epsilon == claim
    assert prv_bounds([Mechanism(rate=rate, noise=noise, steps=steps)], 1e-5)[0] <= epsilon
    assert float(f"{noise:.4g}") == noise


def test_the_whole_run_is_calibrated_at_once():
    """Restarting the accountant each round is the field's usual mistake: five rounds would show 5.2, not 12.4."""
    one_round = [Mechanism(rate=64 / 500, noise=1.0, steps=50)]
    assert epsilon_of(one_round, 2e-4) == pytest.approx(5.16, rel=0.01)
    assert epsilon_of(one_round * 5, 2e-4) == pytest.approx(12.4, rel=0.01)


def test_fits_is_the_claim_not_the_looser_bound():
    mechanism = Mechanism(rate=0.25, noise=3.0, steps=400)  # 8.42 by the claim, 9.07 by Renyi
    assert fits([mechanism], Budget(epsilon=8.5, delta=1e-5))
    assert not fits([mechanism], Budget(epsilon=8.35, delta=1e-5))


@pytest.mark.parametrize(("epsilon", "delta"), [(0, 1e-5), (-1, 1e-5), (51, 1e-5), (math.nan, 1e-5), (1, 0), (1, 0.5)])
def test_budgets_out_of_range_are_refused(epsilon, delta):
    with pytest.raises(ConfigError):
        Budget(epsilon=epsilon, delta=delta)


def test_the_ends_of_the_ranges_are_allowed():
    assert Budget(epsilon=50.0, delta=0.01).delta == 0.01
    assert Budget(epsilon=1e-3, delta=1e-12).epsilon == 1e-3
    assert Mechanism(rate=1.0, noise=0.0, steps=0).rate == 1.0


@pytest.mark.parametrize(
    "wrong", [{"rate": 0.0}, {"rate": 1.1}, {"noise": -1.0}, {"noise": math.inf}, {"steps": -1}, {"rate": math.nan}]
)
def test_mechanisms_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError):
        Mechanism(**{"rate": 0.5, "noise": 1.0, "steps": 1} | wrong)


@pytest.mark.parametrize("delta", [1e-8, 1e-5])
@pytest.mark.parametrize(
    "parts", [[(5.0, 100)], [(100.0, 10_000)], [(5.0, 30), (11.0, 77), (80.0, 999)], [(1.0, 30)], [(40.0, 4)]]
)
def test_full_batches_cost_what_the_closed_form_says_and_never_less(parts, delta):
    true = gaussian_epsilon(math.sqrt(sum(steps / noise**2 for noise, steps in parts)), delta)
    claim = compose([Mechanism(rate=1.0, noise=noise, steps=steps) for noise, steps in parts], delta).epsilon
    assert true * (1 - 1e-9) <= claim <= 1.0004 * true


@pytest.mark.parametrize(("rate", "noise"), [(0.25, 0.7), (0.01, 0.5), (0.9, 1.0)])
def test_one_subsampled_step_costs_what_quadrature_says_and_never_less(rate, noise):
    x = np.linspace(-40 * noise, 40 * noise + 1, 400_001)
    out, moved = (np.exp(-0.5 * ((x - mean) / noise) ** 2) / (noise * math.sqrt(2 * math.pi)) for mean in (0, 1))
    inside = (1 - rate) * out + rate * moved

    def excess(epsilon):
        pairs = ((inside, out), (out, inside))
        return max(np.trapezoid(np.maximum(p - math.exp(epsilon) * q, 0), x) for p, q in pairs) - 1e-4

    claim, true = compose([Mechanism(rate=rate, noise=noise, steps=1)], 1e-4).epsilon, brentq(excess, 0, 50)
    assert true * (1 - 1e-7) <= claim <= 1.0004 * true
