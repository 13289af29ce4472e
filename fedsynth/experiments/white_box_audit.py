"""The white-box view of an audit: which canaries do the gradients that leave a training carry?

It stands where the mechanism lets a noised sum out (in plain runs: where the trainer gets its gradient) and sees
what leaves there, the networks, and the images as the strongest adversary of the guarantee would. It changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, grad, vmap

from fedsynth.evaluation.audit.canaries import Canaries
from fedsynth.models.base import Model, Phase, RandomSource, SeededSource, Tensors
from fedsynth.privacy.mechanism import GaussianMechanism
from fedsynth.training.dp_gradients import PrivateGradients
from fedsynth.training.patient_batches import PatientBatches
from fedsynth.training.random_streams import stream_seed
from fedsynth.training.session import Prepared
from fedsynth.training.trainer import Gradients, PlainGradients

WATCHED = {"private": 100, "plain": 30}
"""Steps that are looked at, evenly over the training: each look costs as much as a step that reads every canary."""
OTHERS = 256
MEMORY = 2**30
CHUNK = 32
THINNED = 8
"""Of a plain gradient, which has no noise, so many values for each row are enough."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """What might be in a gradient: the canaries' rows, then other contributions, each as large as is to be expected.

    `spread` is the variance of how often a row is really there, in units of what is expected. `owner` names the canary
    of each of the first rows.
    """

    values: Tensor
    spread: Tensor
    owner: NDArray[np.int64]


class WhiteBoxObserver:
    """Adds up, over the steps of one training, how much likelier each canary is in than out.

    Every gradient seen is explained by least squares from the canaries' own gradients, those of other patients and the
    generated images: what points towards one canary and not towards the others speaks for it. `scores` is None while
    nothing could be seen, `why` then says why.
    """

    def __init__(self, canaries: Canaries, others: PatientBatches, *, seed: int) -> None:
        self._canaries, self._seed = canaries, seed
        self._dataset = PatientBatches(canaries.images)
        self._others = others
        self._sum = np.zeros(len(canaries))
        self._seen, self.why = 0, "no gradient that reads patients was seen"

    @property
    def scores(self) -> NDArray[np.float64] | None:
        """Per canary the logarithm of the odds that it takes part; None where nothing was seen."""
        return self._sum - np.median(self._sum) if self._seen else None

    def attach(self, prepared: Prepared) -> None:
        """Watch this training from its first step on."""
        model, owner = prepared.trainer.family, cast(_Owner, prepared.trainer)
        while not isinstance(owner.gradients, PrivateGradients | PlainGradients):
            owner = cast(_Owner, owner.gradients)  # FedProx pulls on top of them
        gradients = owner.gradients
        kind = "plain" if prepared.mechanism is None else "private"
        interval = max(1, prepared.trainer.total_steps // WATCHED[kind])
        if model.mixes_samples:
            self.why = "the networks mix samples: no canary has a gradient of its own"
        elif self._too_large(model):
            self.why = f"the networks are too large to hold {len(self._canaries)} canaries' gradients in memory"
        elif isinstance(gradients, PrivateGradients):
            self._watch_mechanism(prepared, gradients, interval)
        else:
            owner.gradients = _Overheard(gradients, self, interval)

    def _too_large(self, model: Model) -> bool:
        sizes = [sum(p.numel() for p in model.nets[phase.net].parameters()) for phase in _private(model)]
        rows = len(self._distinct[0]) + OTHERS
        return max(sizes, default=0) * rows * 4 > MEMORY

    def _watch_mechanism(self, prepared: Prepared, gradients: PrivateGradients, interval: int) -> None:
        assert prepared.mechanism is not None
        mechanism, trainer = prepared.mechanism, prepared.trainer
        phases = {phase.net: phase for phase in _private(trainer.family)}

        def released(net: str, sums: Tensors, progress: float) -> None:
            if trainer.step % interval == 0:
                rows = self._rows_of_patients(gradients, mechanism, phases[net], sums, progress)
                self.see(rows, torch.cat([value.flatten() for value in sums.values()]))

        mechanism.on_release = released

    def see(self, rows: Rows, gradient: Tensor) -> None:
        """One gradient that left: the log odds of every canary, as if rows were there independently of each other."""
        if not torch.isfinite(rows.values).all():
            return
        n = len(rows.owner)
        seen, v = gradient.double(), rows.values.double()
        spread = rows.spread.double()
        mean = torch.ones(len(v), dtype=torch.float64)
        mean[:n] = 0.5
        overlap = v @ v.T
        met = v @ seen - overlap @ mean
        rest = seen - mean @ v
        noise = _noise_per_value(overlap, met, rest)
        damped = torch.linalg.inv(overlap + torch.diag(noise / spread))
        share = damped @ overlap
        found = damped @ met
        uncertain = spread.clamp(max=1e3).clone()
        uncertain[:n] = uncertain[:n] / 2 + 0.25  # half the canaries are never there
        own = share.diagonal()
        variance = noise * (share @ damped).diagonal() + (share.square() * uncertain).sum(1) - own.square() * 0.25
        odds = own * found / variance.clamp_min(1e-12)
        np.add.at(self._sum, rows.owner, odds[:n].nan_to_num().numpy())
        self._seen += 1

    def _rows_of_patients(
        self, gradients: PrivateGradients, mechanism: GaussianMechanism, phase: Phase, sums: Tensors, progress: float
    ) -> Rows:
        """Every canary's clipped gradient as the mechanism would add it, times the sampling rate."""
        model, settings = gradients.family, mechanism.plan.settings
        rng = SeededSource(stream_seed(self._seed, "watch", self._seen))
        own, rest = self._patients(rng, slices_per_patient=settings.slices_per_patient)
        values = []
        for batch in (own, rest):
            noise = gradients.parts.noise(_n(batch) * settings.slices_per_patient, rng)
            each = _each(
                model, phase, batch, noise, progress, tuple(sums), slices_per_patient=settings.slices_per_patient
            )
            values.append(_clipped(each, settings.clip))
        scale = settings.rate / settings.batch
        spread = [torch.full((len(one),), max(1 / settings.rate - 1, 0.05)) for one in values]
        others = values[1].mean(0, keepdim=True) * len(self._others.patients)
        rows = torch.cat([*values, others]) * scale
        owner = np.arange(len(self._canaries))
        return Rows(values=rows, spread=torch.cat([*spread, torch.tensor([1e6])]), owner=owner)

    def plain_rows(self, gradients: PlainGradients, phase: Phase, progress: float) -> Rows:
        """The gradient of every image of a canary and of others, times its expected share of the batch."""
        model = gradients.family
        rng = SeededSource(stream_seed(self._seed, "watch", self._seen))
        own, times = self._distinct
        chosen = np.argsort(rng.uniform((len(self._others.images),)).numpy())[:OTHERS]
        names = tuple(name for name, _ in model.nets[phase.net].named_parameters())
        values = []
        for batch in (self._dataset.fetch(own), self._others.fetch(chosen)):
            noise = _noise(gradients, _n(batch), rng)
            values.append(_each(model, phase, _with_slices(batch, 1), noise, progress, names, slices_per_patient=1))
        images = len(self._others.images) + len(self._canaries.images) / 2
        often = torch.from_numpy(np.concatenate([times, np.ones(len(chosen))])).float() / images
        others = values[1].mean(0, keepdim=True) * len(self._others.images) / images
        rows = [torch.cat(values) * often[:, None], others]
        spread = torch.cat([1 / (gradients.batch * often), torch.tensor([1e6])])
        return Rows(values=torch.cat(rows), spread=spread, owner=own // self._canaries.images_each)

    @cached_property
    def _distinct(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows of the canaries' images, those that one canary shows again left out, and how often it shows them."""
        images, each = self._canaries.images, self._canaries.images_each
        rows: list[int] = []
        times: list[int] = []
        for first in range(0, len(images), each):
            shown = [np.asarray(images.images[row]).tobytes() for row in range(first, first + each)]
            rows += [first + shown.index(one) for one in dict.fromkeys(shown)]
            times += [shown.count(one) for one in dict.fromkeys(shown)]
        return np.array(rows, np.int64), np.array(times, np.int64)

    def _patients(self, rng: RandomSource, *, slices_per_patient: int) -> tuple[Tensors, Tensors]:
        """The canaries and some other patients with `slices_per_patient` of their images each: tensors (patients,
        slices, ...).
        """
        canaries = [self._picked(rows, slices_per_patient, rng) for rows in self._dataset.rows]
        n = len(self._others.patients)
        some = np.argsort(rng.uniform((n,)).numpy())[:OTHERS]
        others = [self._picked(self._others.rows[i], slices_per_patient, rng) for i in some]
        return (
            _with_slices(self._dataset.fetch(np.concatenate(canaries)), slices_per_patient),
            _with_slices(self._others.fetch(np.concatenate(others)), slices_per_patient),
        )

    def _picked(self, rows: NDArray[np.int64], slices_per_patient: int, rng: RandomSource) -> NDArray[np.int64]:
        order = np.argsort(rng.uniform((len(rows),)).numpy())
        return np.asarray(np.resize(rows[order], slices_per_patient))


class _Owner(Protocol):
    """Whoever asks for gradients."""

    gradients: Gradients


class _Overheard:
    """A plain trainer's gradients, which an auditor hears as they are used, without the half that generated images
    give.
    """

    def __init__(self, inner: PlainGradients, watch: WhiteBoxObserver, interval: int) -> None:
        self.inner, self.watch, self.interval = inner, watch, interval

    def __call__(
        self, phase: Phase, step: int, progress: float, rng: RandomSource
    ) -> tuple[Tensor, list[Tensor | None]]:
        listening = phase.reads_patients and step % self.interval == 0 and isinstance(rng, SeededSource)
        before = rng.generator.get_state() if listening and isinstance(rng, SeededSource) else None
        loss, found = self.inner(phase, step, progress, rng)
        if before is not None:
            again = SeededSource(0)
            again.generator.set_state(before)
            free = self.inner.fake_half(phase, step, progress, again)
            parameters = list(self.inner.family.nets[phase.net].parameters())
            rows = self.watch.plain_rows(self.inner, phase, progress)
            real = _flat(found, parameters) - _flat(free, parameters)
            some = torch.randperm(len(real), generator=again.generator)[: THINNED * len(rows.values)]
            self.watch.see(replace(rows, values=rows.values[:, some]), real[some])
        return loss, found


def _private(model: Model) -> list[Phase]:
    return [phase for phase in model.phases if phase.reads_patients]


def _clipped(each: Tensor, clip: float) -> Tensor:
    norms = each.norm(dim=1, keepdim=True).nan_to_num()
    clipped: Tensor = each.nan_to_num() * (clip / norms.clamp_min(clip))
    return clipped


def _n(batch: Tensors) -> int:
    return len(batch["image"])


def _with_slices(batch: Tensors, slices_per_patient: int) -> Tensors:
    return {name: value.reshape(-1, slices_per_patient, *value.shape[1:]) for name, value in batch.items()}


def _noise(gradients: PlainGradients, n: int, rng: RandomSource) -> Tensors:
    noise = gradients.family.noise(n, rng)
    if gradients.augmentation is not None:
        noise |= gradients.augmentation.noise(n, gradients.family.shape.dimensions, rng)
    return noise


def _flat(gradients: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> Tensor:
    """All gradients as one, zeros where there is none."""
    pairs = zip(gradients, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if one is None else one.detach()).flatten() for one, p in pairs])


def _each(
    model: Model,
    phase: Phase,
    batch: Tensors,
    noise: Tensors,
    progress: float,
    names: tuple[str, ...],
    *,
    slices_per_patient: int,
) -> Tensor:
    """The gradient of every patient, its slices averaged, by the named parameters of the phase's network: (n,
    values).
    """
    prefix = f"nets.{phase.net}."
    own = {prefix + name: dict(model.nets[phase.net].named_parameters())[name].detach() for name in names}

    def loss(values: Tensors, batch: Tensors, noise: Tensors) -> Tensor:
        return torch.as_tensor(functional_call(model, values, (phase, batch, noise, progress)).mean())

    each = vmap(grad(loss), in_dims=(None, 0, 0), chunk_size=CHUNK, randomness="error")
    found: Tensors = each(own, batch, _with_slices(noise, slices_per_patient))
    rows: Tensor = torch.cat([found[prefix + name].flatten(1) for name in names], 1)
    return rows


def _noise_per_value(overlap: Tensor, met: Tensor, rest: Tensor) -> Tensor:
    """The variance of what the rows cannot explain, per value of the gradient."""
    ridge = 1e-6 * overlap.diagonal().mean() * torch.eye(len(overlap), dtype=torch.float64)
    explained = met @ torch.linalg.solve(overlap + ridge, met)
    left = max(len(rest) - len(overlap), 1)
    variance: Tensor = (rest.square().sum() - explained) / left
    return variance.clamp_min(1e-30)
