"""WGAN (Arjovsky et al. 2017), its critic held in bounds by clipping weights, and WGAN-GP (Gulrajani et al. 2017), by
a penalty on its slope. The networks are those of DCGAN.
"""

import torch

from fedsynth.models.base import ImageShape, Phase
from fedsynth.models.generators.catalog import Entry, Recipe, register
from fedsynth.models.generators.dcgan import networks
from fedsynth.models.joint_gan import DISCRIMINATOR, JointGan
from fedsynth.models.layers import halving_problem
from fedsynth.models.objectives import WASSERSTEIN, unit_slope


class ClippedGan(JointGan):
    """After each update the critic's weights are cut to [-limit, limit]."""

    limit: float = 0.05

    def after_update(self, net: str) -> None:
        """Cut the weights: this reads nothing else, so it costs no privacy."""
        super().after_update(net)
        if net == "discriminator":
            with torch.no_grad():
                for weight in self.nets[net].parameters():
                    weight.clamp_(-self.limit, self.limit)


def _phases(discriminator_steps: int) -> tuple[Phase, ...]:
    return (DISCRIMINATOR, Phase(net="generator", reads_patients=False, interval=discriminator_steps))


def build_clipped(
    shape: ImageShape,
    *,
    private: bool = False,
    latent: int = 64,
    base: int | None = None,
    limit: float = 0.05,
    discriminator_steps: int = 2,
) -> ClippedGan:
    """A new WGAN; the generator moves at every `critic_steps`-th step."""
    generator, discriminator = networks(shape, private, latent, base)
    family = ClippedGan(shape, generator=generator, discriminator=discriminator, objective=WASSERSTEIN)
    family.limit, family.phases = limit, _phases(discriminator_steps)
    family.after_update("discriminator")
    return family


def build_penalised(
    shape: ImageShape,
    *,
    private: bool = False,
    latent: int = 64,
    base: int | None = None,
    weight: float = 10.0,
    discriminator_steps: int = 2,
) -> JointGan:
    """A new WGAN-GP; the generator moves at every `critic_steps`-th step."""
    generator, discriminator = networks(shape, private, latent, base)
    family = JointGan(
        shape, generator=generator, discriminator=discriminator, objective=WASSERSTEIN, penalty=unit_slope(weight)
    )
    family.phases = _phases(discriminator_steps)
    return family


register(
    Entry(
        name="wgan",
        summary="Wasserstein GAN with clipped weights: steady, but a weak critic",
        kind="joint",
        private="discriminator: fast path",
        build=build_clipped,
        recipe=Recipe(steps=6000, rate=1e-3, betas=(0.0, 0.9), augment=False),
        check_size=halving_problem,
    )
)
register(
    Entry(
        name="wgan-gp",
        summary="Wasserstein GAN with a penalty on the critic's slope",
        kind="joint",
        private="discriminator: vmap(grad)",
        build=build_penalised,
        recipe=Recipe(steps=4000, rate=1e-3, betas=(0.0, 0.9), augment=False),
        check_size=halving_problem,
    )
)
