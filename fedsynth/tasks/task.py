"""What every task network has in common: one network, one loss that reads patients, and a prediction."""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from fedsynth.protocol import Draws, ImageShape, Model, Tensors, Turn
from fedsynth.tasks.views import Views

NETWORK = "network"


class Task(Model):
    """A network that learns from images what `predict` then says of others; `views` is its classical augmentation."""

    turns = (Turn(net=NETWORK, reads_patients=True),)
    shared = (NETWORK,)
    sampler = (NETWORK,)

    def __init__(self, shape: ImageShape, network: nn.Module, *, views: Views | None = None) -> None:
        super().__init__(shape, {NETWORK: network})
        self.views = views

    @property
    def network(self) -> nn.Module:
        """The only network."""
        return self.nets[NETWORK]

    def noise(self, n: int, draws: Draws) -> Tensors:
        """The parameters of the augmentation; nothing without one."""
        return {} if self.views is None else self.views.noise(n, self.shape.dimensions, draws)

    def private_loss(self, turn: Turn, batch: Tensors, noise: Tensors, progress: float) -> Tensor:
        """The loss of every sample, seen from another side where there is an augmentation."""
        shown = batch if self.views is None else self.views(batch, noise)
        return self.loss(shown)

    def free_loss(self, turn: Turn, condition: Tensors, noise: Tensors, progress: float) -> Tensor:
        """None: a task learns from what it is shown."""
        return torch.zeros(1, device=next(self.parameters()).device)

    @abstractmethod
    def loss(self, batch: Tensors) -> Tensor:
        """The loss of every sample (n,)."""

    @abstractmethod
    def predict(self, image: Tensor) -> Tensor:
        """Probabilities for images in [-1, 1]: (n, labels, ...) of every pixel, or (n, classes)."""

    @abstractmethod
    def tally(self, batch: Tensors) -> Tensor:
        """Hits, answers and truths of each label or class over a batch, (3, n): what `quality` is made from."""

    @abstractmethod
    def quality(self, tally: Tensor) -> float:
        """How well the network does, by a summed tally, in [0, 1]; NaN where there was nothing to be scored."""

    @abstractmethod
    def collapsed(self, tally: Tensor) -> bool:
        """Whether a tally over the network's own training images shows that it learned nothing at all."""
