"""Every task network by name, and what a set must have for it."""

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedsynth.errors import ConfigError, nearest
from fedsynth.models.base import ImageShape, Model, Phase, RandomSource, Tensors
from fedsynth.models.downstream.networks import CLASSIFICATION, SEGMENTATION

# Classical augmentation for tasks: images turned, scaled, shifted and dimmed, and their masks with them.
#
# Sampled into plain parameters first, which travel in `noise` like every other random number. No mirroring: left and
# right differ.


TURN, SCALE, SHIFT, LIGHT = "view-turn", "view-scale", "view-shift", "view-light"


@dataclass(frozen=True, kw_only=True)
class Views:
    """How strong: the largest turn in degrees, and change of size, place (shares of the image), gamma and contrast."""

    turn: float = 15.0
    scale: float = 0.1
    shift: float = 0.06
    light: float = 0.25

    def noise(self, n: int, dimensions: int, rng: RandomSource) -> Tensors:
        """The parameters of `n` views, each in [0, 1)."""
        planes = 1 if dimensions == 2 else 3
        shapes = {TURN: (n, planes), SCALE: (n,), SHIFT: (n, dimensions), LIGHT: (n, 2)}
        return {name: rng.uniform(shape) for name, shape in shapes.items()}

    def __call__(self, batch: Tensors, noise: Tensors) -> Tensors:
        """The batch seen anew; what comes into the picture from outside is background."""
        image = batch["image"] + 1  # background becomes zero, which is what comes in from outside
        grid = functional.affine_grid(self._matrix(noise), list(image.shape), align_corners=False)
        moved = functional.grid_sample(image, grid, align_corners=False)
        seen = dict(batch, image=self._dimmed(moved, noise) - 1)
        if "mask" in batch:
            mask = functional.grid_sample(batch["mask"], grid, mode="nearest", align_corners=False)
            background = mask[:, :1] + (1 - mask.sum(1, keepdim=True))
            seen["mask"] = torch.cat([background, mask[:, 1:]], 1)
        return seen

    def _matrix(self, noise: Tensors) -> Tensor:
        """From places in the new picture to places in the old one, (n, d, d + 1)."""
        turns = (noise[TURN] * 2 - 1) * math.radians(self.turn)
        n, d = noise[SHIFT].shape
        matrix = torch.eye(d, device=turns.device).repeat(n, 1, 1)
        pairs = [(0, 1)] if d == 2 else [(0, 1), (0, 2), (1, 2)]
        for number, (i, j) in enumerate(pairs):
            turn = torch.eye(d, device=turns.device).repeat(n, 1, 1)
            cosine, sine = turns[:, number].cos(), turns[:, number].sin()
            turn[:, i, i], turn[:, j, j], turn[:, i, j], turn[:, j, i] = cosine, cosine, -sine, sine
            matrix = matrix @ turn
        scale = 1 + (noise[SCALE] * 2 - 1) * self.scale
        shift = (noise[SHIFT] * 2 - 1) * 2 * self.shift
        return torch.cat([matrix * scale[:, None, None], shift[:, :, None]], 2)

    def _dimmed(self, image: Tensor, noise: Tensors) -> Tensor:
        each = (-1, *[1] * (image.dim() - 1))
        gamma = torch.exp((noise[LIGHT][:, 0] * 2 - 1) * self.light).reshape(each)
        gain = (1 + (noise[LIGHT][:, 1] * 2 - 1) * self.light).reshape(each)
        return (2 * (image / 2).clamp(min=1e-6) ** gamma * gain).clamp(max=2)


# What every task network has in common: one network, one loss that reads patients, and a prediction.


NETWORK = "network"


class Task(Model):
    """A network that learns from images what `predict` then says of others; `views` is its classical augmentation."""

    phases = (Phase(net=NETWORK, reads_patients=True),)
    shared = (NETWORK,)
    sampler = (NETWORK,)

    def __init__(self, shape: ImageShape, network: nn.Module, *, views: Views | None = None) -> None:
        super().__init__(shape, {NETWORK: network})
        self.views = views

    @property
    def network(self) -> nn.Module:
        """The only network."""
        return self.nets[NETWORK]

    def noise(self, n: int, rng: RandomSource) -> Tensors:
        """The parameters of the augmentation; nothing without one."""
        return {} if self.views is None else self.views.noise(n, self.shape.dimensions, rng)

    def real_loss(self, phase: Phase, batch: Tensors, noise: Tensors, progress: float) -> Tensor:
        """The loss of every sample, seen from another side where there is an augmentation."""
        shown = batch if self.views is None else self.views(batch, noise)
        return self.loss(shown)

    def fake_loss(self, phase: Phase, condition: Tensors, noise: Tensors, progress: float) -> Tensor:
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


# Classification: the class of every image, learnt by cross-entropy. Images without a class teach nothing.


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


# Segmentation: the label of every pixel, learnt by cross-entropy and soft Dice together.


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


def _dice(tally: Tensor) -> Tensor:
    return 2 * tally[0] / (tally[1] + tally[2])


NETWORKS = {**dict.fromkeys(SEGMENTATION, "segmentation"), **dict.fromkeys(CLASSIFICATION, "classification")}
"""What each network is for."""


def build_task(network: str, shape: ImageShape, *, augment: bool = False) -> Task:
    """A new one, its first weights drawn from torch's generator. Unknown names and sets without targets are refused."""
    if network not in NETWORKS:
        remedy = nearest(network, NETWORKS) or f"there are {', '.join(NETWORKS)}"
        raise ConfigError("there is no task network of that name", value=network, remedy=remedy)
    views = Views() if augment else None
    if network in SEGMENTATION:
        if shape.n_labels < 2:
            raise ConfigError("segmentation needs masks, and the set has none", remedy="give a set with masks")
        return Segmentation(shape, SEGMENTATION[network](shape, shape.n_labels), views=views)
    if shape.n_classes < 2:
        remedy = "give a set whose images have classes"
        raise ConfigError("classification needs two classes or more", value=shape.n_classes, remedy=remedy)
    return Classification(shape, CLASSIFICATION[network](shape, shape.n_classes), views=views)
