"""Task networks for the utility benchmarks: what measuring is handed, because it knows no trainer."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedsynth.data import ImageSet
from fedsynth.federation.strategies import make_strategy
from fedsynth.models.downstream.tasks import Task
from fedsynth.training.downstream import Trained, finished, learn, predictions, task_trainer
from fedsynth.training.random_streams import stream_seed
from fedsynth.training.settings import TaskSettings, cpu_threads, open_device
from fedsynth.training.stopping import EarlyStopping
from fedsynth.training.trainer import Trainer

ROUNDS = 20
TUNING = 4
"""Fine-tuning takes a fourth of the steps at a fourth of the rate."""


@dataclass(frozen=True, kw_only=True)
class LearnedTask(Trained):
    """A trained network, ready to be asked."""

    def predict(self, images: ImageSet) -> Iterator[NDArray[np.float32]]:
        """Probabilities for each image in turn."""
        return predictions(self.task, images)


class TaskLearner:
    """Trains task networks with the loop that trains generators; `settings` hold for every arm alike."""

    def __init__(
        self, settings: TaskSettings, *, on_step: Callable[[int, int], None] = lambda done, total: None
    ) -> None:
        self.settings, self._on_step = settings, on_step

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
        self, sites: Sequence[ImageSet], *, seed: int, augment: bool, reference: ImageSet | None = None
    ) -> LearnedTask:
        """Trained by federated averaging, in rounds; sites weigh as much as they have images, as FedAvg says.

        The arithmetic is the federation's; what travels stays in this process, for a benchmark asks only what comes
        out. Optimisers stay at the sites. The averaged network is scored on `reference` after every round.
        """
        settings = replace(self.settings, seed=seed, augment=augment)
        with cpu_threads(settings.threads):
            trainers = [
                task_trainer([images], settings, stream=stream_seed(seed, "site", number))
                for number, images in enumerate(sites)
            ]
            averaging, weights = make_strategy("fedavg"), as_arrays(trainers[0])
            averaging.start(weights)
            stopping, task = EarlyStopping(reference, device=open_device(settings.device)), trainers[0].family
            assert isinstance(task, Task)
            for steps in _rounds(settings.steps):
                replies = []
                for trainer, images in zip(trainers, sites, strict=True):
                    trainer.family.load_state_dict(as_tensors(weights))
                    for _ in trainer.run(steps):
                        pass
                    replies.append((float(len(images)), as_arrays(trainer)))
                weights = averaging.step(weights, replies)
                task.load_state_dict(as_tensors(weights))
                self._on_step(trainers[0].step, settings.steps)
                if stopping.seen(task):
                    break
            return _asked(finished(task, sites, stopping, steps=trainers[0].step, seed=seed))


def _asked(trained: Trained) -> LearnedTask:
    return LearnedTask(task=trained.task, steps=trained.steps, collapsed=trained.collapsed)


def as_arrays(trainer: Trainer) -> dict[str, NDArray[Any]]:
    """The networks' weights as a federation sends them."""
    return {name: value.detach().cpu().numpy().copy() for name, value in trainer.family.state_dict().items()}


def as_tensors(arrays: dict[str, NDArray[Any]]) -> dict[str, torch.Tensor]:
    """The way back."""
    return {name: torch.from_numpy(value) for name, value in arrays.items()}


def _rounds(steps: int) -> list[int]:
    """Up to twenty rounds whose steps add up to `steps`."""
    edges = np.linspace(0, steps, min(ROUNDS, steps) + 1).round().astype(int)
    return [int(length) for length in np.diff(edges)]
