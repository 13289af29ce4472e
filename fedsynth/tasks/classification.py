"""Classification: the class of every image, learnt by cross-entropy. Images without a class teach nothing."""

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
