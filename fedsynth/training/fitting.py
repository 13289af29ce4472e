"""What is fitted after training: passes over all images whose sums become buffers of the released sampler.

Sums are over images; or, for families that are fitted `per_patient`, over one bounded vector of each patient. The
second kind can be released with noise, once.
"""

import math
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedsynth.errors import DamagedError, RefusedError
from fedsynth.models.base import Model, SeededSource, Tensors
from fedsynth.models.pairing import Pairing
from fedsynth.privacy.mechanism import GaussianMechanism
from fedsynth.privacy.patient_statistics import GRID, RELEASE, NoisedSum, PatientStatistics, grid_steps, read_sum
from fedsynth.privacy.per_patient_gradients import Fetch
from fedsynth.training.checkpoint import load_tensors, save_tensors
from fedsynth.training.patient_batches import PatientBatches
from fedsynth.training.random_streams import stream_seed
from fedsynth.training.site_storage import SiteStorage
from fedsynth.training.trainer import Trainer

BLOCK = 32  # images at a time; sums run over them in their order
FITTED, PUBLIC = "simulator", "public"
"""The network that a family's patient sums belong to."""


def sums_of(
    family: Model, dataset: PatientBatches, number: int, *, pairing: Pairing | None = None, seed: int = 0
) -> Tensors:
    """The sums of pass `number` over all images, or all patients, of one site, without noise."""
    if family.per_patient:
        everybody = torch.arange(len(dataset.patients))
        return _named(statistics_of(family).clipped_sum(everybody, fetch_from(dataset))[RELEASE], noise=0.0)
    total: Tensors = {}
    for start in range(0, dataset.count, BLOCK):
        batch = dataset.fetch(np.arange(start, min(start + BLOCK, dataset.count)))
        if pairing is not None:
            rng = SeededSource(stream_seed(seed, "fitting", start))
            batch = pairing.pair(batch, dataset.images.header.channels, rng)
        for name, value in family.sums(number, batch).items():
            total[name] = total[name] + value.double() if name in total else value.double()
    return total


def fit_alone(trainer: Trainer, sums: Callable[[int], Tensors], *, but: Collection[str] = ()) -> None:
    """All passes over one site's images, for the averaged sampler; networks in `but` are left to others."""
    family = trainer.family
    trainer.ema.take_buffers(family)  # as they were before an earlier fit, or the next one would begin where it ended
    with trainer.ema.in_place(family):
        for number in range(family.passes):
            own = {name: value for name, value in sums(number).items() if name.split(".")[0] not in but}
            if own:
                family.fit(number, own)
        trainer.ema.take_buffers(family)


def expected_sums(family: Model, number: int, *, device: torch.device) -> Tensors:
    """The sums of one blank image, which have the names and shapes of everybody's."""
    if family.per_patient:
        return _named(torch.zeros(statistics_of(family).length + 1, dtype=torch.float64), noise=0.0)
    return family.sums(number, {name: value.to(device) for name, value in blank_image(family).items()})


def blank_image(family: Model) -> Tensors:
    """A batch of one image that shows nothing."""
    shape = family.shape
    batch: Tensors = {"image": torch.full((1, shape.channels, *shape.size), -1.0)}
    for name, channels in (("mask", shape.n_labels), ("source", shape.source_channels)):
        if channels:
            batch[name] = torch.zeros(1, channels, *shape.size)
            batch[name][:, 0] = 1
    if shape.n_classes:
        batch["label"] = torch.eye(shape.n_classes)[:1]
    return batch


def statistics_of(family: Model) -> PatientStatistics:
    """The sums over patients of a family that is fitted to them; its public pool is made here, before any charge."""
    length = family.statistics(blank_image(family)).shape[1]
    return PatientStatistics(family.statistics, length=length)


def fetch_from(dataset: PatientBatches) -> Fetch:
    """All images of one patient at a time: (1, images, ...)."""

    def fetch(patients: Tensor) -> tuple[Tensors, Tensors]:
        (patient,) = patients.tolist()
        return {name: value[None] for name, value in dataset.fetch(dataset.rows[patient]).items()}, {}

    return fetch


def private_sums(
    mechanism: GaussianMechanism,
    dataset: PatientBatches,
    storage: SiteStorage | None,
    *,
    round: int = 0,  # noqa: A002
    public: str = "",
) -> Tensors:
    """The one noised sum of a private fit. It is kept, so that it is sent again rather than taken again.

    `public` names the pool that its vectors are compared with: beside another one it would mean something else.
    """
    path = None if storage is None else storage.release
    if path is not None and path.exists():
        sums = _kept(path, mechanism.plan.added, public)
        mechanism.check_resumed(1)
        return sums
    if mechanism.left_for(round) < 1:
        problem = "the release was charged and is not here: the run was stopped between the two"
        remedy = "start a new run, which is charged again; or put the file back"
        raise RefusedError(problem, file=path, remedy=remedy)
    mechanism.charge({RELEASE: 1}, round=round)
    released = mechanism.step(RELEASE, fetch_from(dataset))[RELEASE] * mechanism.plan.settings.batch
    sums = _named(released, noise=mechanism.plan.added)
    if path is not None:
        save_tensors(path, sums, {PUBLIC: public})
    return sums


def to_grid(sums: Tensors) -> Tensor:
    """Patient sums as whole steps of their grid: what a secure sum adds up."""
    total, patients = sums[f"{FITTED}.total"], float(sums[f"{FITTED}.patients"])
    return grid_steps(NoisedSum(total=total.double(), patients=patients, variance=0.0))


def from_grid(steps: Tensor, *, noise: float) -> Tensors:
    """Patient sums of these whole steps, on which lies noise of this deviation in all."""
    return _named(steps.double() * GRID, noise=noise)


def _named(scaled: Tensor, *, noise: float) -> Tensors:
    found = read_sum(scaled, noise)
    parts = {"total": found.total, "patients": torch.tensor(found.patients, dtype=torch.float64)}
    parts["variance"] = torch.tensor(found.variance, dtype=torch.float64)
    return {f"{FITTED}.{name}": value for name, value in parts.items()}


def _kept(path: Path, noise: float, public: str) -> Tensors:
    """The kept sum, where its public pool is the run's and its noise the plan's: a share of a secure sum's noise must
    never leave as a whole one.
    """
    remedy = "start a new run, which is charged again"
    try:
        sums, notes = load_tensors(path)
        kept = float(sums[f"{FITTED}.variance"])
    except (DamagedError, KeyError) as error:
        raise RefusedError("the kept release cannot be read", file=path, remedy=remedy) from error
    if (was := notes.get(PUBLIC, "")) != public:
        raise RefusedError(f"the kept release belongs to the public pool {was}, not {public}", file=path, remedy=remedy)
    if not math.isclose(kept, read_sum(torch.zeros(1), noise).variance, rel_tol=1e-9):
        raise RefusedError("the kept release has other noise than this run plans", file=path, remedy=remedy)
    return sums
