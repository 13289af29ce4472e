"""A generator family: the protocol of training, and how images are drawn from it."""

from abc import abstractmethod

import torch
from torch import Tensor

from fedsynth.protocol import Draws, ImageShape, Model, SeededDraws, Tensors, Turn

__all__ = ["Draws", "Family", "ImageShape", "SeededDraws", "Tensors", "Turn", "joined", "parted"]


class Family(Model):
    """A generator family, as `Model` says; `sampler` names the networks that `sample` uses."""

    sampler: tuple[str, ...] = ("generator",)

    @abstractmethod
    def sample(self, condition: Tensors, noise: Tensors) -> Tensors:
        """Images in [-1, 1] under `image` and, for joint families of masked sets, label probabilities under `mask`."""

    def seen(self, joint: Tensor, noise: Tensors) -> Tensor:
        """What a critic is shown of a real or made image: the image, augmented where the trainer set `augment`."""
        return joint if self.augment is None else self.augment(joint, noise)


def joined(batch: Tensors) -> Tensor:
    """Image and mask as one tensor in [-1, 1], channels first: what the critic of a joint family sees."""
    if "mask" not in batch:
        return batch["image"]
    return torch.cat([batch["image"], batch["mask"] * 2 - 1], 1)


def parted(joint: Tensor, shape: ImageShape) -> Tensors:
    """The inverse of `joined` for generated tensors: image, and label probabilities where there are labels."""
    image = joint[:, : shape.channels]
    if not shape.n_labels:
        return {"image": image}
    return {"image": image, "mask": (joint[:, shape.channels :] + 1) / 2}
