"""Two ways to the same clipped sum over a few patients: recorded layers, fast, and vmap(grad), which fits any loss.

Knows nothing of how patients were drawn, of noise or of budgets.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from fedsynth.privacy.layers import Share, Sums, share
from fedsynth.privacy.recording import layers_of, record

Tensors: TypeAlias = Mapping[str, Tensor]
LossPerSample: TypeAlias = Callable[[dict[str, Tensor], dict[str, Tensor], float], Tensor]
"""`loss(batch, noise, progress)`: tensors with the sample axis first in, one value per sample (n,) out."""

SLACK = 1 - 2.0**-10  # thousands of gradients clipped and added in float32 must not exceed the clip norm by rounding


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A few patients: every tensor of `batch` and `noise` is (patients, views, ...)."""

    batch: dict[str, Tensor]
    noise: dict[str, Tensor]

    @property
    def patients(self) -> int:
        """How many there are."""
        return len(next(iter({**self.batch, **self.noise}.values())))

    @property
    def views(self) -> int:
        """How many samples each patient shows."""
        return next(iter({**self.batch, **self.noise}.values())).shape[1]

    def flat(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The same with one sample axis, views of a patient one after another."""
        return {k: v.flatten(0, 1) for k, v in self.batch.items()}, {k: v.flatten(0, 1) for k, v in self.noise.items()}

    def split(self, patients: int) -> "Iterator[Chunk]":
        """The same in chunks of so many patients, nothing copied."""
        for start in range(0, self.patients, patients):
            part = slice(start, start + patients)
            yield Chunk(
                batch={k: v[part] for k, v in self.batch.items()}, noise={k: v[part] for k, v in self.noise.items()}
            )

    def only(self, chosen: Tensor) -> "Chunk":
        """The patients where `chosen` (patients,) is true."""
        return Chunk(
            batch={k: v[chosen] for k, v in self.batch.items()}, noise={k: v[chosen] for k, v in self.noise.items()}
        )


@dataclass(frozen=True, kw_only=True)
class Clipped:
    """A chunk's clipped sum, and the losses that it came from. Losses of patients are secret: drop them."""

    sums: Sums
    losses: Tensor


class Engine(Protocol):
    """How the gradients of a chunk are taken."""

    def norms(self, chunk: Chunk, progress: float) -> Tensor:
        """Each patient's gradient norm (patients,), its views averaged first."""

    def clipped(self, chunk: Chunk, progress: float, clip: float) -> Clipped:
        """Sum of the patients' gradients, views averaged, each clipped to norm `clip`; not finite counts as zero."""


class RecordedEngine:
    """One backward pass for the layers' outputs, norms layer by layer, then one weighted sum."""

    def __init__(self, net: nn.Module, loss: LossPerSample) -> None:
        self._layers, self._loss = layers_of(net), loss

    def norms(self, chunk: Chunk, progress: float) -> Tensor:
        """Each patient's gradient norm (patients,)."""
        return _norm([one.squared for _, one in self._shares(chunk, progress)[1]])

    def clipped(self, chunk: Chunk, progress: float, clip: float) -> Clipped:
        """The clipped sum; patients without a finite norm are left out and the rest is done again."""
        losses, shares = self._shares(chunk, progress)
        norms = _norm([one.squared for _, one in shares])
        finite = norms.isfinite()
        if not finite.all():
            sums = self.clipped(chunk.only(finite), progress, clip).sums if finite.any() else {}
            return Clipped(sums=sums, losses=losses)
        weights = _weights(norms, clip)
        sums = {prefix + key: value for prefix, one in shares for key, value in one.weighted(weights).items()}
        return Clipped(sums=sums, losses=losses)

    def _shares(self, chunk: Chunk, progress: float) -> tuple[Tensor, list[tuple[str, Share]]]:
        losses, recorded = record(self._layers, lambda: self._loss(*chunk.flat(), progress), 1 / chunk.views)
        return losses, [
            (f"{call.name}." if call.name else "", share(call.module, call.given, back, chunk.patients))
            for call, back in recorded
        ]


class MappedEngine:
    """Every patient's whole gradient by torch.func: slower, and right for any loss whose samples do not mix."""

    def __init__(self, net: nn.Module, loss: LossPerSample, names: tuple[str, ...]) -> None:
        self._net, self._call, self._names = net, _Call(net, loss), names

    def norms(self, chunk: Chunk, progress: float) -> Tensor:
        """Each patient's gradient norm (patients,)."""
        return _norm([g.flatten(1).square().sum(1) for g in self._each(chunk, progress)[0].values()])

    def clipped(self, chunk: Chunk, progress: float, clip: float) -> Clipped:
        """The clipped sum; what is not finite is left out before it meets its weight."""
        each, losses = self._each(chunk, progress)
        norms = _norm([g.flatten(1).square().sum(1) for g in each.values()])
        finite = norms.isfinite()
        if not finite.all():
            each = {name: g[finite] for name, g in each.items()}
        weights = _weights(norms[finite], clip)
        sums = {name: torch.tensordot(weights, g, 1) for name, g in each.items()}
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


def _weights(norms: Tensor, clip: float) -> Tensor:
    return SLACK * clip / norms.clamp_min(clip)
