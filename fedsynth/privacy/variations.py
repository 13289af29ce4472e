"""Other weights at which a network is examined: what a gate at zero hides now shows once the gate has opened."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Variation(NamedTuple):
    """`scale` times (the weights plus `jitter` standard deviations of normal noise)."""

    scale: float
    jitter: float


AS_THEY_ARE = Variation(1.0, 0.0)
VARIATIONS = (AS_THEY_ARE, Variation(1.0, 0.1), Variation(1.0, 1.0), Variation(4.0, 0.3))


@contextmanager
def varied(net: nn.Module, variation: Variation) -> Iterator[None]:
    """Every parameter varied meanwhile, to the same values each time; afterwards all are what they were, to the bit."""
    rng = torch.Generator().manual_seed(0)  # made-up numbers, nothing secret
    kept = [(parameter, parameter.detach().clone()) for parameter in net.parameters()]
    try:
        if variation != AS_THEY_ARE:
            with torch.no_grad():
                for parameter, value in kept:
                    drawn = torch.randn(value.shape, generator=rng).to(value)
                    parameter.copy_(variation.scale * (value + variation.jitter * _spread(value) * drawn))
        yield
    finally:
        with torch.no_grad():
            for parameter, value in kept:
                parameter.copy_(value)


def _spread(value: Tensor) -> Tensor:
    """The standard deviation; 1 where all entries are equal, as a gate at zero, a fresh bias or a norm's scale."""
    spread = value.std(correction=0)
    return torch.where(spread > 0, spread, torch.ones_like(spread))
