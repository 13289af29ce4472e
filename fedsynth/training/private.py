"""Private steps: real patients reach the critic through the guarded door, everything else is made from public numbers.

Every random number of a private run comes from the door's own randomness, never from the experiment's seed. The fakes
of a step are a fixed public number; each is clipped like a real image, which costs nothing and keeps the two halves
in balance.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fedsynth.errors import ConfigError
from fedsynth.generators.augment import Augmentation
from fedsynth.privacy.door import Door, draw_views
from fedsynth.privacy.gradients import PatientGradients
from fedsynth.privacy.independence import check_independence
from fedsynth.privacy.plan import PrivateSettings
from fedsynth.privacy.randomness import Randomness
from fedsynth.protocol import Draws, ImageShape, Model, SeededDraws, Tensors, Turn
from fedsynth.training.holder import Holder
from fedsynth.training.trainer import draw_labels

PROBES = 4
FAKES = 128


def private_turns(family: Model) -> list[Turn]:
    """The turns that read patients, each of which draws and is charged on its own."""
    return [turn for turn in family.turns if turn.reads_patients]


def steps_by_turn(family: Model, steps: int, *, first: int = 0) -> dict[str, int]:
    """How often each private turn is taken in the steps `first` to `first + steps`."""
    return {
        turn.net: sum(step % turn.every == 0 for step in range(first, first + steps)) for turn in private_turns(family)
    }


class PrivateParts:
    """The losses of a family as the door wants them: checked for independence, ready to be clipped per patient."""

    def __init__(self, family: Model, settings: PrivateSettings, *, augmentation: Augmentation | None) -> None:
        family.augment = augmentation
        self.family, self.augmentation, self.settings = family, augmentation, settings
        _refuse_shared_nets(family)
        self.real = {turn.net: self._gradients(turn) for turn in private_turns(family)}
        self.made = {turn.net: self._fake_gradients(turn) for turn in private_turns(family)}

    def noise(self, n: int, draws: Draws) -> Tensors:
        """The random numbers of `n` samples, augmentation included."""
        noise = self.family.noise(n, draws)
        if self.augmentation is not None:
            noise |= self.augmentation.noise(n, self.family.shape.dimensions, draws)
        return noise

    def _gradients(self, turn: Turn) -> PatientGradients:
        def loss(batch: Tensors, noise: Tensors, progress: float) -> Tensor:
            return self.family.private_loss(turn, batch, noise, progress)

        net, settings = self.family.nets[turn.net], self.settings
        probe = self._probe(made_up_batch(self.family.shape, PROBES))
        check_independence(self.family, net, loss, probe, stages=self.family.stages())
        growing = len(self.family.stages()) > 1
        return PatientGradients(
            net, loss, clip=settings.clip, views=settings.views, probe=probe, growing=growing, whole=self.family
        )

    def _fake_gradients(self, turn: Turn) -> PatientGradients:
        def loss(condition: Tensors, noise: Tensors, progress: float) -> Tensor:
            return self.family.free_loss(turn, condition, noise, progress)

        condition = {key: value for key, value in made_up_batch(self.family.shape, PROBES).items() if key == "label"}
        probe = self._probe(condition)
        growing = len(self.family.stages()) > 1
        net = self.family.nets[turn.net]
        return PatientGradients(net, loss, clip=self.settings.clip, probe=probe, growing=growing, whole=self.family)

    def _probe(self, batch: Tensors) -> tuple[Tensors, Tensors]:
        """A made-up batch and its noise, where the networks are."""
        device = next(self.family.parameters()).device
        noise = self.noise(PROBES, SeededDraws(0))
        return {k: v.to(device) for k, v in batch.items()}, {k: v.to(device) for k, v in noise.items()}


class PrivateGradients:
    """Where a private trainer's gradients come from. Blocks must be charged at the door before their steps are taken.

    `class_shares` is a public prior, never a count of patients.
    """

    def __init__(
        self,
        parts: PrivateParts,
        holder: Holder,
        door: Door,
        *,
        class_shares: Sequence[float],
        fakes: int = FAKES,
    ) -> None:
        self.parts, self.family, self.holder, self.door, self.fakes = parts, parts.family, holder, door, fakes
        self._shares = np.asarray(class_shares, np.float64)

    @property
    def randomness(self) -> Randomness:
        """The door's own."""
        return self.door.randomness

    def __call__(self, turn: Turn, step: int, progress: float, draws: Draws) -> tuple[Tensor, list[Tensor | None]]:
        """See `Gradients`. The loss shown is that of the fakes; the trainer's seeded `draws` are not used."""
        noise = self._on_device(self.parts.noise(self.fakes, self.randomness))
        condition = self._on_device(self._condition())
        if not turn.reads_patients:
            return self._free(turn, condition, noise, progress)
        total = self.door.step(turn.net, self._fetch, progress)
        shown, made = self.parts.made[turn.net].clipped_mean(condition, noise, progress)
        for name, value in made.items():
            total[name] = total[name] + value if name in total else value
        return shown, [total.get(name) for name, _ in self.family.nets[turn.net].named_parameters()]

    def _free(
        self, turn: Turn, condition: Tensors, noise: Tensors, progress: float
    ) -> tuple[Tensor, list[Tensor | None]]:
        loss = self.family.free_loss(turn, condition, noise, progress).mean()
        parameters = list(self.family.nets[turn.net].parameters())
        return loss.detach(), list(torch.autograd.grad(loss, parameters, allow_unused=True))

    def _condition(self) -> Tensors:
        if not self.family.shape.n_classes:
            return {}
        return {"label": draw_labels(self._shares, self.fakes, self.randomness)}

    def _fetch(self, patients: Tensor) -> tuple[Tensors, Tensors]:
        """Secretly drawn views of the drawn patients and their noise, every tensor (patients, views, ...)."""
        views = self.door.plan.settings.views
        own_rows = [self.holder.rows[int(patient)] for patient in patients]
        chosen = draw_views(self.randomness, [len(rows) for rows in own_rows], views).numpy()
        rows = np.concatenate([own[index] for own, index in zip(own_rows, chosen, strict=True)] or [np.zeros(0, int)])
        shape = (len(own_rows), views)
        batch = {key: _split(value, shape) for key, value in self.holder.fetch(rows).items()}
        noise = self.parts.noise(len(rows), self.randomness)
        return batch, {key: _split(value, shape) for key, value in self._on_device(noise).items()}

    def _on_device(self, tensors: Tensors) -> Tensors:
        return {name: value.to(self.holder.device) for name, value in tensors.items()}


def made_up_batch(shape: ImageShape, n: int) -> Tensors:
    """Samples that are nobody: seeded noise with the shapes of a batch, for probing networks before any patient."""
    draws = SeededDraws(0)
    batch = {"image": draws.uniform((n, shape.channels, *shape.size)) * 2 - 1}
    if shape.n_labels:
        batch["mask"] = draws.normal((n, shape.n_labels, *shape.size)).softmax(1)
    if shape.n_classes:
        batch["label"] = torch.eye(shape.n_classes)[draws.integers(shape.n_classes, (n,))]
    if shape.source_channels:
        batch["source"] = draws.normal((n, shape.source_channels, *shape.size)).softmax(1)
    return batch


def _split(values: Tensor, shape: tuple[int, int]) -> Tensor:
    return values.reshape(*shape, *values.shape[1:])


def _refuse_shared_nets(family: Model) -> None:
    private, free = ({t.net for t in family.turns if t.reads_patients is reads} for reads in (True, False))
    if len(private) < len(private_turns(family)):
        raise ConfigError("a network has two private turns; they would be charged as one", value=sorted(private))
    if private & free:
        raise ConfigError("a network is trained by a private and by a free turn", value=sorted(private & free))


def parameters_behind_the_door(family: Model) -> int:
    """How many numbers the noise falls on in one private step: the largest of the private networks."""
    sizes = [sum(math.prod(p.shape) for p in family.nets[turn.net].parameters()) for turn in private_turns(family)]
    return max(sizes, default=0)
