"""What a run costs: noise calibrated once for all its private steps, and the epsilon of any list of blocks.

Knows rates, noise and counts of steps. Never sees a patient, a network or the true number of patients. The accountants
are imported where they are used: half of what starting a process costs, and plain runs need none.
"""

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache, reduce

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from fedsynth.errors import ConfigError

ORDERS = (*(1 + 0.1 * 1.15**i for i in range(29)), *range(7, 24), *(round(24 * 1.1**i) for i in range(33)))
LARGEST_EPSILON = 50.0  # a promise that protects nobody is not made
LARGEST_DELTA = 1e-2
LARGEST_BY_PRV = 60.0  # beyond it the Renyi bound is good enough and never overflows
RELATIVE_ERROR = 0.002  # of the numerical accountant; its upper end is what is claimed


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

    `accountant` says where the claim comes from: "prv", or "rdp" where numerics rule the finer one out.
    `renyi` is the looser bound printed beside it; `replace_one` is for exchanging a patient for another.
    """

    epsilon: float
    renyi: float
    replace_one: float
    delta: float
    accountant: str


def check_delta(delta: float) -> None:
    """Refuse a delta at which a promise means nothing or numerics fail."""
    if not 1e-12 <= delta <= LARGEST_DELTA:
        raise ConfigError("delta must lie between 1e-12 and 0.01, well below one over the patients", value=delta)


def compose(mechanisms: Iterable[Mechanism], delta: float) -> Spent:
    """What `mechanisms` cost together the patient who was open to all of them, in any order, adaptively chosen."""
    check_delta(delta)
    merged = _merge(mechanisms)
    renyi = _renyi(merged, delta)
    fine = _numerical(merged, delta)
    replaced = _replace_one(merged, delta)
    claim, accountant = (renyi, "rdp") if fine is None else (fine, "prv")
    return Spent(epsilon=claim, renyi=renyi, replace_one=replaced, delta=delta, accountant=accountant)


def epsilon_of(mechanisms: Iterable[Mechanism], delta: float) -> float:
    """The claim of `compose` alone."""
    merged = _merge(mechanisms)
    fine = _numerical(merged, delta)
    return _renyi(merged, delta) if fine is None else fine


def fits(mechanisms: Iterable[Mechanism], budget: Budget) -> bool:
    """Whether the mechanisms stay within the budget; the quick bound answers where it can."""
    merged = _merge(mechanisms)
    return _renyi(merged, budget.delta) <= budget.epsilon or epsilon_of(merged, budget.delta) <= budget.epsilon


@lru_cache(maxsize=64)  # every site of a federation asks for the same
def calibrate(budget: Budget, *, rate: float, steps: int) -> float:
    """The least noise multiplier, of four digits, for which `steps` draws at `rate` stay within `budget`.

    A secant search by the numerical accountant from the noise that the Renyi bound asks for. The value returned has
    itself been accounted for: whatever the search did, its claim is at most the epsilon asked for.
    """
    if steps < 1:
        raise ConfigError("a private run needs at least one private step", value=steps)
    noise = rounded_up(_searched(budget, rate, steps))
    while not fits([Mechanism(rate=rate, noise=noise, steps=steps)], budget):
        noise = rounded_up(noise * 1.0005)
    return noise


def _searched(budget: Budget, rate: float, steps: int) -> float:
    """The root of log epsilon in log noise, nearly a line; the Renyi bound's noise where the finer one is silent."""
    target, start = math.log(budget.epsilon), math.log(renyi_noise(budget, rate, steps))

    def excess(log_noise: float) -> float:
        merged = _merge([Mechanism(rate=rate, noise=math.exp(log_noise), steps=steps)])
        return math.log(_numerical(merged, budget.delta) or _renyi(merged, budget.delta)) - target

    here, there = start, start + excess(start)
    value_here, value_there = there - start, excess(there)
    for _ in range(6):
        if abs(value_there) < 3e-4 or value_there == value_here:
            break
        step = value_there * (there - here) / (value_there - value_here)
        here, value_here, there = there, value_there, there - step
        value_there = excess(there)
    return math.exp(min(there, start))


def renyi_noise(budget: Budget, rate: float, steps: int) -> float:
    """The noise multiplier that the Renyi bound asks for: quick, and a few percent more than `calibrate` finds."""
    low, high = 0.0, 1.0
    while _renyi((Mechanism(rate=rate, noise=high, steps=steps),), budget.delta) > budget.epsilon:
        low, high = high, 2 * high
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        short = _renyi((Mechanism(rate=rate, noise=middle, steps=steps),), budget.delta) > budget.epsilon
        low, high = (middle, high) if short else (low, middle)
    return high


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


@lru_cache(maxsize=512)
def _renyi_curve(rate: float, noise: float) -> NDArray[np.float64]:
    from opacus.accountants.analysis import rdp

    return np.asarray(rdp.compute_rdp(q=rate, noise_multiplier=noise, steps=1, orders=ORDERS), dtype=float)


def _renyi(mechanisms: tuple[Mechanism, ...], delta: float) -> float:
    """Renyi accounting (Mironov 2019) with the conversion of Balle et al. 2020, theorem 21."""
    if not mechanisms:
        return 0.0
    if any(one.noise == 0 for one in mechanisms):
        return math.inf
    orders = np.array(ORDERS)
    total = np.sum([one.steps * _renyi_curve(one.rate, one.noise) for one in mechanisms], axis=0)
    bounds = total - (math.log(delta) + np.log(orders)) / (orders - 1) + np.log((orders - 1) / orders)
    return max(0.0, float(np.nanmin(bounds)))


@lru_cache(maxsize=512)
def _numerical(mechanisms: tuple[Mechanism, ...], delta: float) -> float | None:
    """The larger of the upper bounds for removing and for adding a patient; None where numerics do not carry.

    Neither direction dominates the other under composition in general (Lebeda et al. 2024), so both are computed;
    at rate 1 they are one.
    """
    renyi = _renyi(mechanisms, delta)
    if not mechanisms or renyi > LARGEST_BY_PRV:
        return None
    directions = (_Removal,) if all(one.rate == 1 for one in mechanisms) else (_Removal, _Addition)
    try:
        return max(_prv(mechanisms, delta, renyi, direction) for direction in directions)
    except (RuntimeError, ValueError, FloatingPointError):
        return None


def _domain_size(mechanisms: tuple[Mechanism, ...], *, error: float, delta_error: float) -> float:
    """Half the width of the loss axis beyond which too little mass lies (Gopi et al. 2021, remark 5.6)."""
    total = sum(one.steps for one in mechanisms)
    single = [Mechanism(rate=one.rate, noise=one.noise, steps=1) for one in mechanisms]
    each = [_renyi((one,), delta_error / (8 * total)) for one in single]
    return max(_renyi(mechanisms, delta_error / 4), *each, error) + 3


class _Removal:
    """The privacy loss of one draw when the patient is in: the mixture against the plain normal. Also for rate 1."""

    def __init__(self, sample_rate: float, noise_multiplier: float) -> None:
        self.sample_rate = sample_rate
        self.noise_multiplier = noise_multiplier

    def cdf(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability of a loss of at most `t` when the output follows the mixture."""
        rate, noise = self.sample_rate, self.noise_multiplier
        x = self._output_at(t)
        return np.asarray(rate * ndtr((x - 1) / noise) + (1 - rate) * ndtr(x / noise))

    def _output_at(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        """The output x whose loss log(1 - q + q exp((2x - 1) / 2s^2)) is `t`; minus infinity below its range."""
        inside = np.expm1(t) / self.sample_rate
        with np.errstate(divide="ignore", invalid="ignore"):
            logarithm = np.where(inside > -1, np.log1p(np.maximum(inside, -1)), -np.inf)
        return np.asarray(self.noise_multiplier**2 * logarithm + 0.5)


class _Addition(_Removal):
    """The other direction: the plain normal against the mixture. Its loss is the negative of the first one's."""

    def cdf(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability of a loss of at most `t` when the output follows the plain normal."""
        return np.asarray(ndtr(-self._output_at(-np.asarray(t)) / self.noise_multiplier))


def _prv(mechanisms: tuple[Mechanism, ...], delta: float, renyi: float, direction: type[_Removal]) -> float:
    """Opacus's numerical composition (Gopi et al. 2021) in one direction, upper end."""
    from opacus.accountants.analysis import prv

    losses = [direction(one.rate, one.noise) for one in mechanisms]
    steps = [one.steps for one in mechanisms]
    error, delta_error = min(max(RELATIVE_ERROR * renyi, 5e-4), 0.05), delta / 1000
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its integrals warn where they are merely loose
        size = _domain_size(mechanisms, error=error, delta_error=delta_error)
        mesh = error / math.sqrt(sum(steps) * math.log(12 / delta_error) / 2)
        domain = prv.Domain.create_aligned(-size, size, mesh)
        cut = [prv.TruncatedPrivacyRandomVariable(loss, domain.t_min, domain.t_max) for loss in losses]
        composed = prv.compose_heterogeneous([prv.discretize(one, domain) for one in cut], steps)
        _, _, upper = composed.compute_epsilon(delta, delta_error, error)
    if not math.isfinite(upper):
        raise FloatingPointError("the numerical accountant lost its footing")
    return max(0.0, float(upper))


@lru_cache(maxsize=512)
def _replace_one(mechanisms: tuple[Mechanism, ...], delta: float) -> float:
    """Epsilon for exchanging one patient for another, an upper bound by dp-accounting's loss distributions.

    The pair that it composes is q N(-1) + (1 - q) N(0) against q N(1) + (1 - q) N(0): opposite gradients of full clip
    norm. Where that is out of reach: group privacy of one removal and one addition, which always holds.
    """
    from dp_accounting.pld import privacy_loss_distribution as pld
    from dp_accounting.privacy_accountant import NeighboringRelation

    if not mechanisms:
        return 0.0
    if _renyi(mechanisms, delta) <= LARGEST_BY_PRV:
        losses = [
            pld.from_gaussian_mechanism(
                one.noise, sampling_prob=one.rate, neighboring_relation=NeighboringRelation.REPLACE_ONE
            ).self_compose(one.steps)
            for one in mechanisms
        ]
        return float(reduce(lambda total, loss: total.compose(loss), losses).get_epsilon_for_delta(delta))
    return group_of_two(mechanisms, delta)


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
