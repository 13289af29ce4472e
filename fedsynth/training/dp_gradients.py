"""Private steps: real patients reach the discriminator through the mechanism, everything else is made from public
numbers.

Every random number of a private run comes from the mechanism's own randomness, never from the experiment's seed. The
fakes of a step are a fixed public number; each is clipped like a real image, which costs nothing and keeps the two
halves in balance.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fedsynth.errors import ConfigError
from fedsynth.models.augmentation import Augmentation
from fedsynth.models.base import ImageShape, Model, Phase, RandomSource, SeededSource, Tensors
from fedsynth.privacy.mechanism import GaussianMechanism, sample_slices
from fedsynth.privacy.per_patient_gradients import PatientGradients
from fedsynth.privacy.plan import PrivateSettings
from fedsynth.privacy.sample_mixing import check_independence
from fedsynth.privacy.secure_rng import Randomness
from fedsynth.training.patient_batches import PatientBatches
from fedsynth.training.trainer import draw_labels

PROBES = 4
FAKES = 128


def private_phases(family: Model) -> list[Phase]:
    """The phases that read patients, each of which draws and is charged on its own."""
    return [phase for phase in family.phases if phase.reads_patients]


def steps_by_phase(family: Model, steps: int, *, first: int = 0) -> dict[str, int]:
    """How often each private phase is taken in the steps `first` to `first + steps`."""
    return {
        phase.net: sum(step % phase.interval == 0 for step in range(first, first + steps))
        for phase in private_phases(family)
    }


class PrivateParts:
    """The losses of a family as the mechanism wants them: checked for independence, ready to be clipped per patient."""

    def __init__(self, family: Model, settings: PrivateSettings, *, augmentation: Augmentation | None) -> None:
        family.augment = augmentation
        self.family, self.augmentation, self.settings = family, augmentation, settings
        _refuse_shared_nets(family)
        self.real = {phase.net: self._gradients(phase) for phase in private_phases(family)}
        self.made = {phase.net: self._fake_gradients(phase) for phase in private_phases(family)}

    def noise(self, n: int, rng: RandomSource) -> Tensors:
        """The random numbers of `n` samples, augmentation included."""
        noise = self.family.noise(n, rng)
        if self.augmentation is not None:
            noise |= self.augmentation.noise(n, self.family.shape.dimensions, rng)
        return noise

    def _gradients(self, phase: Phase) -> PatientGradients:
        def loss(batch: Tensors, noise: Tensors, progress: float) -> Tensor:
            return self.family.real_loss(phase, batch, noise, progress)

        net, settings = self.family.nets[phase.net], self.settings
        probe = self._probe(made_up_batch(self.family.shape, PROBES))
        check_independence(self.family, net, loss, probe, stages=self.family.stages())
        growing = len(self.family.stages()) > 1
        return PatientGradients(
            net,
            loss,
            clip=settings.clip,
            slices_per_patient=settings.slices_per_patient,
            probe=probe,
            growing=growing,
            whole=self.family,
        )

    def _fake_gradients(self, phase: Phase) -> PatientGradients:
        def loss(condition: Tensors, noise: Tensors, progress: float) -> Tensor:
            return self.family.fake_loss(phase, condition, noise, progress)

        condition = {key: value for key, value in made_up_batch(self.family.shape, PROBES).items() if key == "label"}
        probe = self._probe(condition)
        growing = len(self.family.stages()) > 1
        net = self.family.nets[phase.net]
        return PatientGradients(net, loss, clip=self.settings.clip, probe=probe, growing=growing, whole=self.family)

    def _probe(self, batch: Tensors) -> tuple[Tensors, Tensors]:
        """A made-up batch and its noise, where the networks are."""
        device = next(self.family.parameters()).device
        noise = self.noise(PROBES, SeededSource(0))
        return {k: v.to(device) for k, v in batch.items()}, {k: v.to(device) for k, v in noise.items()}


class PrivateGradients:
    """Where a private trainer's gradients come from. Blocks must be charged at the mechanism before their steps are
    taken.

    `class_shares` is a public prior, never a count of patients.
    """

    def __init__(
        self,
        parts: PrivateParts,
        dataset: PatientBatches,
        mechanism: GaussianMechanism,
        *,
        class_shares: Sequence[float],
        fakes: int = FAKES,
    ) -> None:
        self.parts, self.family, self.dataset, self.mechanism, self.fakes = (
            parts,
            parts.family,
            dataset,
            mechanism,
            fakes,
        )
        self._shares = np.asarray(class_shares, np.float64)

    @property
    def randomness(self) -> Randomness:
        """The mechanism's own."""
        return self.mechanism.randomness

    def __call__(
        self, phase: Phase, step: int, progress: float, rng: RandomSource
    ) -> tuple[Tensor, list[Tensor | None]]:
        """See `Gradients`. The loss shown is that of the fakes; the trainer's seeded `rng` are not used."""
        noise = self._on_device(self.parts.noise(self.fakes, self.randomness))
        condition = self._on_device(self._condition())
        if not phase.reads_patients:
            return self._free(phase, condition, noise, progress)
        total = self.mechanism.step(phase.net, self._fetch, progress)
        shown, made = self.parts.made[phase.net].clipped_mean(condition, noise, progress)
        for name, value in made.items():
            total[name] = total[name] + value if name in total else value
        return shown, [total.get(name) for name, _ in self.family.nets[phase.net].named_parameters()]

    def _free(
        self, phase: Phase, condition: Tensors, noise: Tensors, progress: float
    ) -> tuple[Tensor, list[Tensor | None]]:
        loss = self.family.fake_loss(phase, condition, noise, progress).mean()
        parameters = list(self.family.nets[phase.net].parameters())
        return loss.detach(), list(torch.autograd.grad(loss, parameters, allow_unused=True))

    def _condition(self) -> Tensors:
        if not self.family.shape.n_classes:
            return {}
        return {"label": draw_labels(self._shares, self.fakes, self.randomness)}

    def _fetch(self, patients: Tensor) -> tuple[Tensors, Tensors]:
        """Secretly sampled slices of the sampled patients and their noise, every tensor (patients, slices, ...)."""
        slices_per_patient = self.mechanism.plan.settings.slices_per_patient
        own_rows = [self.dataset.rows[int(patient)] for patient in patients]
        chosen = sample_slices(self.randomness, [len(rows) for rows in own_rows], slices_per_patient).numpy()
        rows = np.concatenate([own[index] for own, index in zip(own_rows, chosen, strict=True)] or [np.zeros(0, int)])
        shape = (len(own_rows), slices_per_patient)
        batch = {key: _split(value, shape) for key, value in self.dataset.fetch(rows).items()}
        noise = self.parts.noise(len(rows), self.randomness)
        return batch, {key: _split(value, shape) for key, value in self._on_device(noise).items()}

    def _on_device(self, tensors: Tensors) -> Tensors:
        return {name: value.to(self.dataset.device) for name, value in tensors.items()}


def made_up_batch(shape: ImageShape, n: int) -> Tensors:
    """Samples that are nobody: seeded noise with the shapes of a batch, for probing networks before any patient."""
    rng = SeededSource(0)
    batch = {"image": rng.uniform((n, shape.channels, *shape.size)) * 2 - 1}
    if shape.n_labels:
        batch["mask"] = rng.normal((n, shape.n_labels, *shape.size)).softmax(1)
    if shape.n_classes:
        batch["label"] = torch.eye(shape.n_classes)[rng.integers(shape.n_classes, (n,))]
    if shape.source_channels:
        batch["source"] = rng.normal((n, shape.source_channels, *shape.size)).softmax(1)
    return batch


def _split(values: Tensor, shape: tuple[int, int]) -> Tensor:
    return values.reshape(*shape, *values.shape[1:])


def _refuse_shared_nets(family: Model) -> None:
    private, free = ({t.net for t in family.phases if t.reads_patients is reads} for reads in (True, False))
    if len(private) < len(private_phases(family)):
        raise ConfigError("a network has two private phases; they would be charged as one", value=sorted(private))
    if private & free:
        raise ConfigError("a network is trained by a private and by a fake phase", value=sorted(private & free))


def private_parameters(family: Model) -> int:
    """How many numbers the noise falls on in one private step: the largest of the private networks."""
    sizes = [sum(math.prod(p.shape) for p in family.nets[phase.net].parameters()) for phase in private_phases(family)]
    return max(sizes, default=0)
