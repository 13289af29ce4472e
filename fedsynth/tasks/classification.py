"""Classification: the class of every image, learnt by cross-entropy. Images without a class teach nothing."""

import torch
from torch import Tensor

from fedsynth.protocol import Tensors
from fedsynth.tasks.task import Task


class Classification(Task):
    """Learns `label` from `image`."""

    def loss(self, batch: Tensors) -> Tensor:
        """Cross-entropy; zero where the label is empty."""
        scores: Tensor = self.network(batch["image"])
        return -(batch["label"] * scores.log_softmax(1)).sum(1)

    def predict(self, image: Tensor) -> Tensor:
        """Class probabilities (n, classes)."""
        made: Tensor = self.network(image).softmax(1)
        return made

    def tally(self, batch: Tensors) -> Tensor:
        """Summed probability of the true class, images called so, and images that are so, by class."""
        chances, truth = self.predict(batch["image"]), batch["label"]
        called = torch.eye(chances.shape[1], device=chances.device)[chances.argmax(1)]
        return torch.stack([(chances * truth).sum(0), called.sum(0), truth.sum(0)]).double()

    def quality(self, tally: Tensor) -> float:
        """The mean probability of the true class, averaged over the classes: smoother than accuracy."""
        known = tally[2] > 0
        return float((tally[0, known] / tally[2, known]).mean())

    def collapsed(self, tally: Tensor) -> bool:
        """All images are called the same, and they are not."""
        return bool((tally[1] > 0).sum() == 1 and (tally[2] > 0).sum() > 1)
