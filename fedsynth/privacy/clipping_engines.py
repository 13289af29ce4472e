"""Two ways to the same clipped sum over a few patients: recorded layers, fast, and vmap(grad), which fits any loss.

Norms, weights and sums are float64: `ghost_norm` says why no patient then adds more than the clip norm. Knows nothing
of how patients were drawn, of noise or of budgets.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from fedsynth.privacy.ghost_norm import EXACT, Share, Sums, share
from fedsynth.privacy.layer_recording import Call, layers_of, record

Tensors: TypeAlias = Mapping[str, Tensor]
LossPerSample: TypeAlias = Callable[[dict[str, Tensor], dict[str, Tensor], float], Tensor]
"""`loss(batch, noise, progress)`: tensors with the sample axis first in, one value per sample (n,) out."""

SLACK = 1 - 2.0**-10  # what the rounding of the weighted sums may come to is kept in reserve: see `ghost_norm`


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A few patients: every tensor of `batch` and `noise` is (patients, slices, ...). The last `fillers` are nobody.

    `precision` is that of their norms and sums; less than `EXACT` bounds nothing and is for chunks of nobody.
    """

    batch: dict[str, Tensor]
    noise: dict[str, Tensor]
    fillers: int = 0
    precision: torch.dtype = EXACT

    @property
    def patients(self) -> int:
        """How many there are."""
        return len(next(iter({**self.batch, **self.noise}.values())))

    @property
    def slices_per_patient(self) -> int:
        """How many samples each patient shows."""
        return next(iter({**self.batch, **self.noise}.values())).shape[1]

    def flat(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The same with one sample axis, slices of a patient one after another."""
        return {k: v.flatten(0, 1) for k, v in self.batch.items()}, {k: v.flatten(0, 1) for k, v in self.noise.items()}

    def rolled(self, places: int) -> "Chunk":
        """The same patients so many places on, round and round."""
        batch, noise = ({k: v.roll(places, 0) for k, v in part.items()} for part in (self.batch, self.noise))
        return replace(self, batch=batch, noise=noise)

    def split(self, patients: int) -> "Iterator[Chunk]":
        """The same in chunks of so many patients, nothing copied."""
        for start in range(0, self.patients, patients):
            yield self._cut(slice(start, start + patients))

    def first(self, patients: int) -> "Chunk":
        """The first so many."""
        return self._cut(slice(patients))

    def _cut(self, part: slice) -> "Chunk":
        batch, noise = ({k: v[part] for k, v in whole.items()} for whole in (self.batch, self.noise))
        return replace(self, batch=batch, noise=noise)


@dataclass(frozen=True, kw_only=True)
class Clipped:
    """A chunk's clipped sum, and the losses that it came from. Losses of patients are secret: drop them."""

    sums: Sums
    losses: Tensor


class Engine(Protocol):
    """How the gradients of a chunk are taken."""

    def norms(self, chunk: Chunk, progress: float) -> Tensor:
        """Each patient's gradient norm (patients,), its slices averaged first: at most a little above, never below."""

    def clipped(self, chunk: Chunk, progress: float, clip: float) -> Clipped:
        """Sum of the patients' gradients, slices averaged, each clipped to norm `clip`; not finite counts as zero."""


class RecordedEngine:
    """One backward pass for the layers' outputs, norms layer by layer, then one weighted sum."""

    def __init__(self, net: nn.Module, loss: LossPerSample) -> None:
        self._layers, self._loss = layers_of(net), loss

    def norms(self, chunk: Chunk, progress: float) -> Tensor:
        """Each patient's gradient norm (patients,)."""
        return _norm([one.squared for _, one in _shares(self._record(chunk, progress)[1], chunk)])

    def clipped(self, chunk: Chunk, progress: float, clip: float) -> Clipped:
        """The clipped sum. What went in and out of the layers is zeroed for patients whose norm is not finite."""
        losses, calls = self._record(chunk, progress)
        shares = _shares(calls, chunk)
        norms = _norm([one.squared for _, one in shares])
        finite = norms.isfinite()
        if not finite.all():
            rows = finite.repeat_interleave(chunk.slices_per_patient)
            calls = [(replace(call, given=_zeroed(call.given, rows)), _zeroed(back, rows)) for call, back in calls]
            shares = _shares(calls, chunk)
        weights = _weights(norms, clip, chunk.fillers)
        sums = {prefix + key: value for prefix, one in shares for key, value in one.weighted(weights).items()}
        return Clipped(sums=sums, losses=losses)

    def _record(self, chunk: Chunk, progress: float) -> tuple[Tensor, list[tuple[Call, Tensor]]]:
        samples, slices_per_patient = chunk.patients * chunk.slices_per_patient, chunk.slices_per_patient
        return record(
            self._layers, lambda: self._loss(*chunk.flat(), progress), samples=samples, share=1 / slices_per_patient
        )


def _shares(calls: list[tuple[Call, Tensor]], chunk: Chunk) -> list[tuple[str, Share]]:
    return [
        (f"{call.name}." if call.name else "", share(call.module, call.given, back, chunk.patients, chunk.precision))
        for call, back in calls
    ]


class MappedEngine:
    """Every patient's whole gradient by torch.func: slower, and right for any loss whose samples do not mix."""

    def __init__(self, net: nn.Module, loss: LossPerSample, names: tuple[str, ...]) -> None:
        self._net, self._call, self._names = net, _Call(net, loss), names

    def norms(self, chunk: Chunk, progress: float) -> Tensor:
        """Each patient's gradient norm (patients,)."""
        return _norms_held(self._each(chunk, progress)[0], chunk.precision)

    def clipped(self, chunk: Chunk, progress: float, clip: float) -> Clipped:
        """The clipped sum; what is not finite is zeroed before it meets its weight."""
        each, losses = self._each(chunk, progress)
        norms = _norms_held(each, chunk.precision)
        finite, weights = norms.isfinite(), _weights(norms, clip, chunk.fillers)
        if not finite.all():
            each = {name: _zeroed(g, finite) for name, g in each.items()}
        sums = {name: torch.tensordot(weights, g.to(chunk.precision), 1) for name, g in each.items()}
        return Clipped(sums=sums, losses=losses)

    def _each(self, chunk: Chunk, progress: float) -> tuple[dict[str, Tensor], Tensor]:
        parameters = {name: p.detach() for name, p in self._net.named_parameters() if name in self._names}

        def loss(values: dict[str, Tensor], batch: dict[str, Tensor], noise: dict[str, Tensor]) -> Tensor:
            under = {f"net.{name}": value for name, value in values.items()}
            return torch.as_tensor(functional_call(self._call, under, (batch, noise, progress)).mean())

        each = vmap(grad_and_value(loss), in_dims=(None, 0, 0), randomness="error")
        gradients, losses = each(parameters, chunk.batch, chunk.noise)
        return {name: g.detach() for name, g in gradients.items()}, losses.detach()


class _Call(nn.Module):
    """The loss as a module that holds the network, so that functional_call can swap its parameters."""

    def __init__(self, net: nn.Module, loss: LossPerSample) -> None:
        super().__init__()
        self.net, self.loss = net, loss

    def forward(self, batch: dict[str, Tensor], noise: dict[str, Tensor], progress: float) -> Tensor:
        return self.loss(batch, noise, progress)


def _norm(squared: list[Tensor]) -> Tensor:
    return torch.stack(squared).sum(0).sqrt()


def _norms_held(each: dict[str, Tensor], precision: torch.dtype) -> Tensor:
    return _norm([torch.linalg.vector_norm(g.flatten(1), dim=1, dtype=precision).square() for g in each.values()])


def _zeroed(values: Tensor, kept: Tensor) -> Tensor:
    return torch.where(kept.reshape(-1, *[1] * (values.dim() - 1)), values, 0)


def _weights(norms: Tensor, clip: float, fillers: int) -> Tensor:
    weights = torch.where(norms.isfinite(), SLACK * clip / norms.clamp_min(clip), 0)
    weights[len(weights) - fillers :] = 0
    return weights
