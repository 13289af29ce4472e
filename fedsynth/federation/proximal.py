"""FedProx at the site (Li et al. 2020): gradients with a pull towards the weights that the round began with."""

from torch import Tensor

from fedsynth.federation.averaging import proximal_pull
from fedsynth.protocol import Draws, Model, Turn
from fedsynth.training.trainer import Gradients


class Proximal:
    """A site's gradients with FedProx's pull towards the received weights; it reads weights only."""

    def __init__(self, gradients: Gradients, family: Model, strength: float) -> None:
        self.gradients, self._family, self._strength = gradients, family, strength
        self._received: dict[str, Tensor] = {}

    def receive(self) -> None:
        """Remember the weights as they are now: the round begins."""
        self._received = {name: value.detach().clone() for name, value in self._family.nets.named_parameters()}

    def __call__(self, turn: Turn, step: int, progress: float, draws: Draws) -> tuple[Tensor, list[Tensor | None]]:
        """See `Gradients`."""
        loss, gradients = self.gradients(turn, step, progress, draws)
        named = self._family.nets[turn.net].named_parameters()
        received = [(value.detach(), self._received[f"{turn.net}.{name}"]) for name, value in named]
        pulls = [proximal_pull(value, start, self._strength) for value, start in received]
        return loss, [None if one is None else one + pull for one, pull in zip(gradients, pulls, strict=True)]
