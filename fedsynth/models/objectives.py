"""What discriminator and generator are asked to do: the textbook objectives and the penalties, one value per sample.

Scores are raw (no sigmoid): so losses grow linearly and gradients never vanish or overflow at large scores.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

Term: TypeAlias = Callable[[Tensor], Tensor]
Scorer: TypeAlias = Callable[[Tensor], Tensor]
"""A discriminator with everything but the images fixed: images (n, C, ...) to scores (n,), each of its own image
only.
"""
Penalty: TypeAlias = Callable[[Scorer, Tensor, Callable[[], Tensor], Tensor], tuple[Tensor, Tensor]]
"""Scores of real images and a penalty for each, from the discriminator, the images, as many fakes, and a uniform draw
each.

Both come from one call, because a slope is computed along with a score.
"""


@dataclass(frozen=True)
class Objective:
    """Losses from scores: the discriminator's on real and on generated images, and the generator's on generated
    ones.
    """

    real: Term
    fake: Term
    generator: Term


NON_SATURATING = Objective(
    lambda r: functional.softplus(-r), lambda f: functional.softplus(f), lambda f: functional.softplus(-f)
)
LEAST_SQUARES = Objective(lambda r: (r - 1).square(), lambda f: f.square(), lambda f: (f - 1).square())
WASSERSTEIN = Objective(lambda r: -r, lambda f: f, lambda f: -f)
HINGE = Objective(lambda r: functional.relu(1 - r), lambda f: functional.relu(1 + f), lambda f: -f)


def scores_and_slopes(discriminator: Scorer, images: Tensor) -> tuple[Tensor, Tensor]:
    """The score of each image (n,), and the squared norm of the score's gradient at it (n,)."""

    def total(x: Tensor) -> tuple[Tensor, Tensor]:
        scores = discriminator(x)
        return scores.sum(), scores

    slope, scores = torch.func.grad(total, has_aux=True)(images)
    return scores, slope.flatten(1).square().sum(1)


def unpenalised(
    discriminator: Scorer, real: Tensor, fakes: Callable[[], Tensor], draw: Tensor
) -> tuple[Tensor, Tensor]:
    """No penalty."""
    scores = discriminator(real)
    return scores, torch.zeros_like(scores)


def r1(gamma: float) -> Penalty:
    """Half `gamma` times the squared slope at the real images (Mescheder et al., equation 9)."""

    def penalty(
        discriminator: Scorer, real: Tensor, fakes: Callable[[], Tensor], draw: Tensor
    ) -> tuple[Tensor, Tensor]:
        scores, slopes = scores_and_slopes(discriminator, real)
        return scores, gamma / 2 * slopes

    return penalty


def unit_slope(weight: float = 10.0, drift: float = 1e-3) -> Penalty:
    """A slope of one between real and generated images (WGAN-GP, equation 3), and scores of real ones near zero
    (ProGAN).
    """

    def penalty(
        discriminator: Scorer, real: Tensor, fakes: Callable[[], Tensor], draw: Tensor
    ) -> tuple[Tensor, Tensor]:
        scores = discriminator(real)
        share = draw.reshape(-1, *[1] * (real.dim() - 1))
        _, slopes = scores_and_slopes(discriminator, share * real + (1 - share) * fakes())
        return scores, weight * ((slopes + 1e-12).sqrt() - 1).square() + drift * scores.square()

    return penalty
