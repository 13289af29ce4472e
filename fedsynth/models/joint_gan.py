"""The joint GAN: a generator makes image and mask from noise and a class, a discriminator scores both together.

Families differ in their two networks, the objective and the penalty. The real half of the discriminator's loss is the
only place where patients are read; generated images reach the discriminator through `fake_loss`, without gradient to
the generator.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from fedsynth.models.base import Family, ImageShape, Phase, RandomSource, Tensors, joined, parted
from fedsynth.models.objectives import Objective, Penalty, Scorer, unpenalised

DISCRIMINATOR = Phase(net="discriminator", reads_patients=True)
GENERATOR = Phase(net="generator", reads_patients=False)


class Generator(nn.Module, ABC):
    """From noise and a class to image and mask as one tensor, labels as probabilities scaled to [-1, 1]."""

    @abstractmethod
    def noise(self, n: int, rng: RandomSource) -> Tensors:
        """All the random numbers that `n` images need."""

    @abstractmethod
    def forward(self, label: Tensor | None, noise: Tensors, progress: float) -> Tensor:
        """What the discriminator is shown in training (n, channels + labels, ...)."""

    def draw(self, label: Tensor | None, noise: Tensors) -> Tensor:
        """What is released; at full size, where training shows something else."""
        made: Tensor = self(label, noise, 1.0)
        return made

    def settle(self) -> None:
        """Fold what the last forward pass in training saw into buffers; called after an update, never inside a loss."""


class JointGan(Family):
    """A GAN over image and mask. The discriminator is called as `discriminator(joint, label, progress)` and returns
    scores (n,).
    """

    phases: tuple[Phase, ...] = (DISCRIMINATOR, GENERATOR)
    shared = ("generator", "discriminator")

    def __init__(
        self,
        shape: ImageShape,
        *,
        generator: Generator,
        discriminator: nn.Module,
        objective: Objective,
        penalty: Penalty = unpenalised,
        mixes_samples: bool = False,
    ) -> None:
        super().__init__(shape, {"generator": generator, "discriminator": discriminator})
        self.objective, self.penalty, self.mixes_samples = objective, penalty, mixes_samples

    @property
    def generator(self) -> Generator:
        """The generating network."""
        net = self.nets["generator"]
        assert isinstance(net, Generator)
        return net

    def noise(self, n: int, rng: RandomSource) -> Tensors:
        """The generator's noise, and where between real and generated images a penalty looks."""
        return {**self.generator.noise(n, rng), "between": rng.uniform((n,))}

    def real_loss(self, phase: Phase, batch: Tensors, noise: Tensors, progress: float) -> Tensor:
        """The discriminator's loss on real images, with the penalties that read them."""
        label = batch.get("label")
        real = self.seen(self.staged(joined(batch), progress), noise)
        scorer = self.scorer(label, progress)
        scores, penalty = self.penalty(scorer, real, lambda: self.fakes(label, noise, progress), noise["between"])
        return self.objective.real(scores) + penalty

    def fake_loss(self, phase: Phase, condition: Tensors, noise: Tensors, progress: float) -> Tensor:
        """The discriminator's loss on generated images, and the generator's."""
        label = condition.get("label")
        scorer = self.scorer(label, progress)
        if phase.net == "discriminator":
            return self.objective.fake(scorer(self.fakes(label, noise, progress)))
        return self.objective.generator(scorer(self.made(label, noise, progress)))

    def sample(self, condition: Tensors, noise: Tensors) -> Tensors:
        """Images cut to [-1, 1], and label probabilities where there are masks."""
        return parted(self.generator.draw(condition.get("label"), noise).clamp(-1, 1), self.shape)

    def scorer(self, label: Tensor | None, progress: float) -> Scorer:
        """The discriminator at one stage of growth, for images of these classes."""
        discriminator = self.nets["discriminator"]
        return lambda joint: discriminator(joint, label, progress)

    def made(self, label: Tensor | None, noise: Tensors, progress: float) -> Tensor:
        """Generated images as the discriminator sees them."""
        return self.seen(self.generator(label, noise, progress), noise)

    def fakes(self, label: Tensor | None, noise: Tensors, progress: float) -> Tensor:
        """Generated images through which nothing flows back to the generator."""
        with torch.no_grad():
            return self.made(label, noise, progress).detach()

    def staged(self, joint: Tensor, progress: float) -> Tensor:
        """A real image at the size that the generator makes at this stage; growing families shrink it."""
        return joint

    def after_update(self, net: str) -> None:
        """Let the generator fold what it saw into its buffers."""
        if net == "generator":
            self.generator.settle()
