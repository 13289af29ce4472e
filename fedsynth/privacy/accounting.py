"""What a run costs: noise calibrated once for all its private steps, and the epsilon of any list of blocks.

Knows rates, noise and counts of steps. Never sees a patient, a network or the true number of patients. The accountants
are imported where they are used: half of what starting a process costs, and plain runs need none.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from fedsynth.errors import ConfigError

if TYPE_CHECKING:
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

Adjacency = Literal["ADD_OR_REMOVE_ONE", "REPLACE_ONE"]

ORDERS = (*range(2, 24), *(round(24 * 1.1**i) for i in range(33)))
BETWEEN = tuple(1 + 0.1 * 1.15**i for i in range(29))  # slow to compute, and needed beside the best of ORDERS alone
LARGEST_EPSILON = 50.0  # a promise that protects nobody is not made
LARGEST_DELTA = 1e-2
LARGEST_BY_PLD = 60.0  # beyond it the Renyi bound is good enough and never overflows
WIDEST_INTERVAL = 1e-3  # of the loss axis; a hundredth of it moves epsilon by less than 0.05 %


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What is promised to every patient. `delta` is a public constant, the same at all sites."""

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if not 0 < self.epsilon <= LARGEST_EPSILON:
            raise ConfigError(f"epsilon must be above 0 and at most {LARGEST_EPSILON:g}", value=self.epsilon)
        check_delta(self.delta)


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """`steps` noisy clipped sums: each patient drawn with probability `rate`, deviation `noise` times the clip norm."""

    rate: float
    noise: float
    steps: int

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise ConfigError("the sampling rate must be above 0 and at most 1", value=self.rate)
        if not (self.noise >= 0 and math.isfinite(self.noise)):
            raise ConfigError("the noise multiplier must be a number that is not negative", value=self.noise)
        if self.steps < 0:
            raise ConfigError("the number of private steps cannot be negative", value=self.steps)


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Epsilon of composed mechanisms at one delta. `epsilon` is the claim (adding or removing one patient).

    `accountant` says where the claim comes from: "pld", or "rdp" where the Renyi bound is the smaller or the only one.
    `renyi` is that bound by another library; `replace_one` is for exchanging a patient for another.
    """

    epsilon: float
    renyi: float
    replace_one: float
    delta: float
    accountant: str


def said_beside(epsilon: float, renyi: float, replace_one: float) -> str:
    """What is printed beside a claim: the replace-one epsilon, and the second accountant's where 1 % away."""
    apart = math.isfinite(renyi) and abs(renyi - epsilon) > 0.01 * epsilon
    second = f"; {rounded_up(renyi, 3):g} by Renyi accounting" if apart else ""
    return f"replace-one {rounded_up(replace_one, 3):g}{second}"


def check_delta(delta: float) -> None:
    """Refuse a delta at which a promise means nothing or numerics fail."""
    if not 1e-12 <= delta <= LARGEST_DELTA:
        raise ConfigError("delta must lie between 1e-12 and 0.01, well below one over the patients", value=delta)


def compose(mechanisms: Iterable[Mechanism], delta: float) -> Spent:
    """What `mechanisms` cost together the patient who was open to all of them, in any order, adaptively chosen."""
    check_delta(delta)
    merged = _merge(mechanisms)
    renyi, fine = _renyi(merged, delta), _pld(merged, delta, "ADD_OR_REMOVE_ONE")
    replaced = _pld(merged, delta, "REPLACE_ONE")
    return Spent(
        epsilon=min(renyi, fine),
        renyi=renyi,
        replace_one=replaced if math.isfinite(replaced) else group_of_two(merged, delta),
        delta=delta,
        accountant="pld" if fine <= renyi else "rdp",
    )


def epsilon_of(mechanisms: Iterable[Mechanism], delta: float) -> float:
    """The claim of `compose` alone."""
    merged = _merge(mechanisms)
    return min(_renyi(merged, delta), _pld(merged, delta, "ADD_OR_REMOVE_ONE"))


def fits(mechanisms: Iterable[Mechanism], budget: Budget) -> bool:
    """Whether the mechanisms stay within the budget; the quick bound answers where it can."""
    merged = _merge(mechanisms)
    return _renyi(merged, budget.delta) <= budget.epsilon or epsilon_of(merged, budget.delta) <= budget.epsilon


@lru_cache(maxsize=64)  # every site of a federation asks for the same
def calibrate(budget: Budget, *, rate: float, steps: int) -> float:
    """The least noise multiplier, of four digits, for which `steps` draws at `rate` stay within `budget`.

    A search by the loss distributions from the noise that the Renyi bound asks for. The value returned has itself been
    accounted for: whatever the search did, its claim is at most the epsilon asked for.
    """

    def claim(noise: float) -> float:
        return epsilon_of([Mechanism(rate=rate, noise=noise, steps=steps)], budget.delta)

    noise = rounded_up(_search(claim, budget.epsilon, renyi_noise(budget, rate, steps)))
    while claim(noise) > budget.epsilon:
        noise = rounded_up(noise * 1.0005)
    return noise


@lru_cache(maxsize=64)
def renyi_noise(budget: Budget, rate: float, steps: int) -> float:
    """The noise multiplier that the Renyi bound asks for: quick, and a few percent more than `calibrate` finds."""
    if steps < 1:
        raise ConfigError("a private run needs at least one private step", value=steps)

    def bound(noise: float) -> float:
        return _renyi((Mechanism(rate=rate, noise=noise, steps=steps),), budget.delta)

    normal = rate * math.sqrt(-2 * steps * math.log(budget.delta)) / budget.epsilon  # as if losses were normal
    return _search(bound, budget.epsilon, max(normal, 0.3))


def _search(cost: Callable[[float], float], epsilon: float, start: float) -> float:
    """The noise that costs `epsilon`: secants of log cost over log noise, nearly a line."""

    def excess(log_noise: float) -> float:
        return math.log(max(cost(math.exp(log_noise)) / epsilon, 1e-3))  # it can be 0 within delta

    here, value_here = math.log(start), excess(math.log(start))
    there = here + value_here / 2
    for _ in range(20):
        value_there = excess(there)
        if abs(value_there) < 3e-4 or value_there == value_here:
            break
        slope = min((value_there - value_here) / (there - here), -0.1)
        here, value_here = there, value_there
        there -= max(-1.0, min(1.0, value_there / slope))
    return math.exp(there)


def rounded_up(value: float, digits: int = 4) -> float:
    """The next number of so many digits that is not smaller: for noise, and for what people are told they spend."""
    if not (value > 0 and math.isfinite(value)):
        return value
    unit = 10.0 ** (math.floor(math.log10(value)) + 1 - digits)
    return float(f"{math.ceil(value / unit * (1 - 1e-12)) * unit:.{digits}g}")


def _merge(mechanisms: Iterable[Mechanism]) -> tuple[Mechanism, ...]:
    """Equal steps counted together, in a fixed order; none where nothing was done."""
    steps: dict[tuple[float, float], int] = {}
    for one in mechanisms:
        if one.steps:
            steps[one.rate, one.noise] = steps.get((one.rate, one.noise), 0) + one.steps
    return tuple(Mechanism(rate=rate, noise=noise, steps=n) for (rate, noise), n in sorted(steps.items()))


@lru_cache(maxsize=2048)
def _renyi_curve(rate: float, noise: float, orders: tuple[float, ...]) -> NDArray[np.float64]:
    from opacus.accountants.analysis import rdp

    return np.asarray(rdp.compute_rdp(q=rate, noise_multiplier=noise, steps=1, orders=orders), dtype=float)


def _renyi(mechanisms: tuple[Mechanism, ...], delta: float) -> float:
    """Renyi accounting (Mironov 2019) with the conversion of Balle et al. 2020, theorem 21."""
    if not mechanisms:
        return 0.0
    if any(one.noise == 0 for one in mechanisms):
        return math.inf

    def bound(orders: tuple[float, ...]) -> NDArray[np.float64]:
        each = np.array(orders)
        total = np.sum([one.steps * _renyi_curve(one.rate, one.noise, orders) for one in mechanisms], axis=0)
        return np.asarray(total - (math.log(delta) + np.log(each)) / (each - 1) + np.log((each - 1) / each))

    whole = bound(ORDERS)
    best = ORDERS[int(np.nanargmin(whole))]
    near = tuple(order for order in BETWEEN if abs(order - best) < 1)
    return max(0.0, float(np.nanmin([*whole, *bound(near)])))


@lru_cache(maxsize=512)
def _pld(mechanisms: tuple[Mechanism, ...], delta: float, adjacency: Adjacency) -> float:
    """An upper bound by dp-accounting's privacy loss distributions; infinite where they are out of reach.

    Neither of adding and removing a patient dominates the other under composition (Lebeda et al. 2024): both are
    composed, and the larger counts. Replacing one is q N(-1) + (1 - q) N(0) against q N(1) + (1 - q) N(0), opposite
    gradients of full clip norm. Losses are discretised by connecting the dots (Doroshenko et al. 2022), upwards only.
    """
    if not mechanisms:
        return 0.0
    if _renyi(mechanisms, delta) > LARGEST_BY_PLD:
        return math.inf
    interval = _interval(mechanisms)
    losses = [_loss(one.rate, one.noise, interval, adjacency).self_compose(one.steps) for one in mechanisms]
    return float(reduce(lambda total, loss: total.compose(loss), losses).get_epsilon_for_delta(delta))


@lru_cache(maxsize=16)  # after every round a run asks for more of the same steps
def _loss(rate: float, noise: float, interval: float, adjacency: Adjacency) -> "PrivacyLossDistribution":
    """Of one step."""
    from dp_accounting.pld import privacy_loss_distribution as pld
    from dp_accounting.privacy_accountant import NeighboringRelation

    return pld.from_gaussian_mechanism(
        noise,
        sampling_prob=rate,
        value_discretization_interval=interval,
        neighboring_relation=NeighboringRelation[adjacency],
    )


def _interval(mechanisms: tuple[Mechanism, ...]) -> float:
    """Of the loss axis: 0.06 standard deviations of an average step's loss, so that rounding adds 0.1 % of variance."""
    total = sum(one.steps for one in mechanisms)
    each = (one.rate**2 * math.expm1(min(one.noise**-2, 50)) * (one.steps / total) for one in mechanisms)
    return min(WIDEST_INTERVAL, 0.06 * math.sqrt(sum(each)))  # the same for one step and for many


def group_of_two(mechanisms: Iterable[Mechanism], delta: float) -> float:
    """Replace-one epsilon by group privacy: 2 e at delta, where e is the Renyi bound at delta / (1 + exp(e))."""
    merged = _merge(mechanisms)
    inner = _renyi(merged, delta / 2)
    while math.isfinite(inner):
        wanted = math.log(delta) - np.logaddexp(0.0, inner)
        if wanted < math.log(1e-300):
            return math.inf
        bound = _renyi(merged, math.exp(wanted))
        if bound <= inner:
            return 2 * inner
        inner = bound * 1.001
    return math.inf
