"""Task networks for the utility benchmarks: what measuring is handed, because it knows no trainer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsynth.data import ImageSet
from fedsynth.experiments.federated_tasks import TaskFederation, learn_federated
from fedsynth.training.downstream import Trained, learn, predictions
from fedsynth.training.settings import TaskSettings

TUNING = 4
"""Fine-tuning takes a fourth of the steps at a fourth of the rate."""


@dataclass(frozen=True, kw_only=True)
class LearnedTask(Trained):
    """A trained network, ready to be asked."""

    def predict(self, images: ImageSet) -> Iterator[NDArray[np.float32]]:
        """Probabilities for each image in turn."""
        return predictions(self.task, images)


class TaskLearner:
    """Trains task networks with the loop that trains generators; `settings` hold for every arm alike, `federation` for
    those that sites train together."""

    def __init__(
        self,
        settings: TaskSettings,
        *,
        federation: TaskFederation | None = None,
        on_step: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self.settings, self.federation, self._on_step = settings, federation or TaskFederation(), on_step

    def learn(
        self,
        sets: Sequence[ImageSet],
        *,
        seed: int,
        augment: bool,
        reference: ImageSet | None = None,
        start: Any = None,
    ) -> LearnedTask:
        """Trained on all images of `sets` until `reference` shows no more gain; from `start` on it is tuned."""
        settings = replace(self.settings, seed=seed, augment=augment)
        if start is not None:
            steps = max(1, settings.steps // TUNING)
            settings = replace(settings, steps=steps, rate=settings.rate / TUNING)
        begun = start.task if start is not None else None
        return _asked(learn(sets, settings, reference=reference, start=begun, on_step=self._on_step))

    def learn_federated(
        self, sites: Mapping[str, ImageSet], *, seed: int, augment: bool, reference: ImageSet | None = None
    ) -> dict[str | None, LearnedTask]:
        """Trained in rounds over `sites`: one network under None, or one for each site."""
        settings = replace(self.settings, seed=seed, augment=augment)
        found = learn_federated(sites, settings, self.federation, reference=reference, on_step=self._on_step)
        return {site: _asked(trained) for site, trained in found.items()}


def _asked(trained: Trained) -> LearnedTask:
    return LearnedTask(task=trained.task, steps=trained.steps, collapsed=trained.collapsed)
