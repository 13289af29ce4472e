"""Segmentation: the label of every pixel, learnt by cross-entropy and soft Dice together."""

from torch import Tensor

from fedsynth.protocol import Tensors
from fedsynth.tasks.task import Task


class Segmentation(Task):
    """Learns `mask` from `image`."""

    def loss(self, batch: Tensors) -> Tensor:
        """Cross-entropy plus one minus soft Dice (Milletari 2016), averaged over the labels that are in the picture.

        An absent label is left to the cross-entropy: its Dice would punish every pixel as much as a whole tumour.
        """
        scores: Tensor = self.network(batch["image"]).flatten(2)
        truth = batch["mask"].flatten(2)
        entropy = -(truth * scores.log_softmax(1)).sum(1).mean(1)
        guess, truth = scores.softmax(1)[:, 1:], truth[:, 1:]
        present = (truth.sum(2) > 0).to(guess.dtype)
        dice = (2 * (guess * truth).sum(2) + 1) / (guess.sum(2) + truth.sum(2) + 1)
        return entropy + ((1 - dice) * present).sum(1) / present.sum(1).clamp(min=1)

    def predict(self, image: Tensor) -> Tensor:
        """Label probabilities (n, labels, ...)."""
        made: Tensor = self.network(image).softmax(1)
        return made
