"""EMA: the exponential moving average of the weights that are released. It costs no privacy."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from fedsynth.models.base import Model


class ExponentialMovingAverage:
    """Exponential average of the sampler's parameters with a half-life in steps; buffers are copied as they are.

    The average starts as the weights themselves and lengthens its memory as it goes, so short runs are not held back.
    """

    def __init__(self, family: Model, half_life: float) -> None:
        self._decay = 0.5 ** (1 / half_life) if half_life > 0 else 0.0
        state = {
            name: value for name, value in family.nets.state_dict().items() if name.split(".")[0] in family.sampler
        }
        parameters = dict(family.nets.named_parameters())
        self._names = [name for name in state if name in parameters]
        self._weights: list[Tensor] = [
            parameters[name] for name in self._names
        ]  # a walk through all modules takes long
        self._buffers = [name for name in state if name not in parameters]
        self.values: dict[str, Tensor] = {name: value.detach().clone() for name, value in state.items()}

    def update(self, family: Model, step: int) -> None:
        """Move towards the weights after step number `step` (from 0)."""
        decay = min(self._decay, (1 + step) / (10 + step))
        with torch.no_grad():
            averages = [self.values[name] for name in self._names]
            if averages:  # families that are not trained have none
                torch._foreach_lerp_(averages, self._weights, 1 - decay)
        self.take_buffers(family)

    def restart(self, family: Model) -> None:
        """Begin anew at the family's weights."""
        state = family.nets.state_dict()
        with torch.no_grad():
            for name, value in self.values.items():
                value.copy_(state[name])

    def take_buffers(self, family: Model) -> None:
        """Buffers are not averaged: they are as the family has them."""
        if not self._buffers:
            return
        buffers = dict(family.nets.named_buffers())
        with torch.no_grad():
            for name in self._buffers:
                self.values[name].copy_(buffers[name])

    @contextmanager
    def in_place(self, family: Model) -> Iterator[None]:
        """The family carries the averaged weights, ready to sample, during the block."""
        trained = {
            name: value.detach().clone() for name, value in family.nets.state_dict().items() if name in self.values
        }
        was_training = family.training
        try:
            family.nets.load_state_dict(self.values, strict=False)
            family.eval()
            yield
        finally:
            family.nets.load_state_dict(trained, strict=False)
            family.train(was_training)
