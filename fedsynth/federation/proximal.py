"""FedProx at a site: a pull towards the received weights in every gradient."""

from torch import Tensor

from fedsynth.federation.strategies import proximal_pull
from fedsynth.models.base import Model, Phase, RandomSource
from fedsynth.training.trainer import Gradients


class Proximal:
    """A site's gradients with FedProx's pull (Li et al. 2020) towards the received weights; it reads weights only."""

    def __init__(self, gradients: Gradients, family: Model, mu: float) -> None:
        self.gradients, self._family, self._mu = gradients, family, mu
        self._received: dict[str, Tensor] = {}

    def receive(self) -> None:
        """Remember the weights as they are now: the round begins."""
        self._received = {name: value.detach().clone() for name, value in self._family.nets.named_parameters()}

    def __call__(
        self, phase: Phase, step: int, progress: float, rng: RandomSource
    ) -> tuple[Tensor, list[Tensor | None]]:
        """See `Gradients`."""
        loss, gradients = self.gradients(phase, step, progress, rng)
        named = self._family.nets[phase.net].named_parameters()
        received = [(value.detach(), self._received[f"{phase.net}.{name}"]) for name, value in named]
        pulls = [proximal_pull(value, start, self._mu) for value, start in received]
        return loss, [None if one is None else one + pull for one, pull in zip(gradients, pulls, strict=True)]
