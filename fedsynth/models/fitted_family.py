"""A family that a fit to one noisy sum of bounded vectors tells which images of a public pool resemble the patients.

Its simulator knows no patients. The mean of the patients' vectors says which of its pseudo-patients resemble them: a
pool of those is tilted, resampled and shown anew until its mean is about theirs. What the sum says, and the noise on
it, is all that the release depends on. Beside it stands a placebo: the same fit to a mean as far from the pool's in a
random direction, so that its pool is narrowed as much. What the fitted family teaches beyond the placebo is what
patients gave.
"""

import hashlib
from collections.abc import Callable
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from fedsynth.errors import FedSynthError
from fedsynth.models import image_statistics, public_pool
from fedsynth.models.base import Family, Phase, RandomSource, Tensors
from fedsynth.models.moment_matching import Target, Whitening
from fedsynth.models.pseudo_patient import PseudoPatient, Shown, Vector
from fedsynth.models.public_pool import PoolSettings, Simulator

NET, PLACEBO = "simulator", "placebo"
Arm = Literal["fitted", "placebo", "public"]

SMALL_STEP = 0.03
"""How far an image's style departs from its parent's, as a share of the range."""
DRAWS = 2**62
PARTS, PARTS_WITH_CLASSES = 24, 32
"""Of a patient's vector, unless said otherwise."""


class Parents(nn.Module):
    """The pseudo-patients that images are drawn near to: number, class, style and weight of each.

    `content` is the digest of the public images that their numbers count, where there are some.
    """

    numbers: Tensor
    labels: Tensor
    styles: Tensor
    weights: Tensor

    def __init__(self, count: int, parts: int, content: bytes = b"") -> None:
        super().__init__()
        self.register_buffer("numbers", torch.zeros(count, dtype=torch.int64))
        self.register_buffer("labels", torch.zeros(count, dtype=torch.int64))
        self.register_buffer("styles", torch.zeros(count, parts, dtype=torch.float64))
        self.register_buffer("weights", torch.zeros(count, dtype=torch.float64))
        if content:
            self.register_buffer("content", torch.tensor(list(content), dtype=torch.uint8))

    def of(self, content: bytes) -> bool:
        """Whether they were chosen from these public images."""
        return not content or bytes(self.get_buffer("content").tolist()) == content

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Parents":
        """Stay on the CPU wherever the family goes: images are rendered there."""
        return self


class FittedFamily(Family):
    """Draws slices of pseudo-patients; it takes no step. `arm` says which of its three ways `sample` goes."""

    phases: tuple[Phase, ...] = ()
    shared = (NET, PLACEBO)
    sampler = (NET, PLACEBO)
    passes = 1
    fitted = (NET, PLACEBO)
    per_patient = True

    def __init__(
        self, simulator: Simulator, settings: PoolSettings, *, parts: int, wide: float, private: bool = False
    ) -> None:
        count = settings.children if settings.generations else settings.patients
        parents = [Parents(count, simulator.limits.shape[1], simulator.content) for _ in (NET, PLACEBO)]
        super().__init__(simulator.shape, dict(zip((NET, PLACEBO), parents, strict=True)))
        self.simulator, self.settings, self.wide = simulator, settings, wide
        self.parts = parts or (PARTS_WITH_CLASSES if simulator.shape.n_classes else PARTS)
        self.private = private
        self.public = public_pool.identity(simulator, settings, self.parts)
        self.arm: Arm = "fitted"
        self._fits: dict[bytes, tuple[Tensors, Tensors]] = {}

    @cached_property
    def whitening(self) -> Whitening:
        """Of the public pool, which is made or read when first asked for."""
        return public_pool.whitening(self.simulator, self.settings, self.parts)

    def noise(self, n: int, rng: RandomSource) -> Tensors:
        """A seed for each image."""
        return {"draw": rng.integers(DRAWS, (n,))}

    def statistics(self, batch: Tensors) -> Tensor:
        """See `Model`: the whitened statistics of each image and its mask."""
        images = (batch["image"].detach().cpu().double().numpy() + 1) / 2
        blank = np.zeros((len(images), *self.shape.size), np.int64)
        masks = batch["mask"].argmax(1).cpu().numpy() if "mask" in batch else blank
        layout = self.simulator.layout
        found = [image_statistics.measured(image, mask, layout) for image, mask in zip(images, masks, strict=True)]
        return torch.from_numpy(self.whitening(np.stack(found)))

    def fit(self, number: int, sums: Tensors) -> None:
        """Fit the simulator to the sum over patients, and the placebo to a sum as long in a random direction."""
        total = sums[f"{NET}.total"].cpu().double().numpy()
        patients, variance = (float(sums[f"{NET}.{name}"]) for name in ("patients", "variance"))
        if self.private and not variance > 0:
            raise FedSynthError("a private fit needs noise on its sum", remedy="fit it through the mechanism")
        key = np.array([patients, variance, *total]).tobytes()
        if key not in self._fits:
            other = _direction(key, len(total)) * np.linalg.norm(total)
            made = (self._parents(total, patients, variance), self._parents(other, patients, variance))
            self._fits = {key: made}  # a sheet of samples and the end of a run ask for the same fit
        for net, state in zip((NET, PLACEBO), self._fits[key], strict=True):
            own = self.nets[net]
            own.load_state_dict(own.state_dict() | state)

    def _parents(self, total: Vector, patients: float, variance: float) -> Tensors:
        n = max(patients, 1.0)
        target = Target(mean=total / n, variance=variance / n**2, radius=self.whitening.radius)
        pool, weights = public_pool.evolved(self.simulator, self.settings, self.whitening, target)
        found = {"numbers": pool.numbers, "labels": pool.labels, "styles": pool.styles, "weights": weights}
        return {name: torch.from_numpy(value) for name, value in found.items()}

    def sample(self, condition: Tensors, noise: Tensors) -> Tensors:
        """Slices of pseudo-patients of the wanted classes, each rendered for itself."""
        self._check_content()
        seeds = noise["draw"].cpu().tolist()
        labels = [None] * len(seeds) if "label" not in condition else self._labels(condition["label"])
        parents = None if self.arm == "public" else self._drawn_from()
        shown = [self._slice(parents, label, seed) for label, seed in zip(labels, seeds, strict=True)]
        image = torch.from_numpy(np.stack([image for image, _ in shown])).float() / 255 * 2 - 1
        device = noise["draw"].device
        if not self.shape.n_labels:
            return {"image": image.to(device)}
        mask = torch.eye(self.shape.n_labels)[torch.from_numpy(np.stack([mask for _, mask in shown])).long()]
        return {"image": image.to(device), "mask": mask.movedim(-1, 1).to(device)}

    def _labels(self, label: Tensor) -> list[int | None]:
        """The simulator's label for each one-hot class; None where it knows none."""
        classes = self.simulator.classes
        return [classes[int(row.argmax())] if row.any() else None for row in label.cpu()]

    def _check_content(self) -> None:
        parents = self.nets[NET]
        assert isinstance(parents, Parents)
        if not parents.of(self.simulator.content):
            problem = "the generator belongs to other public images than those that lie there now"
            raise FedSynthError(problem, value=self.simulator.name, remedy="put the public set back as it was")

    def _drawn_from(self) -> Parents:
        parents = self.nets[NET if self.arm == "fitted" else PLACEBO]
        assert isinstance(parents, Parents)
        if not parents.weights.any():
            remedy = "finish the run; images of the public pool alone need no fit"
            raise FedSynthError("the simulator is not fitted to any patient yet", remedy=remedy)
        return parents

    def _slice(self, parents: Parents | None, label: int | None, seed: int) -> Shown:
        rng = np.random.default_rng(seed)
        wide = rng.random() < self.wide
        if parents is None or wide or (parent := self._parent(parents, label, rng)) is None:
            patient = self.simulator.draw(rng, label)
        else:
            patient = parent.child(self.simulator.limits, rng, SMALL_STEP)
        return self.simulator.slices(patient, rng, 1)[0]

    def _parent(self, parents: Parents, label: int | None, rng: np.random.Generator) -> PseudoPatient | None:
        """One of the parents of the class, by weight; None where there is none."""
        weights = parents.weights.numpy() * (1 if label is None else parents.labels.numpy() == label)
        if not weights.sum() > 0:
            return None
        row = int(np.searchsorted(weights.cumsum(), rng.random() * weights.sum(), side="right"))
        row = min(row, len(weights) - 1)
        number, drawn = int(parents.numbers[row]), int(parents.labels[row])
        return PseudoPatient(number=number, label=drawn, style=parents.styles[row].numpy())


def _direction(released: bytes, length: int) -> Vector:
    """A random unit vector for the placebo, another for every release; whoever has the release can draw it again."""
    seed = int.from_bytes(hashlib.sha256(PLACEBO.encode() + released).digest()[:8], "big")
    drawn = np.random.default_rng(seed).standard_normal(length)
    return drawn / np.linalg.norm(drawn)
