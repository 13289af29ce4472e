"""Segmentation: the label of every pixel, learnt by cross-entropy and soft Dice together."""

import torch
from torch import Tensor

from fedsynth.protocol import Tensors
from fedsynth.tasks.task import Task

FEWEST_DICE = 0.05
"""With a lower Dice on its own training images a network has collapsed."""


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

    def tally(self, batch: Tensors) -> Tensor:
        """Pixels found and true, found, and true: of the whole lesion first, then of each label."""
        chosen = self.predict(batch["image"]).argmax(1, keepdim=True)
        guess = torch.zeros_like(batch["mask"]).scatter_(1, chosen, 1.0)
        guess, truth = (
            torch.cat([1 - of[:, :1], of[:, 1:]], 1).transpose(0, 1).flatten(1) for of in (guess, batch["mask"])
        )
        return torch.stack([(guess * truth).sum(1), guess.sum(1), truth.sum(1)]).double()

    def quality(self, tally: Tensor) -> float:
        """Dice averaged over the labels that occur: pixels found in images without a lesion count against it."""
        known = tally[2, 1:] > 0
        return float(_dice(tally[:, 1:])[known].mean())

    def collapsed(self, tally: Tensor) -> bool:
        """Hardly a pixel of the lesions is found."""
        return bool(tally[2, 0] > 0 and _dice(tally)[0] < FEWEST_DICE)


def _with_whole(mask: Tensor) -> Tensor:
    """One-hot masks as (whole lesion and labels, pixels)."""
    return torch.cat([1 - mask[:, :1], mask[:, 1:]], 1).transpose(0, 1).flatten(1)


def _dice(tally: Tensor) -> Tensor:
    return 2 * tally[0] / (tally[1] + tally[2])
