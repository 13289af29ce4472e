"""What trained networks think of given images: the score by which whoever holds them could tell members apart.

In a federation that is the server, which receives every network that is shared. It scores images and knows no roles.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fedsynth.data import ImageSet
from fedsynth.errors import FedSynthError, ImageSetError
from fedsynth.models.base import Family, SeededSource
from fedsynth.models.pairing import read_pairing
from fedsynth.runs import Run
from fedsynth.training.checkpoint import CARD, DISCRIMINATOR, Card, load_generator, load_tensors, start_from
from fedsynth.training.patient_batches import PatientBatches
from fedsynth.training.random_streams import stream_seed
from fedsynth.training.site_storage import CENTRALISED, STATE

DRAWS = 4
BATCH = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class MembershipScorer:
    """All networks of a run as training left them. Calling it gives one score per image, larger for a better match."""

    family: Family
    card: Card
    seed: int = 0

    def __call__(self, images: ImageSet) -> NDArray[np.float64]:
        """Minus the loss that training would have on each image, the mean over a few draws of its noise.

        Of a discriminator that is its score of the image as a real one, of a likelihood model the likelihood: both
        higher for images that were trained on. The draws are the same for every image.
        """
        self._check(images)
        dataset = PatientBatches(images)
        scores = np.empty(len(images))
        for start in range(0, len(images), BATCH):
            rows = np.arange(start, min(start + BATCH, len(images)))
            scores[rows] = self._score(dataset, rows)
        if not np.isfinite(scores).all():
            raise FedSynthError("the run's networks score some images as not a number", remedy="train it again")
        return scores

    def _score(self, dataset: PatientBatches, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        batch = dataset.fetch(rows)
        if self.card.pairing:
            header = dataset.images.header
            pairing = read_pairing(self.card.pairing, header.channels, header.mask_labels)
            batch = pairing.pair(batch, header.channels, SeededSource(stream_seed(self.seed, "pairing", 0)))
        total = torch.zeros(len(rows), dtype=torch.float64)
        for draw in range(DRAWS):
            noise = self.family.noise(BATCH, SeededSource(stream_seed(self.seed, "judge", draw)))
            noise = {name: value[: len(rows)] for name, value in noise.items()}
            for phase in self.family.phases:
                if phase.reads_patients and phase.scores_images:
                    loss = self.family.real_loss(phase, batch, noise, 1.0)
                    total -= loss.detach().double().reshape(len(rows))
        return np.asarray(total / DRAWS)

    def _check(self, images: ImageSet) -> None:
        header = images.header
        pairs = {
            "channels": (self.card.channels, header.channels),
            "classes": (self.card.classes, header.classes),
            "mask-labels": (self.card.mask_labels, header.mask_labels),
            "size": (self.card.shape.size, images.size),
        }
        for what, (here, there) in pairs.items():
            if here != there:
                problem = f"the run's networks were trained on other {what}: {here}, and the set has {there}"
                raise ImageSetError(problem, file=images.folder)


def membership_scorer(run: Run, *, seed: int = 0) -> MembershipScorer | None:
    """The networks of a run: all of a centralised one, those that the server received of a federated one.

    None where the run has none that ever read a patient, or where they stayed at the sites.
    """
    if not (run.checkpoints / CARD).is_file():
        return None
    family, card = load_generator(run.checkpoints)
    if not any(phase.reads_patients for phase in family.phases):
        return None
    state, discriminator = run.site(CENTRALISED) / STATE, run.checkpoints / DISCRIMINATOR
    if state.is_file():
        start_from(state, family, card.generator)
        return MembershipScorer(family=family.eval(), card=card, seed=seed)
    known = set(family.sampler)
    if discriminator.is_file():
        tensors, _ = load_tensors(discriminator)
        own = family.nets.state_dict()
        if any(name not in own or own[name].shape != value.shape for name, value in tensors.items()):
            raise FedSynthError(
                f"does not hold networks of {card.generator} as its card describes it", file=discriminator
            )
        family.nets.load_state_dict(tensors, strict=False)
        known |= {name.split(".")[0] for name in tensors}
    if not {name.split(".")[0] for name in family.nets.state_dict()} <= known:
        return None
    return MembershipScorer(family=family.eval(), card=card, seed=seed)
