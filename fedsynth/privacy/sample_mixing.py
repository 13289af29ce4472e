"""Refuses networks in which one patient's sample can reach another's loss: clipping would bound nothing.

Looks at behaviour on made-up samples, not at class names, and leaves weights, buffers, modes and random streams as they
were. Knows nothing of patients.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedsynth.errors import RefusedError
from fedsynth.models.base import global_randomness
from fedsynth.privacy.clipping_engines import LossPerSample, Tensors
from fedsynth.privacy.variations import AS_THEY_ARE, VARIATIONS, Variation, varied

SAME = 1e-5  # of two runs that differ in another sample only: the arithmetic is the same, so nearly nothing
ALONE = 1e-3  # of a sample judged alone and in a batch: other kernels round differently


def check_independence(
    whole: nn.Module,
    net: nn.Module,
    loss: LossPerSample,
    probe: tuple[Tensors, Tensors],
    *,
    stages: Sequence[float] = (1.0,),
    variations: Sequence[Variation] = VARIATIONS,
) -> None:
    """Refuse `net` when its loss of one sample depends on another, at any stage of growth, in training mode.

    `whole` holds every network that `loss` runs; `probe` is a batch and noise of at least four made-up samples. Run at
    several variations of the weights, since a gate that starts at zero hides what lies behind it.
    """
    _refuse_aliases(whole)
    with global_randomness(), _left_as_found(whole):
        whole.train()
        for progress in stages:
            for variation in variations:
                with varied(whole, variation):
                    _Examination(whole, net, loss, probe, progress).run(must_be_finite=variation == AS_THEY_ARE)


class _Examination:
    def __init__(
        self, whole: nn.Module, net: nn.Module, loss: LossPerSample, probe: tuple[Tensors, Tensors], progress: float
    ) -> None:
        self._whole, self._loss, self._progress = whole, loss, progress
        self._batch, self._noise = dict(probe[0]), dict(probe[1])
        self._draws = torch.Generator().manual_seed(0)  # its own stream: made-up numbers, nothing secret
        self._trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
        self._buffers = {name: value.clone() for name, value in whole.named_buffers()}
        self._stage = f" at progress {progress:g}" if progress != 1.0 else ""

    def run(self, *, must_be_finite: bool) -> None:
        """Every look at the network; raises at the first that shows a coupling."""
        states = _random_states()
        whole_losses, after = self._losses(self._batch)
        if not _equal_states(states, _random_states()):
            self._refuse("draws random numbers of its own; all randomness comes in as noise")
        self._check_shape(whole_losses)
        if not whole_losses.isfinite().all():
            if must_be_finite:
                self._refuse("gives a loss that is not finite on made-up samples")
            return  # nothing to be seen at weights that we made up
        gradients = [self._gradients(whole_losses, without=i) for i in (0, len(whole_losses) - 1)]
        for i, before in zip((0, len(whole_losses) - 1), gradients, strict=True):
            self._check_others(whole_losses, before, i, after)
        self._check_alone(whole_losses)
        again, _ = self._losses(self._batch)
        if not torch.equal(again, whole_losses):
            self._refuse("remembers earlier samples: the same batch gives another loss the second time")

    def _check_shape(self, losses: Tensor) -> None:
        if losses.shape != (len(next(iter({**self._batch, **self._noise}.values()))),):
            self._refuse(f"gives a loss of shape {tuple(losses.shape)} instead of one value per sample")

    def _check_others(self, losses: Tensor, before: list[Tensor], i: int, after: dict[str, Tensor]) -> None:
        changed = {name: self._with_other(value, i) for name, value in self._batch.items()}
        with_other, after_other = self._losses(changed)
        others = torch.arange(len(losses)) != i
        if _differ(losses[others], with_other[others], SAME):
            self._refuse("mixes samples: one sample changes the loss of another (batch statistics?)")
        if any(_differ(a, b, SAME) for a, b in zip(before, self._gradients(with_other, without=i), strict=True)):
            self._refuse("mixes samples: one sample changes the gradient of another (batch statistics?)")
        if any(not torch.equal(after[name], after_other[name]) for name in after):
            self._refuse("keeps statistics of its samples in buffers")

    def _check_alone(self, losses: Tensor) -> None:
        try:
            alone, _ = self._losses({k: v[:1] for k, v in self._batch.items()}, samples=1)
        except (RuntimeError, ValueError) as error:
            self._refuse(f"cannot judge one sample alone ({str(error).splitlines()[0]})")
        if _differ(losses, torch.cat([alone, losses[1:]]), ALONE):
            self._refuse("gives a sample another loss when it is alone: the loss depends on how many were drawn")

    def _losses(self, batch: dict[str, Tensor], samples: int | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The losses, and the buffers as they are afterwards; every run starts from the same buffers."""
        for name, value in self._whole.named_buffers():
            value.copy_(self._buffers[name])
        noise = {name: value[:samples] for name, value in self._noise.items()}
        losses = torch.as_tensor(self._loss(batch, noise, self._progress))
        return losses, {name: value.clone() for name, value in self._whole.named_buffers()}

    def _gradients(self, losses: Tensor, *, without: int) -> list[Tensor]:
        total = losses.sum() - losses[without]
        if not total.requires_grad:
            return []
        found = torch.autograd.grad(total, self._trained, retain_graph=True, allow_unused=True)
        return [torch.zeros(()) if one is None else one for one in found]

    def _with_other(self, value: Tensor, i: int) -> Tensor:
        """The same batch with sample `i` replaced: far larger numbers, or another sample's whole numbers."""
        changed = value.clone()
        if value.is_floating_point():
            drawn = torch.randn(value[i].shape, generator=self._draws).to(value)
            changed[i] = 5 * value[i] + 5 * drawn + 1
        else:
            changed[i] = value[(i + 1) % len(value)]
        return changed

    def _refuse(self, what: str) -> None:
        raise RefusedError(f"the network cannot be private{self._stage}: it {what}")


def _refuse_aliases(whole: nn.Module) -> None:
    """One module under two names has one weight but two entries: gradients and noise would go to one of them only."""
    names: dict[int, str] = {}
    for name, module in whole.named_modules(remove_duplicate=False):
        first = names.setdefault(id(module), name)
        if first != name and any(True for _ in module.parameters()):
            raise RefusedError(f"the network cannot be private: {first} and {name} are one module under two names")


def _differ(first: Tensor, second: Tensor, tolerance: float) -> bool:
    first, second = first.detach(), second.detach()
    if not second.isfinite().all():
        return True
    return bool((first - second).abs().max() > tolerance * first.abs().max().clamp_min(1e-6))


@contextmanager
def _left_as_found(whole: nn.Module) -> Iterator[None]:
    """Modes, buffers and every random stream as before, whatever happened."""
    modes = [(module, module.training) for module in whole.modules()]
    buffers = {name: value.clone() for name, value in whole.named_buffers()}
    states = _random_states()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for name, value in whole.named_buffers():
                value.copy_(buffers[name])
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])  # noqa: NPY002 - others' global stream is put back, not used
        random.setstate(states[2])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state_all(states[3])


def _random_states() -> tuple[Any, ...]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return torch.get_rng_state(), np.random.get_state(), random.getstate(), cuda  # noqa: NPY002


def _equal_states(first: tuple[Any, ...], second: tuple[Any, ...]) -> bool:
    same_cuda = all(torch.equal(a, b) for a, b in zip(first[3], second[3], strict=True))
    same_numpy = first[1][2] == second[1][2] and bool((first[1][1] == second[1][1]).all())
    return torch.equal(first[0], second[0]) and same_numpy and first[2] == second[2] and same_cuda
