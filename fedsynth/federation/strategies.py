"""Aggregation strategies (FedAvg, FedProx, FedAvgM, FedAdam, medians): the sites' weights to those of the next round.

Knows nothing of Flower, networks or hospitals. Sums run in the order of the replies and in float64, so that equal
replies in equal order give equal bits.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, ClassVar, Protocol, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from fedsynth.errors import ConfigError, nearest
from fedsynth.federation.settings import Strategy
from fedsynth.federation.spilled_arrays import Column

Array = NDArray[Any]
Arrays = Mapping[str, Array]
Reply = tuple[float, Arrays]  # the site's weight and what it sent
Rule = Callable[[Sequence[Array], Sequence[float]], Array]
STRATEGIES: tuple[str, ...] = get_args(Strategy)
Made = TypeVar("Made")
BLOCK = 2**22  # numbers: 32 MiB


class ServerOptimiser(Protocol):
    """Turns the mean of the sites' changes into the step that the server takes."""

    @property
    def moments(self) -> tuple[str, ...]:
        """The names of what it remembers."""

    @property
    def first(self) -> float:
        """What the last moment starts from; the others start from zero."""

    def step(self, change: Array, moments: Sequence[Array]) -> tuple[Array, list[Array]]:
        """The step to add to the old weights, and the new moments."""


@dataclass(frozen=True, kw_only=True)
class Momentum:
    """FedAvgM (Hsu et al. 2019): v <- momentum v + change, w <- w + rate v.

    With rate = 1 - momentum a steady change is followed at its own speed, as FedAvg does.
    """

    momentum: float = 0.9
    rate: float = 0.1
    moments: ClassVar = ("velocity",)
    first: ClassVar = 0.0

    def __post_init__(self) -> None:
        _check_share("momentum", self.momentum)
        _check_positive("rate", self.rate)

    def step(self, change: Array, moments: Sequence[Array]) -> tuple[Array, list[Array]]:
        """See `ServerOptimiser`."""
        velocity = self.momentum * moments[0] + change
        return self.rate * velocity, [velocity]


@dataclass(frozen=True, kw_only=True)
class Adaptive:
    """FedAdam as published (Reddi et al. 2021, algorithm 2): no bias correction, the second moment starts at tau^2."""

    rate: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3
    moments: ClassVar = ("mean", "square")

    def __post_init__(self) -> None:
        _check_share("beta1", self.beta1)
        _check_share("beta2", self.beta2)
        _check_positive("rate", self.rate)
        _check_positive("tau", self.tau)

    @property
    def first(self) -> float:
        """Where the second moment starts."""
        return self.tau**2

    def step(self, change: Array, moments: Sequence[Array]) -> tuple[Array, list[Array]]:
        """See `ServerOptimiser`."""
        mean = self.beta1 * moments[0] + (1 - self.beta1) * change
        square = self.beta2 * moments[1] + (1 - self.beta2) * change**2
        return self.rate * mean / (np.sqrt(square) + self.tau), [mean, square]


class ServerStrategy:
    """One strategy: a rule that combines the sites' arrays, and perhaps an optimiser at the server.

    Only floating-point entries are combined; others (counters) are the first reply's. `buffers` names entries that are
    no parameters: a running variance follows no momentum, which could make it negative.
    """

    def __init__(self, rule: Rule, optimiser: ServerOptimiser | None = None, *, buffers: Collection[str] = ()) -> None:
        self._rule, self._optimiser, self._buffers = rule, optimiser, frozenset(buffers)
        self._moments: dict[str, list[Array]] = {}

    def start(self, arrays: Arrays) -> None:
        """Forget everything: the first round goes out with `arrays`."""
        self._moments = {name: self._fresh(value) for name, value in arrays.items() if self._optimises(name, value)}

    def step(self, old: Arrays, replies: Sequence[Reply]) -> dict[str, Array]:
        """The weights of the next round, of the types of `old`. Replies must have its names and shapes, all finite."""
        if not replies:
            raise ValueError("there is nothing to average")
        weights = _shares([weight for weight, _ in replies])
        sent = [arrays for _, arrays in replies]
        return {name: self._next(name, value, Column(name, sent), weights) for name, value in old.items()}

    def state(self) -> dict[str, Array]:
        """What the server's optimiser remembers, to be kept in a checkpoint."""
        names = self._optimiser.moments if self._optimiser else ()
        return {
            f"{kind}.{name}": value
            for name, kept in self._moments.items()
            for kind, value in zip(names, kept, strict=True)
        }

    def load(self, state: Arrays) -> None:
        """Go on from what `state` gave, after `start`."""
        names = self._optimiser.moments if self._optimiser else ()
        self._moments = {name: [np.array(state[f"{kind}.{name}"]) for kind in names] for name in self._moments}

    def _next(self, name: str, old: Array, sent: Sequence[Array], weights: list[float]) -> Array:
        if not _is_float(old):
            return np.array(sent[0])
        combined = self._rule(sent, weights)
        if self._optimiser is None or name not in self._moments:
            return np.asarray(combined, old.dtype)
        wide = old.astype(np.float64)
        step, moments = self._optimiser.step(combined - wide, self._moments[name])
        self._moments[name] = [np.asarray(moment, old.dtype) for moment in moments]
        return np.asarray(wide + step, old.dtype)

    def _optimises(self, name: str, value: Array) -> bool:
        return self._optimiser is not None and _is_float(value) and name not in self._buffers

    def _fresh(self, value: Array) -> list[Array]:
        assert self._optimiser is not None
        zeros = [np.zeros_like(value) for _ in self._optimiser.moments]
        return [*zeros[:-1], np.full_like(value, self._optimiser.first)]


def weighted_mean(values: Sequence[Array], weights: Sequence[float]) -> Array:
    """The mean with `weights` that add up to one, summed in the given order; one of the values is held at a time."""
    total = np.multiply(values[0], weights[0], dtype=np.float64)
    for value, weight in zip(values[1:], weights[1:], strict=True):
        total += np.multiply(value, weight, dtype=np.float64)
    return total


def median(values: Sequence[Array], weights: Sequence[float] = ()) -> Array:
    """The middle value of each entry (Yin et al. 2018), whatever the weights: half the sites may send garbage."""
    return _by_entry(values, lambda stacked: np.median(stacked, axis=0))


def _by_entry(values: Sequence[Array], combine: Callable[[Array], Array]) -> Array:
    """Combine the sites' values of each entry, so many entries at a time that `BLOCK` numbers are held at once."""
    first = values[0]
    step = max(1, BLOCK // len(values))
    if not isinstance(values, Column) or first.size <= step:
        return np.asarray(combine(np.stack(list(values)).astype(np.float64)))
    blocks = [combine(values.stacked(start, min(start + step, first.size))) for start in range(0, first.size, step)]
    return np.concatenate(blocks).reshape(first.shape)


@dataclass(frozen=True, kw_only=True)
class TrimmedMean:
    """The mean of each entry without its `share` largest and smallest values (Yin et al. 2018), whatever the weights.

    The number cut off is rounded up: one garbage site of four is cut where `share` is 0.2, and not averaged.
    """

    share: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.share < 0.5:
            raise ConfigError("'share' must be at least 0 and below 0.5", value=self.share)

    def __call__(self, values: Sequence[Array], weights: Sequence[float] = ()) -> Array:
        """See `Rule`."""
        n = len(values)
        cut = min(math.ceil(self.share * n - 1e-9), (n - 1) // 2)
        return _by_entry(values, lambda stacked: np.sort(stacked, axis=0)[cut : n - cut].mean(axis=0))


def make_strategy(
    strategy: str, options: Mapping[str, float] | None = None, *, buffers: Collection[str] = ()
) -> ServerStrategy:
    """The strategy of that name. `options` are its own numbers: momentum, rate, beta1, beta2, tau, share, mu."""
    given = dict(options or {})
    if strategy == "fedprox":
        proximal_mu(given)
        return ServerStrategy(weighted_mean)
    if strategy == "fedavg":
        _refuse_unknown(strategy, given, ())
        return ServerStrategy(weighted_mean)
    if strategy == "fedmedian":
        _refuse_unknown(strategy, given, ())
        return ServerStrategy(median)
    if strategy == "trimmed-mean":
        return ServerStrategy(_with_options(strategy, TrimmedMean, given))
    optimisers: dict[str, type[Momentum | Adaptive]] = {"fedavgm": Momentum, "fedadam": Adaptive}
    if strategy not in optimisers:
        raise ConfigError("unknown strategy", value=strategy, remedy=nearest(strategy, STRATEGIES))
    return ServerStrategy(weighted_mean, _with_options(strategy, optimisers[strategy], given), buffers=buffers)


def proximal_mu(options: Mapping[str, float]) -> float:
    """How strongly FedProx pulls; 0.01 where nothing is said (Li et al. 2020 try 0.001 to 1). 0 is FedAvg."""
    _refuse_unknown("fedprox", options, ("mu",))
    mu = options.get("mu", 0.01)
    if not 0 <= mu < math.inf:
        raise ConfigError("'mu' must be at least 0", value=mu)
    return mu


def proximal_pull(weights: Any, received: Any, mu: float) -> Any:
    """The gradient of mu/2 |weights - received|^2 (Li et al. 2020): added to a site's own gradient.

    It reads weights only: in a private run it is post-processing. Takes arrays or tensors.
    """
    return mu * (weights - received)


def _with_options(strategy: str, kind: type[Made], given: Mapping[str, float]) -> Made:
    _refuse_unknown(strategy, given, signature(kind).parameters)
    return kind(**given)


def _refuse_unknown(strategy: str, given: Iterable[str], known: Iterable[str]) -> None:
    for name in given:
        if name not in (listed := tuple(known)):
            raise ConfigError(f"{strategy} has no such option", value=name, remedy=nearest(name, listed))


def _shares(weights: Sequence[float]) -> list[float]:
    if not all(math.isfinite(weight) and weight > 0 for weight in weights):
        raise ValueError(f"weights must be positive numbers: {list(weights)}")
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def _is_float(value: Array) -> bool:
    return bool(np.issubdtype(value.dtype, np.floating))


def _check_share(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ConfigError(f"{name!r} must be at least 0 and below 1", value=value)


def _check_positive(name: str, value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise ConfigError(f"{name!r} must be a positive number", value=value)
