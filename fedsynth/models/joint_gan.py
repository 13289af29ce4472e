"""The joint GAN: a generator makes image and mask from noise and a class, a critic judges both together.

Families differ in their two networks, the objective and the penalty. The real half of the critic's loss is the only
place where patients are read; made images reach the critic through `free_loss`, without gradient to the generator.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from fedsynth.models.base import Draws, Family, ImageShape, Tensors, Turn, joined, parted
from fedsynth.models.objectives import Judge, Objective, Penalty, unpenalised

CRITIC = Turn(net="critic", reads_patients=True)
GENERATOR = Turn(net="generator", reads_patients=False)


class Generator(nn.Module, ABC):
    """From noise and a class to image and mask as one tensor, labels as probabilities scaled to [-1, 1]."""

    @abstractmethod
    def noise(self, n: int, draws: Draws) -> Tensors:
        """All the random numbers that `n` images need."""

    @abstractmethod
    def forward(self, label: Tensor | None, noise: Tensors, progress: float) -> Tensor:
        """What the critic is shown in training (n, channels + labels, ...)."""

    def draw(self, label: Tensor | None, noise: Tensors) -> Tensor:
        """What is released; at full size, where training shows something else."""
        made: Tensor = self(label, noise, 1.0)
        return made

    def settle(self) -> None:
        """Fold what the last forward pass in training saw into buffers; called after an update, never inside a loss."""


class JointGan(Family):
    """A GAN over image and mask. The critic is called as `critic(joint, label, progress)` and returns scores (n,)."""

    turns: tuple[Turn, ...] = (CRITIC, GENERATOR)
    shared = ("generator", "critic")

    def __init__(
        self,
        shape: ImageShape,
        *,
        generator: Generator,
        critic: nn.Module,
        objective: Objective,
        penalty: Penalty = unpenalised,
        couples_samples: bool = False,
    ) -> None:
        super().__init__(shape, {"generator": generator, "critic": critic})
        self.objective, self.penalty, self.couples_samples = objective, penalty, couples_samples

    @property
    def generator(self) -> Generator:
        """The generating network."""
        net = self.nets["generator"]
        assert isinstance(net, Generator)
        return net

    def noise(self, n: int, draws: Draws) -> Tensors:
        """The generator's noise, and where between real and made images a penalty looks."""
        return {**self.generator.noise(n, draws), "between": draws.uniform((n,))}

    def private_loss(self, turn: Turn, batch: Tensors, noise: Tensors, progress: float) -> Tensor:
        """The critic's loss on real images, with the penalties that read them."""
        label = batch.get("label")
        real = self.seen(self.staged(joined(batch), progress), noise)
        judge = self.judge(label, progress)
        scores, penalty = self.penalty(judge, real, lambda: self.fakes(label, noise, progress), noise["between"])
        return self.objective.real(scores) + penalty

    def free_loss(self, turn: Turn, condition: Tensors, noise: Tensors, progress: float) -> Tensor:
        """The critic's loss on made images, and the generator's."""
        label = condition.get("label")
        judge = self.judge(label, progress)
        if turn.net == "critic":
            return self.objective.fake(judge(self.fakes(label, noise, progress)))
        return self.objective.generator(judge(self.made(label, noise, progress)))

    def sample(self, condition: Tensors, noise: Tensors) -> Tensors:
        """Images cut to [-1, 1], and label probabilities where there are masks."""
        return parted(self.generator.draw(condition.get("label"), noise).clamp(-1, 1), self.shape)

    def judge(self, label: Tensor | None, progress: float) -> Judge:
        """The critic at one stage of growth, for images of these classes."""
        critic = self.nets["critic"]
        return lambda joint: critic(joint, label, progress)

    def made(self, label: Tensor | None, noise: Tensors, progress: float) -> Tensor:
        """Made images as the critic sees them."""
        return self.seen(self.generator(label, noise, progress), noise)

    def fakes(self, label: Tensor | None, noise: Tensors, progress: float) -> Tensor:
        """Made images through which nothing flows back to the generator."""
        with torch.no_grad():
            return self.made(label, noise, progress).detach()

    def staged(self, joint: Tensor, progress: float) -> Tensor:
        """A real image at the size that the generator makes at this stage; growing families shrink it."""
        return joint

    def after_update(self, net: str) -> None:
        """Let the generator fold what it saw into its buffers."""
        if net == "generator":
            self.generator.settle()
