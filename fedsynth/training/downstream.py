"""Training a task network on images of any origin, and asking it about others. One loop with the generators'.

Training ends when reference patients show no more gain, or at a ceiling of steps: the same rule for whatever it learns
from. Neither the holdout nor the images that it was trained on choose anything.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fedsynth.data import ImageSet
from fedsynth.errors import ConfigError
from fedsynth.models.base import Tensors, global_randomness
from fedsynth.models.downstream.tasks import Task, build_task
from fedsynth.training.patient_batches import PatientBatches
from fedsynth.training.random_streams import stream_seed
from fedsynth.training.settings import TaskSettings, cpu_threads, open_device
from fedsynth.training.stopping import CHECK, EarlyStopping, has_collapsed
from fedsynth.training.trainer import PlainGradients, Trainer

BLOCK = 32


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A task network, the steps that it took, and whether it failed on its own training images."""

    task: Task
    steps: int
    collapsed: bool


class PooledBatches(PatientBatches):
    """Image sets end to end, real and synthetic alike, whatever their voxel types."""

    def __init__(self, sets: Sequence[ImageSet], *, device: torch.device) -> None:
        super().__init__(sets[0], device=device)
        self._datasets = [PatientBatches(images, device=device) for images in sets]
        self._starts = np.cumsum([0, *(len(images) for images in sets)])
        for other in self._datasets[1:]:
            if other.shape != self.shape or other.images.header.classes != self.images.header.classes:
                problem = "the sets to train on differ in size, channels, labels or classes"
                raise ConfigError(problem, value=f"{self.shape} and {other.shape}")

    @property
    def count(self) -> int:
        """Images in all sets together."""
        return int(self._starts[-1])

    def fetch(self, rows: NDArray[np.int64]) -> Tensors:
        """The images at `rows`, counted through all sets."""
        owner = np.searchsorted(self._starts, rows, side="right") - 1
        order = np.argsort(owner, kind="stable")
        parts = [
            dataset.fetch(rows[owner == number] - self._starts[number])
            for number, dataset in enumerate(self._datasets)
            if (owner == number).any()
        ]
        back = torch.from_numpy(np.argsort(order))
        return {name: torch.cat([part[name] for part in parts])[back] for name in parts[0]}


def learn(
    sets: Sequence[ImageSet],
    settings: TaskSettings,
    *,
    reference: ImageSet | None = None,
    start: Task | None = None,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> Trained:
    """A task network trained on all images of `sets`; with `start` it goes on from that one (fine-tuning), and is that
    one where no step makes it better on `reference`.

    It carries the exponential moving average (EMA) of its weights, of the step at which `reference` was scored best;
    without reference patients that of the last step. `on_step` is called with the steps taken and the ceiling.
    """
    with torch.random.fork_rng(devices=[]), cpu_threads(settings.threads):
        trainer = task_trainer(sets, settings)
        if start is not None:
            trainer.family.load_state_dict(start.state_dict())
            trainer.ema.update(trainer.family, -1)  # the average starts from there too
        stopping = EarlyStopping(reference, device=open_device(settings.device))
        if start is not None:
            stopping.seen(start)  # where no step helps, what tuning began with is the best
        for report in trainer.run(settings.steps):
            on_step(report.step + 1, settings.steps)
            if is_check(report.step + 1, settings.steps) and _no_more_gain(trainer, stopping):
                break
        task = released(trainer)
        collapsed = has_collapsed(task, sets, seed=settings.seed)  # early weights may not have learned their images yet
        stopping.restore(task)
        return Trained(task=task.eval(), steps=trainer.step, collapsed=collapsed)


def is_check(steps: int, ceiling: int) -> bool:
    """Whether the reference patients are looked at after so many steps."""
    return steps % CHECK == 0 or steps == ceiling


def _no_more_gain(trainer: Trainer, stopping: EarlyStopping) -> bool:
    task = trainer.family
    assert isinstance(task, Task)
    with trainer.ema.in_place(task):
        return stopping.seen(task)


def task_trainer(sets: Sequence[ImageSet], settings: TaskSettings, *, stream: int | None = None) -> Trainer:
    """A trainer at its first step. First weights follow from the seed; batches from `stream`, the seed if not given."""
    dataset = PooledBatches(sets, device=open_device(settings.device))
    with global_randomness(stream_seed(settings.seed, "task")):
        task = build_task(settings.network, dataset.shape, augment=settings.augment).to(dataset.device)
    seed = settings.seed if stream is None else stream
    return Trainer(
        task,
        settings.recipe,
        seed=seed,
        total_steps=settings.steps,
        gradients=PlainGradients(task, dataset, seed=seed, batch=settings.batch),
        device=dataset.device,
    )


def released(trainer: Trainer) -> Task:
    """The trained task with the exponential moving average (EMA) of its weights, ready to be asked."""
    task = trainer.family
    assert isinstance(task, Task)
    task.nets.load_state_dict(trainer.ema.values, strict=False)
    return task.eval()


def predictions(task: Task, images: ImageSet) -> Iterator[NDArray[np.float32]]:
    """Probabilities for every image in turn: (labels, ...) of every pixel, or (classes,)."""
    device = next(task.parameters()).device
    dataset = PatientBatches(images, device=device)
    for start in range(0, len(images), BLOCK):
        rows = np.arange(start, min(len(images), start + BLOCK))
        with torch.no_grad(), cpu_threads(1):  # as in training: runs side by side would fight over the cores
            made = task.predict(dataset.fetch(rows)["image"]).float().cpu().numpy()
        yield from made
