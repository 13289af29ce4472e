"""When a task network has learned enough, by reference patients, and whether its training collapsed.

Reference patients are free for choosing; the holdout never comes here. The rule is the same for every arm.
"""

from collections.abc import Sequence
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from fedsynth.data import ImageSet
from fedsynth.models.downstream.tasks import Task
from fedsynth.training.patient_batches import PatientBatches

CHECK = 50
"""Steps between two looks at the reference patients."""
PATIENCE = 4
"""Looks without a gain after which training ends."""
FEWEST = 8
"""Looks before which training never ends: a network may answer the same for all images in its first hundred steps."""
GAIN = 0.01
"""A smaller difference of the reference score is no gain."""
BLOCK, SAMPLE = 32, 256


class EarlyStopping:
    """Keeps the weights with the best score on the reference patients; where they cannot be scored it never stops.

    Networks that are trained together, one for each site, end together: each is scored on its own of `references`, and
    their mean counts.
    """

    def __init__(self, *references: ImageSet | None, device: torch.device) -> None:
        self._datasets = [None if images is None else PatientBatches(images, device=device) for images in references]
        self._best, self._mark = -np.inf, -np.inf
        self._looks, self._waited = 0, 0
        self._weights: list[dict[str, Tensor]] = []

    def seen(self, *tasks: Task) -> bool:
        """Score the tasks as they are; true once there was no gain for `PATIENCE` looks, after `FEWEST` of them."""
        pairs = zip(tasks, self._datasets, strict=True)
        found = [task.quality(tally(task, images)) for task, images in pairs if images is not None]
        known = [value for value in found if np.isfinite(value)]
        if not known:
            return False
        value = fmean(known)
        if value >= self._best:
            self._best = value
            self._weights = [{name: one.detach().clone() for name, one in t.nets.state_dict().items()} for t in tasks]
        gained = value > self._mark + GAIN
        self._mark, self._waited = (value, 0) if gained else (self._mark, self._waited + 1)
        self._looks += 1
        return self._waited >= PATIENCE and self._looks >= FEWEST

    def restore(self, *tasks: Task) -> None:
        """Load the best weights that were seen, if any."""
        if self._weights:
            for task, weights in zip(tasks, self._weights, strict=True):
                task.nets.load_state_dict(weights)


def has_collapsed(task: Task, sets: Sequence[ImageSet], *, seed: int) -> bool:
    """Whether the task fails on the very images that it was trained on; of each set 256 are looked at."""
    rng = np.random.default_rng([seed, *b"collapse"])
    device = next(task.parameters()).device
    parts = [images.rows(np.sort(rng.permutation(len(images))[:SAMPLE])) for images in sets]
    return task.collapsed(torch.stack([tally(task, PatientBatches(part, device=device)) for part in parts]).sum(0))


def tally(task: Task, dataset: PatientBatches) -> Tensor:
    """`Task.tally` summed over all images."""
    parts = []
    for start in range(0, dataset.count, BLOCK):
        batch = dataset.fetch(np.arange(start, min(dataset.count, start + BLOCK)))
        with torch.no_grad():
            parts.append(task.tally(batch))
    return torch.stack(parts).sum(0)
