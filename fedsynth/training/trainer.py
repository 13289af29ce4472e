"""The one loop: each step takes the family's phases, plain or through the DP-SGD mechanism, and averages the sampler.

It knows networks, batches and gradients; it does not know files, hospitals or what the images are for.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fedsynth.models.augmentation import Augmentation
from fedsynth.models.base import Model, Phase, RandomSource, SeededSource, Tensors
from fedsynth.models.generators.catalog import Recipe
from fedsynth.models.pairing import Pairing
from fedsynth.training.divergence_check import DivergenceCheck
from fedsynth.training.ema import ExponentialMovingAverage
from fedsynth.training.patient_batches import PatientBatches
from fedsynth.training.random_streams import batch_rows, step_rng, stream_seed


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """What one step tells: its number (from 0) and the loss of each network that moved.

    In private runs the losses are those of the fake half: fakes only.
    """

    step: int
    losses: dict[str, float]


class Gradients(Protocol):
    """Where a phase's gradient comes from: the plain batch mean, or the mechanism."""

    def __call__(
        self, phase: Phase, step: int, progress: float, rng: RandomSource
    ) -> tuple[Tensor, list[Tensor | None]]:
        """The loss to show and the gradient for the parameters of `phase.net`, in their order.

        None stands for a parameter that this stage of growth does not use; it stays exactly where it is.
        """


class Trainer:
    """A family with its optimisers, moving average and step counter. `gradients` decides plain or private.

    Networks named in `remote_networks` are updated by somebody else, who takes their gradients from `remote_updates`.
    """

    def __init__(
        self, family: Model, recipe: Recipe, *, seed: int, total_steps: int, gradients: Gradients, device: torch.device
    ) -> None:
        self.family, self.recipe, self.seed, self.total_steps = family.to(device), recipe, seed, total_steps
        self.gradients = gradients
        self.step = 0
        self.remote_networks: frozenset[str] = frozenset()
        self.remote_updates: dict[str, list[Tensor | None]] = {}
        self.ema = ExponentialMovingAverage(family, recipe.ema)
        self.optimisers = {phase.net: self._optimiser(phase.net) for phase in family.phases}
        self._watch = DivergenceCheck(device)

    def run(self, steps: int) -> Iterator[StepReport]:
        """Take `steps` steps, reporting after each. Raises `DivergedError` before a broken update is applied."""
        for _ in range(steps):
            yield StepReport(step=self.step, losses=self._take_step())

    @property
    def progress(self) -> float:
        """How far the whole run is, in [0, 1]; growing networks grow with it, a hundredth of the run at a time."""
        granule = max(1, self.total_steps // 100)
        return self.step // granule * granule / max(1, self.total_steps)

    def _take_step(self) -> dict[str, float]:
        losses: dict[str, float] = {}
        for number, phase in enumerate(self.family.phases):
            if self.step % phase.interval:
                continue
            rng = step_rng(self.seed, self.step, number)
            loss, gradient = self.gradients(phase, self.step, self.progress, rng)
            self._watch.check(self.step, phase.net, loss, gradient)
            if phase.net in self.remote_networks:
                self.remote_updates[phase.net] = gradient
                self.family.after_update(phase.net)
            else:
                self.apply(phase.net, gradient)
            losses.setdefault(phase.net, float(loss))  # a second phase of a network is a penalty, not its loss
        self.ema.update(self.family, self.step)
        self.step += 1
        return losses

    def apply(self, net: str, gradient: list[Tensor | None], *, settle: bool = True) -> None:
        """One optimiser update of a network, at the rate of the step at hand.

        Without `settle` the family is not told: what its buffers fold in was seen elsewhere.
        """
        [group] = self.optimisers[net].param_groups
        for parameter, value in zip(group["params"], gradient, strict=True):
            parameter.grad = None if value is None else laid_out_as(parameter, value)
        group["lr"] = self._rate(net)
        self.optimisers[net].step()
        self.optimisers[net].zero_grad(set_to_none=True)
        if settle:
            self.family.after_update(net)

    def _optimiser(self, net: str) -> torch.optim.Adam:
        return torch.optim.Adam(self.family.nets[net].parameters(), self._rate(net), self.recipe.betas, fused=True)

    def _rate(self, net: str) -> float:
        """The learning rate of the step at hand; it follows from the step alone, so nothing of it is saved."""
        left = 1 - self.step / max(1, self.total_steps)
        fall = min(1.0, left / self.recipe.decay) if self.recipe.decay else 1.0
        stage = net.partition("-")[0]  # of a family of families
        return self.recipe.rates.get(net, self.recipe.rates.get(stage, self.recipe.rate)) * fall


class PlainGradients:
    """The gradient of an ordinary step: the mean over a batch of images plus the mean over as many fakes."""

    def __init__(
        self,
        family: Model,
        dataset: PatientBatches,
        *,
        seed: int,
        batch: int,
        augmentation: Augmentation | None = None,
        pairing: Pairing | None = None,
        precision: torch.dtype | None = None,
    ) -> None:
        self.family, self.dataset, self.seed, self.batch = family, dataset, seed, batch
        self.augmentation, self.pairing, self.precision = augmentation, pairing, precision
        family.augment = augmentation
        if dataset.device.type == "cpu":
            lay_channels_last(family)
        self._fetched: tuple[int, Tensors] | None = None

    def __call__(
        self, phase: Phase, step: int, progress: float, rng: RandomSource
    ) -> tuple[Tensor, list[Tensor | None]]:
        """See `Gradients`. All turns of a step share one batch."""
        noise = self._noise(rng)
        condition = self._condition(step, rng)
        with self._precision():
            loss = self.family.fake_loss(phase, condition, noise, progress).mean()
            if phase.reads_patients:
                loss = loss + self.family.real_loss(phase, self._batch_of(step), noise, progress).mean()
        parameters = list(self.family.nets[phase.net].parameters())
        return loss.detach(), list(torch.autograd.grad(loss, parameters, allow_unused=True))

    def fake_half(self, phase: Phase, step: int, progress: float, rng: RandomSource) -> list[Tensor | None]:
        """The part of the gradient that generated images give, for the same draws: what an auditor can take off."""
        noise = self._noise(rng)
        condition = self._condition(step, rng)
        parameters = list(self.family.nets[phase.net].parameters())
        with self._precision():
            loss = self.family.fake_loss(phase, condition, noise, progress).mean()
        if not loss.requires_grad:
            return [None] * len(parameters)
        return list(torch.autograd.grad(loss, parameters, allow_unused=True))

    def _batch_of(self, step: int) -> Tensors:
        if self._fetched is None or self._fetched[0] != step:
            batch = self.dataset.fetch(batch_rows(self.seed, step, self.batch, self.dataset.count))
            if self.pairing is not None:
                rng = SeededSource(stream_seed(self.seed, "pairing", step))
                batch = self.pairing.pair(batch, self.dataset.images.header.channels, rng)
            self._fetched = (step, batch)
        return self._fetched[1]

    def _noise(self, rng: RandomSource) -> Tensors:
        noise = self.family.noise(self.batch, rng)
        if self.augmentation is not None:
            noise |= self.augmentation.noise(self.batch, self.family.shape.dimensions, rng)
        return {name: value.to(self.dataset.device) for name, value in noise.items()}

    def _condition(self, step: int, rng: RandomSource) -> Tensors:
        """Classes in the data's own shares; paired families are shown the batch's own sources."""
        if self.pairing is not None:
            return {name: value for name, value in self._batch_of(step).items() if name in ("source", "label")}
        if not self.family.shape.n_classes:
            return {}
        label = draw_labels(self.dataset.class_shares, self.batch, rng)
        return {"label": label.to(self.dataset.device)}

    def _precision(self) -> AbstractContextManager[object]:
        if self.precision is None:
            return nullcontext()
        return torch.autocast(self.dataset.device.type, self.precision)


def lay_channels_last(family: Model) -> None:
    """Lay kernels over two dimensions out as CPUs convolve fastest; the same numbers up to rounding.

    Of a step at 48 pixels it saves a fifth (dcgan, pix2pix), a sixth (densenet), a tenth (unet); others none.
    """
    for parameter in family.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def laid_out_as(parameter: Tensor, value: Tensor) -> Tensor:
    """The same numbers in the parameter's order in memory: a fused update walks through all tensors in one order."""
    if value.stride() == parameter.stride():
        return value
    return torch.empty_like(parameter).copy_(value)


def draw_labels(shares: "np.ndarray[tuple[int], np.dtype[np.float64]]", n: int, rng: RandomSource) -> Tensor:
    """`n` one-hot classes drawn with the given shares."""
    edges = torch.from_numpy(np.cumsum(shares)).float()
    chosen = torch.bucketize(rng.uniform((n,)) * edges[-1], edges, right=True).clamp(max=len(shares) - 1)
    return torch.eye(len(shares))[chosen]


Report = Callable[[StepReport], None]
