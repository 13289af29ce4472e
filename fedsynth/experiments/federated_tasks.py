"""Federated training of a task network, in one process: the rounds of a federation, by the strategies of generators.

What travels stays in this process, for a benchmark asks only what comes out. Optimisers stay at the sites.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedsynth.data import ImageSet
from fedsynth.errors import ConfigError
from fedsynth.evaluation.utility.training_arms import PERSONAL, at_site
from fedsynth.federation.proximal import Proximal
from fedsynth.federation.strategies import Reply, ServerStrategy, make_strategy, proximal_mu
from fedsynth.models.downstream.networks import normalisation_entries
from fedsynth.models.downstream.tasks import Task
from fedsynth.training.downstream import Trained, task_trainer
from fedsynth.training.random_streams import stream_seed
from fedsynth.training.settings import TaskSettings, cpu_threads, open_device
from fedsynth.training.stopping import EarlyStopping, has_collapsed

ROUNDS = 20
Weights = dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class TaskFederation:
    """How the sites' task networks become one: a strategy of generators, or FedBN (Li et al. 2021).

    FedBN averages as FedAvg does and leaves normalisation layers out: each site keeps its own, so there is a network
    for each.
    """

    strategy: str = "fedavg"
    options: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.at_server()

    @property
    def personal(self) -> bool:
        """Whether every site has a network of its own."""
        return self.strategy == PERSONAL

    @property
    def pull(self) -> float:
        """Of FedProx towards the received weights; 0 for other strategies."""
        return proximal_mu(self.options) if self.strategy == "fedprox" else 0.0

    def at_server(self, task: Task | None = None) -> ServerStrategy:
        """What the server does with the sites' weights."""
        if self.personal and self.options:
            raise ConfigError(f"{self.strategy} has no options", value=next(iter(self.options)))
        buffers = [] if task is None else [name for name, _ in task.named_buffers()]
        return make_strategy("fedavg" if self.personal else self.strategy, self.options, buffers=buffers)


class _Site:
    """One site's images, its network with its optimiser, and what of the network leaves."""

    def __init__(self, images: ImageSet, settings: TaskSettings, federation: TaskFederation, *, stream: int) -> None:
        self.images, self.trainer = images, task_trainer([images], settings, stream=stream)
        task = self.trainer.family
        assert isinstance(task, Task)
        self.task = task
        self._stays = normalisation_entries(task) if federation.personal else frozenset[str]()
        self._proximal = Proximal(self.trainer.gradients, task, federation.pull) if federation.pull else None
        if self._proximal is not None:
            self.trainer.gradients = self._proximal

    def shared(self) -> Weights:
        """The weights that leave, as a federation sends them."""
        state = self.task.state_dict()
        return {name: one.detach().cpu().numpy().copy() for name, one in state.items() if name not in self._stays}

    def receive(self, weights: Weights) -> None:
        """Take the server's weights; what stays here is as it was."""
        own = {name: value for name, value in self.task.state_dict().items() if name in self._stays}
        self.task.load_state_dict({**own, **{name: torch.from_numpy(value) for name, value in weights.items()}})

    def train(self, weights: Weights, steps: int) -> Reply:
        """One round; a site weighs as much as it has images, as FedAvg says."""
        self.receive(weights)
        if self._proximal is not None:
            self._proximal.receive()
        for _ in self.trainer.run(steps):
            pass
        return float(len(self.images)), self.shared()


def learn_federated(
    images: Mapping[str, ImageSet],
    settings: TaskSettings,
    federation: TaskFederation,
    *,
    reference: ImageSet | None = None,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str | None, Trained]:
    """A network for all sites under None, or one for each, trained in up to twenty rounds over their images.

    After every round what the sites then have is scored on `reference`; networks of one site on its patients alone.
    """
    with cpu_threads(settings.threads):
        sites = {
            name: _Site(one, settings, federation, stream=stream_seed(settings.seed, "site", number))
            for number, (name, one) in enumerate(images.items())
        }
        first = next(iter(sites.values()))
        used: dict[str | None, _Site] = dict(sites.items()) if federation.personal else {None: first}
        tasks = [site.task for site in used.values()]
        references = [_reference_of(reference, name) for name in used]
        stopping = EarlyStopping(*references, device=open_device(settings.device))
        server, weights = federation.at_server(first.task), first.shared()
        server.start(weights)
        for steps in _rounds(settings.steps):
            weights = server.step(weights, [site.train(weights, steps) for site in sites.values()])
            for site in used.values():
                site.receive(weights)
            on_step(first.trainer.step, settings.steps)
            if stopping.seen(*tasks):
                break
        shown = {name: [site.images] if federation.personal else list(images.values()) for name, site in used.items()}
        collapsed = {name: has_collapsed(used[name].task, shown[name], seed=settings.seed) for name in used}
        stopping.restore(*tasks)
        return {
            name: Trained(task=site.task.eval(), steps=first.trainer.step, collapsed=collapsed[name])
            for name, site in used.items()
        }


def _reference_of(reference: ImageSet | None, site: str | None) -> ImageSet | None:
    return reference if reference is None or site is None else at_site(reference, site)


def _rounds(steps: int) -> list[int]:
    """Up to twenty rounds whose steps add up to `steps`."""
    edges = np.linspace(0, steps, min(ROUNDS, steps) + 1).round().astype(int)
    return [int(length) for length in np.diff(edges)]
