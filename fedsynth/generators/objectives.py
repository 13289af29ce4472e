"""What critic and generator are asked to do: the textbook objectives and the penalties, one value per sample.

Scores are raw (no sigmoid): so losses grow linearly and gradients never vanish or overflow at large scores.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

Term: TypeAlias = Callable[[Tensor], Tensor]
Judge: TypeAlias = Callable[[Tensor], Tensor]
"""A critic with everything but the images fixed: images (n, C, ...) to scores (n,), each of its own image only."""
Penalty: TypeAlias = Callable[[Judge, Tensor, Callable[[], Tensor], Tensor], Tensor]
"""A penalty per sample from the judge, the real images, a way to make as many fakes, and a uniform draw each."""


@dataclass(frozen=True)
class Objective:
    """Losses from scores: the critic's on real and on made images, and the generator's on made ones."""

    real: Term
    fake: Term
    generator: Term


NON_SATURATING = Objective(
    lambda r: functional.softplus(-r), lambda f: functional.softplus(f), lambda f: functional.softplus(-f)
)
LEAST_SQUARES = Objective(lambda r: (r - 1).square(), lambda f: f.square(), lambda f: (f - 1).square())
WASSERSTEIN = Objective(lambda r: -r, lambda f: f, lambda f: -f)
HINGE = Objective(lambda r: functional.relu(1 - r), lambda f: functional.relu(1 + f), lambda f: -f)


def squared_slope(judge: Judge, images: Tensor) -> Tensor:
    """The squared gradient norm of the score at each image (n,): R1 on real images, R2 on made ones."""
    slope: Tensor = torch.func.grad(lambda x: judge(x).sum())(images)
    return slope.flatten(1).square().sum(1)


def r1(gamma: float) -> Penalty:
    """Half `gamma` times the squared slope at the real images (Mescheder et al., equation 9)."""
    return lambda judge, real, fakes, draw: gamma / 2 * squared_slope(judge, real)


def unit_slope(weight: float = 10.0, drift: float = 1e-3) -> Penalty:
    """A slope of one between real and made images (WGAN-GP, equation 3), and scores of real ones near zero (ProGAN)."""

    def penalty(judge: Judge, real: Tensor, fakes: Callable[[], Tensor], draw: Tensor) -> Tensor:
        share = draw.reshape(-1, *[1] * (real.dim() - 1))
        norm = (squared_slope(judge, share * real + (1 - share) * fakes()) + 1e-12).sqrt()
        return weight * (norm - 1).square() + drift * judge(real).square()

    return penalty
