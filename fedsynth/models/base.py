"""A generator family: the protocol of training, and how images are drawn from it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import RLock
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from fedsynth.data import ImageSet

# The protocol between a model and its training: losses, phases and where random numbers come from, and nothing more.
#
# Real patients reach a network only through `real_loss`. Images are in [-1, 1], masks and labels are one-hot, the
# sample axis comes first everywhere, and every random number of a step arrives in `noise`: so the same function serves
# plain training (its mean), private training (sample by sample under vmap) and the check that samples do not mix.


Tensors: TypeAlias = dict[str, Tensor]
"""Named tensors, sample axis first: `image` (n, C, ...), `mask` (n, L, ...) and `label` (n, K) one-hot, `source`."""


_GLOBAL_RANDOMNESS = RLock()


@contextmanager
def global_randomness(seed: int | None = None) -> Iterator[None]:
    """torch's global random state, which all threads share, for this thread alone: seeded if asked, and put back.

    Layers draw their first weights from it. Hospitals train in threads: without this one would see the other's draws.
    """
    with _GLOBAL_RANDOMNESS, torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        yield


class RandomSource(Protocol):
    """Where random numbers come from: the experiment's seed in plain runs, the operating system in private ones."""

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal float32 values."""

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """Float32 values in [0, 1)."""

    def integers(self, high: int, shape: tuple[int, ...]) -> Tensor:
        """Int64 values in [0, high)."""


class SeededSource:
    """Reproducible draws from one torch generator, made on the CPU so that every device sees the same numbers."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal float32 values."""
        return torch.randn(shape, generator=self.generator)

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """Float32 values in [0, 1)."""
        return torch.rand(shape, generator=self.generator)

    def integers(self, high: int, shape: tuple[int, ...]) -> Tensor:
        """Int64 values in [0, high)."""
        return torch.randint(0, high, shape, generator=self.generator)


@dataclass(frozen=True, kw_only=True)
class ImageShape:
    """What a family is built for. `n_classes` and `n_labels` are 0 where the set has no classes or no masks.

    `n_labels` counts background. `source_channels` is 0 for joint families; a paired family turns a source of that
    many channels into an image, or into a mask where `channels` is 0. The names of channels (of the image, and of the
    source: contrasts or labels), of classes and of labels serve families that know what a name looks like; shapes that
    differ in the names of classes or labels alone are equal.
    """

    channels: int
    size: tuple[int, ...]
    n_classes: int = 0
    n_labels: int = 0
    source_channels: int = 0
    channel_names: tuple[str, ...] = ()
    source_names: tuple[str, ...] = ()
    class_names: tuple[str, ...] = field(default=(), compare=False)
    label_names: tuple[str, ...] = field(default=(), compare=False)

    @property
    def dimensions(self) -> int:
        """2 for images, 3 for volumes."""
        return len(self.size)

    @property
    def joint_channels(self) -> int:
        """Channels of image and one-hot mask together, as joint families make and judge them."""
        return self.channels + self.n_labels


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One optimiser update of one network within a step, taken every `interval` steps.

    `reads_patients` says that the loss has a `real_loss`: under privacy this phase draws, clips, adds noise and is
    charged on its own. A phase without it never receives a batch. `scores_images` says that this loss tells how well an
    image fits, which an attacker would read; a part of another phase's loss does not.
    """

    net: str
    reads_patients: bool
    interval: int = 1
    scores_images: bool = True


class Model(nn.Module, ABC):
    """What training, privacy and federation may know of a generator family or a task network.

    Subclasses build `nets` and write the losses; they hold no optimiser, data or device logic. `phases` is the order of
    updates within a step; `shared` names the networks that a federation averages; `sampler` names those whose moving
    average is what is used in the end; `mixes_samples` admits that a network mixes samples (batch statistics), which
    private training refuses.

    What is fitted rather than trained takes `passes` over all images after the last step. In each `sums` tells sums
    over samples, which sites can add up, and `fit` turns those of everybody into buffers of the networks in `fitted`;
    those in `pooled` ask nothing of trained weights. With `per_patient` what is fitted takes one bounded vector per
    patient (see `statistics`) rather than sums over images. `public` names the public images that these vectors are
    compared with, with a digest: sites and server must have the same.
    """

    phases: tuple[Phase, ...]
    shared: tuple[str, ...]
    sampler: tuple[str, ...]
    passes: int = 0
    fitted: tuple[str, ...] = ()
    pooled: tuple[str, ...] = ()
    per_patient: bool = False
    public: str = ""
    mixes_samples: bool = False
    augment: Callable[[Tensor, Tensors], Tensor] | None = None

    def __init__(self, shape: ImageShape, nets: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.shape = shape
        self.nets = nn.ModuleDict(nets)

    @abstractmethod
    def noise(self, n: int, rng: RandomSource) -> Tensors:
        """All randomness that `n` samples need in any loss or in sampling, sample axis first."""

    def real_loss(self, phase: Phase, batch: Tensors, noise: Tensors, progress: float) -> Tensor:
        """The part of the phase's loss that reads patients, one value per sample (n,). No sample may see another.

        A model without phases has no losses.
        """
        raise NotImplementedError

    def fake_loss(self, phase: Phase, condition: Tensors, noise: Tensors, progress: float) -> Tensor:
        """The part of the phase's loss that reads no patient: one value per fake sample (n,); zeros where there is
        none.

        `condition` holds a public `label` and, for paired families, a public or synthetic `source`.
        """
        raise NotImplementedError

    def sums(self, number: int, batch: Tensors) -> Tensors:
        """What pass `number` needs, added up over the samples: float64 values by `<network>.<name>`.

        A family that is fitted `per_patient` takes the images of one patient as the batch.
        """
        return {}

    def statistics(self, batch: Tensors) -> Tensor:
        """(n, d) float64 vectors of the images of a batch in the order of the batch.

        They are centred, whitened and divided by a public radius: the sum over patients of their mean, clipped to
        norm 1, is all that a fit needs.
        """
        raise NotImplementedError

    def check_members(self, images: "ImageSet") -> None:
        """Refuse images that it must not learn from. For whoever holds them: the refusal must not leave a site."""

    def fit(self, number: int, sums: Tensors) -> None:
        """Set the fitted buffers from the sums of pass `number` over all images."""

    def after_update(self, net: str) -> None:
        """Called after each update of `net`, for what reads nothing but weights (weight clipping)."""

    def stages(self) -> tuple[float, ...]:
        """Values of `progress` that between them use every parameter; growing families name one per stage."""
        return (1.0,)

    def forward(self, phase: Phase, batch: Tensors, noise: Tensors, progress: float) -> Tensor:
        """`real_loss`, so that `torch.func.functional_call` can run it under other parameters."""
        return self.real_loss(phase, batch, noise, progress)


__all__ = ["Family", "ImageShape", "Phase", "RandomSource", "SeededSource", "Tensors", "joined", "parted"]


class Family(Model):
    """A generator family, as `Model` says; `sampler` names the networks that `sample` uses."""

    sampler: tuple[str, ...] = ("generator",)

    def consists_of(self) -> dict[str, Any]:
        """What every drawn set must say of other people's images that it is made of; nothing for most families."""
        return {}

    @abstractmethod
    def sample(self, condition: Tensors, noise: Tensors) -> Tensors:
        """Images in [-1, 1] under `image` and, for joint families of masked sets, label probabilities under `mask`."""

    def seen(self, joint: Tensor, noise: Tensors) -> Tensor:
        """What a discriminator is shown of a real or generated image: the image, augmented where the trainer set
        `augment`.
        """
        return joint if self.augment is None else self.augment(joint, noise)


def joined(batch: Tensors) -> Tensor:
    """Image and mask as one tensor in [-1, 1], channels first: what the discriminator of a joint family sees."""
    if "mask" not in batch:
        return batch["image"]
    return torch.cat([batch["image"], batch["mask"] * 2 - 1], 1)


def parted(joint: Tensor, shape: ImageShape) -> Tensors:
    """The inverse of `joined` for generated tensors: image, and label probabilities where there are labels."""
    image = joint[:, : shape.channels]
    if not shape.n_labels:
        return {"image": image}
    return {"image": image, "mask": (joint[:, shape.channels :] + 1) / 2}
