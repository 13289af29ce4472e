"""What is fitted after training: passes over all images whose sums become buffers of the released sampler."""

from collections.abc import Collection

import numpy as np
import torch

from fedsynth.models.base import Model, SeededSource, Tensors
from fedsynth.models.pairing import Pairing
from fedsynth.training.patient_batches import PatientBatches
from fedsynth.training.random_streams import stream_seed
from fedsynth.training.trainer import Trainer

BLOCK = 32  # images at a time; sums run over them in their order


def sums_of(
    family: Model, dataset: PatientBatches, number: int, *, pairing: Pairing | None = None, seed: int = 0
) -> Tensors:
    """The sums of pass `number` over all images of one site, or over its patients where a family is fitted by them."""
    total: Tensors = {}
    blocks = [np.arange(start, min(start + BLOCK, dataset.count)) for start in range(0, dataset.count, BLOCK)]
    for rows in dataset.rows if family.per_patient else blocks:
        batch = dataset.fetch(rows)
        if pairing is not None:
            rng = SeededSource(stream_seed(seed, "fitting", int(rows[0])))
            batch = pairing.pair(batch, dataset.images.header.channels, rng)
        for name, value in family.sums(number, batch).items():
            total[name] = total[name] + value.double() if name in total else value.double()
    return total


def fit_alone(
    trainer: Trainer, dataset: PatientBatches, *, pairing: Pairing | None = None, but: Collection[str] = ()
) -> None:
    """All passes over one site's images, for the averaged sampler; networks in `but` are left to others."""
    family = trainer.family
    with trainer.ema.in_place(family):
        for number in range(family.passes):
            sums = sums_of(family, dataset, number, pairing=pairing, seed=trainer.seed)
            own = {name: value for name, value in sums.items() if name.split(".")[0] not in but}
            if own:
                family.fit(number, own)
        trainer.ema.take_buffers(family)


def expected_sums(family: Model, number: int, *, device: torch.device) -> Tensors:
    """The sums of one blank image, which have the names and shapes of everybody's."""
    shape = family.shape
    batch: Tensors = {"image": torch.full((1, shape.channels, *shape.size), -1.0)}
    for name, channels in (("mask", shape.n_labels), ("source", shape.source_channels)):
        if channels:
            batch[name] = torch.zeros(1, channels, *shape.size)
            batch[name][:, 0] = 1
    if shape.n_classes:
        batch["label"] = torch.eye(shape.n_classes)[:1]
    return family.sums(number, {name: value.to(device) for name, value in batch.items()})
