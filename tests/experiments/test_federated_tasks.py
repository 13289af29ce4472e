"""Federated task networks on images of 8 x 8: strategies against those that they must equal, FedBN by what stays."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

from fedsynth import config
from fedsynth.data.image_set import concatenate
from fedsynth.errors import ConfigError
from fedsynth.evaluation.settings import SegmentationSettings, TaskStrategy
from fedsynth.experiments import federated_tasks
from fedsynth.experiments.downstream_learners import TaskLearner
from fedsynth.experiments.federated_tasks import TaskFederation
from fedsynth.federation.strategies import STRATEGIES
from fedsynth.models.base import ImageShape
from fedsynth.models.downstream.networks import normalisation_entries
from fedsynth.models.downstream.tasks import build_task
from fedsynth.training.downstream import task_trainer
from fedsynth.training.patient_batches import PatientBatches
from fedsynth.training.random_streams import stream_seed
from fedsynth.training.settings import TaskSettings
from fedsynth.training.stopping import tally
from tests.training.tiny import tiny_set

SETTINGS = TaskSettings(network="unet", steps=6, batch=4, rate=5e-3, augment=False)


@pytest.fixture(autouse=True)
def two_rounds(monkeypatch):
    monkeypatch.setattr(federated_tasks, "ROUNDS", 2)


@pytest.fixture(scope="module")
def sites():
    """Two sites of different size; at the second everything is darker."""
    images = tiny_set(patients=6, slices=3)
    dark = replace(images, images=(np.asarray(images.images) // 3).astype(np.uint8))
    return {"north": images.rows(np.arange(12)), "south": dark.rows(np.arange(12, 18))}


def federated(sites, strategy, **options):
    learner = TaskLearner(SETTINGS, federation=TaskFederation(strategy=strategy, options=options))
    return learner.learn_federated(sites, seed=0, augment=False)


def state(networks, site=None):
    return networks[site].task.state_dict()


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("strategy", ["fedavg", "fedbn"])
def test_one_site_alone_is_local_training(sites, strategy):
    alone = {"north": sites["north"]}
    together = state(federated(alone, strategy), "north" if strategy == "fedbn" else None)
    trainer = task_trainer([sites["north"]], SETTINGS, stream=stream_seed(0, "site", 0))
    list(trainer.run(SETTINGS.steps))
    for name, value in trainer.family.state_dict().items():
        torch.testing.assert_close(together[name], value, atol=1e-6, rtol=1e-5)


def test_without_its_pull_fedprox_is_fedavg_and_with_it_is_not(sites):
    plain = state(federated(sites, "fedavg"))
    assert_same(state(federated(sites, "fedprox", mu=0.0)), plain)
    begun = build_and_state()
    pulled = state(federated(sites, "fedprox", mu=1e4))
    assert distance(pulled, begun) < 0.7 * distance(plain, begun)


def build_and_state():
    trainer = task_trainer([tiny_set()], SETTINGS)
    return trainer.family.state_dict()


def distance(a, b):
    return float(sum((a[name] - b[name]).square().sum() for name in a) ** 0.5)


def test_without_momentum_fedavgm_is_fedavg_and_with_it_is_not(sites):
    plain = state(federated(sites, "fedavg"))
    still = state(federated(sites, "fedavgm", momentum=0.0, rate=1.0))
    for name, value in plain.items():
        torch.testing.assert_close(still[name], value, atol=1e-6, rtol=1e-5)
    assert distance(state(federated(sites, "fedavgm", momentum=0.9, rate=1.0)), plain) > 1e-3


def test_every_strategy_gives_other_weights(sites):
    found = [state(federated(sites, name)) for name in ("fedavg", "fedprox", "fedavgm", "fedadam", "fedmedian")]
    for i, one in enumerate(found):
        assert all(torch.isfinite(value).all() for value in one.values())
        assert all(distance(one, other) > 0 for other in found[:i])


@pytest.mark.parametrize("network", ["unet", "resnet"])
def test_with_fedbn_normalisation_layers_differ_between_sites_and_nothing_else_does(sites, network):
    settings = replace(SETTINGS, network=network)
    learner = TaskLearner(settings, federation=TaskFederation(strategy="fedbn"))
    networks = learner.learn_federated(sites, seed=0, augment=False)
    assert set(networks) == set(sites)
    north, south = state(networks, "north"), state(networks, "south")
    stays = normalisation_entries(networks["north"].task)
    assert stays
    assert {name for name in north if not torch.equal(north[name], south[name])} == stays


@pytest.mark.parametrize(("network", "kinds"), [("swin", 2), ("vit", 1), ("resnet", 1), ("densenet", 1), ("unet", 1)])
def test_all_layers_with_norm_in_their_name_stay(network, kinds):
    shape = ImageShape(channels=1, size=(32, 32), n_classes=2, n_labels=2)
    task = build_task(network, shape)
    stays = normalisation_entries(task)
    named = {type(layer).__name__ for layer in task.modules() if "Norm" in type(layer).__name__}
    assert len(named) == kinds
    found = [
        f"{name}.{entry}"
        for name, layer in task.named_modules()
        if type(layer).__name__ in named
        for entry in layer.state_dict()
    ]
    assert stays == set(found)
    assert 0 < len(stays) < len(task.state_dict())


def test_the_round_that_is_kept_is_best_on_average_over_each_sites_own_reference_patients(sites, monkeypatch):
    """By hand: weights after one round and after both, and every site's network on its own patients."""
    learner = TaskLearner(SETTINGS, federation=TaskFederation(strategy="fedbn"))
    monkeypatch.setattr(federated_tasks, "ROUNDS", 1)
    once = TaskLearner(replace(SETTINGS, steps=3), federation=learner.federation)
    rounds = [once.learn_federated(sites, seed=0, augment=False)]
    monkeypatch.setattr(federated_tasks, "ROUNDS", 2)
    rounds.append(learner.learn_federated(sites, seed=0, augment=False))
    own = {name: images.with_cases(images.cases.assign(site=name)) for name, images in sites.items()}
    wrong = (np.asarray(own["south"].masks) == 0).astype(np.uint8)  # the longer it learns, the worse it does
    own["south"] = replace(own["south"], masks=wrong)
    kept = []
    for reference in (own["north"], own["south"], concatenate([own["north"], own["south"]])):
        named = sorted(set(reference.cases["site"]))
        found = [np.mean([quality(networks[name], own[name]) for name in named]) for networks in rounds]
        assert found[0] != found[1]
        networks = learner.learn_federated(sites, seed=0, augment=False, reference=reference)
        kept.append(int(np.argmax(found)))
        for name in sites:
            assert_same(state(networks, name), state(rounds[kept[-1]], name))
    assert set(kept) == {0, 1}
    elsewhere = own["south"].with_cases(own["south"].cases.assign(site="elsewhere"))  # chooses for neither site
    networks = learner.learn_federated(sites, seed=0, augment=False, reference=elsewhere)
    for name in sites:
        assert_same(state(networks, name), state(rounds[-1], name))


def quality(learned, images):
    return learned.task.quality(tally(learned.task, PatientBatches(images)))


def test_sites_tune_the_federated_network_each_for_itself(sites):
    learner = TaskLearner(replace(SETTINGS, steps=8))
    begun = learner.learn_federated(sites, seed=0, augment=False)[None]
    tuned = {name: learner.learn([images], seed=0, augment=False, start=begun) for name, images in sites.items()}
    assert distance(tuned["north"].task.state_dict(), tuned["south"].task.state_dict()) > 0
    assert tuned["north"].steps == 2  # a fourth
    before, after = state({None: begun}), tuned["north"].task.state_dict()
    assert 0 < distance(before, after) < 1


def test_strategies_are_those_of_generators_and_fedbn():
    assert set(get_args(TaskStrategy)) == {*STRATEGIES, "fedbn"}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"strategy": "fedprx"}, "did you mean 'fedprox'"),
        ({"strategy": "FedBN"}, "did you mean 'fedbn'"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(table, said):
    with pytest.raises(ConfigError, match=said):
        config.read_table(SegmentationSettings, table)


@pytest.mark.parametrize(
    ("strategy", "options", "said"),
    [
        ("fedbn", {"mu": 1.0}, "fedbn has no options"),
        ("fedprox", {"strength": 1.0}, "fedprox has no such option"),
        ("fedpro", {}, "did you mean 'fedprox'"),
    ],
)
def test_options_that_a_strategy_does_not_have_are_refused(strategy, options, said):
    with pytest.raises(ConfigError, match=said):
        TaskFederation(strategy=strategy, options=options)
