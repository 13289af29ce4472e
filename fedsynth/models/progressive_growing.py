"""Growing networks: which stage a run has reached is a function of its global progress alone, so all sites agree.

All stages exist from the start, and shapes never change; a stage that is not reached is not used.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedsynth.models.base import Phase, Tensors
from fedsynth.models.joint_gan import Generator, JointGan
from fedsynth.models.layers import halve, repeat


@dataclass(frozen=True, kw_only=True)
class Growth:
    """A schedule: growing takes the first `share` of the run. A stage fades in, then stands as long."""

    n_stages: int
    share: float = 0.5

    @property
    def _unit(self) -> float:
        return self.share / max(0.5, self.n_stages - 0.5)

    def at(self, progress: float) -> tuple[int, float]:
        """The stage (0 is the smallest) and how far it has faded in, in [0, 1]."""
        place = progress / self._unit
        stage = min(int(place), self.n_stages - 1)
        return stage, 1.0 if stage == 0 else min(1.0, 2 * (place - stage))

    def stages(self) -> tuple[float, ...]:
        """A progress within each stage, halfway through its fading-in, where two stages are in use; and the end."""
        return (0.0, *((stage + 0.25) * self._unit for stage in range(1, self.n_stages)), 1.0)


def faded(new: Tensor, old: Tensor, share: float) -> Tensor:
    """From the old path to the new one as `share` goes from 0 to 1."""
    return old + share * (new - old)


class GrowingGenerator(Generator):
    """A generator that remembers how far it was grown when last trained, and releases what that stage makes."""

    grown: Tensor

    def __init__(self, growth: Growth) -> None:
        super().__init__()
        self.growth = growth
        self.reached = 0.0
        self.register_buffer("grown", torch.zeros(()))

    def draw(self, label: Tensor | None, noise: Tensors) -> Tensor:
        """The stage's picture, its pixels repeated up to full size."""
        made = self.released(label, noise, float(self.grown))
        for _ in range(self.growth.n_stages - 1 - self.growth.at(float(self.grown))[0]):
            made = repeat(made)
        return made

    def released(self, label: Tensor | None, noise: Tensors, progress: float) -> Tensor:
        """Image and mask at the size of the stage, as they are released."""
        made: Tensor = self(label, noise, progress)
        return made

    def settle(self) -> None:
        """Remember the progress of the last update."""
        self.grown.fill_(self.reached)


class GrowingGan(JointGan):
    """A joint GAN whose networks grow together; real images shrink, and fade, as the made ones do."""

    @property
    def growth(self) -> Growth:
        """The schedule of both networks."""
        assert isinstance(self.generator, GrowingGenerator)
        return self.generator.growth

    def staged(self, joint: Tensor, progress: float) -> Tensor:
        """Averaged down to the stage; while it fades in, mixed with the stage before (ProGAN, section 2)."""
        stage, share = self.growth.at(progress)
        for _ in range(self.growth.n_stages - 1 - stage):
            joint = halve(joint)
        return joint if share == 1 else faded(joint, repeat(halve(joint)), share)

    def fake_loss(self, phase: Phase, condition: Tensors, noise: Tensors, progress: float) -> Tensor:
        """As any joint GAN's; notes the progress of the generator's phase."""
        if phase.net == "generator" and isinstance(self.generator, GrowingGenerator):
            self.generator.reached = progress
        return super().fake_loss(phase, condition, noise, progress)

    def stages(self) -> tuple[float, ...]:
        """One progress per stage, each while it fades in, and the end."""
        return self.growth.stages()
