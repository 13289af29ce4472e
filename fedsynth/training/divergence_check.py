"""Stops a run that has gone wrong before it wastes hours, and says why. It reads losses and gradients only."""

import math

import torch
from torch import Tensor

from fedsynth.errors import FedSynthError


class DivergedError(FedSynthError):
    """Training produced something that is not a number; the last good state is kept."""


class DivergenceCheck:
    """Looks at every loss on a CPU, and at every `interval`-th on a GPU, where looking means waiting.

    In private runs it is handed noised gradients and losses of fakes, never anything computed from patients.
    """

    def __init__(self, device: torch.device, *, interval: int = 25) -> None:
        self._interval = 1 if device.type == "cpu" else interval

    def check(self, step: int, net: str, loss: Tensor, gradients: list[Tensor | None]) -> None:
        """Raise `DivergedError` when the loss or the gradient of `net` is not finite."""
        if step % self._interval:
            return
        value = float(loss)
        used = [gradient for gradient in gradients if gradient is not None]
        size = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(used)))) if used else 0.0
        for what, number in (("loss", value), ("gradient", size)):
            if not math.isfinite(number):
                remedy = "lower --rate, or choose another family; the last good state is kept"
                raise DivergedError(
                    f"training diverged at step {step}: the {what} of the {net} is {number}", remedy=remedy
                )
