"""Learning a task: it learns, repeats to the bit, goes on from another, and reads several sets as one."""

import numpy as np
import pytest
import torch

from fedsynth.data.phantoms.cohort import make_phantoms
from fedsynth.data.phantoms.settings import PhantomSettings
from fedsynth.errors import ConfigError
from fedsynth.training.downstream import PooledBatches, learn, predictions
from fedsynth.training.patient_batches import PatientBatches
from fedsynth.training.settings import TaskSettings


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    settings = PhantomSettings(size=32, patients=24, slices=4, sites=2)
    return make_phantoms(tmp_path_factory.mktemp("set") / "set", settings)


def weights(task):
    return torch.cat([value.flatten() for value in task.state_dict().values()])


def test_a_unet_learns_tumours_of_others_within_seconds(images):
    task = learn([images.select(role="member")], TaskSettings(steps=60, rate=5e-3, batch=8)).task
    holdout = images.select(role="holdout")
    assert holdout.masks is not None
    truth = np.asarray(holdout.masks) > 0
    guess = np.stack([probabilities.argmax(0) > 0 for probabilities in predictions(task, holdout)])
    assert guess.shape == truth.shape
    assert 2 * (guess & truth).sum() / (guess.sum() + truth.sum()) > 0.4


def test_one_seed_one_result_and_fine_tuning_goes_on_from_where_it_was(images):
    settings = TaskSettings(network="densenet", steps=2, batch=4)
    first, same = learn([images], settings).task, learn([images], settings).task
    assert torch.equal(weights(first), weights(same))
    on = learn([images], TaskSettings(network="densenet", steps=1, batch=4, rate=1e-9), start=first).task
    torch.testing.assert_close(weights(on), weights(first), atol=1e-6, rtol=0)
    elsewhere = learn([images], TaskSettings(network="densenet", steps=2, batch=4, seed=1)).task
    assert not torch.equal(weights(elsewhere), weights(first))


def test_tuning_that_only_makes_it_worse_leaves_the_network_as_it_was(images):
    first = learn([images.select(role="member")], TaskSettings(steps=60, rate=5e-3, batch=8)).task
    harmful = TaskSettings(steps=3, rate=0.5, batch=4)
    members, reference = images.select(role="member"), images.select(role="holdout")
    tuned = learn([members], harmful, start=first, reference=reference)
    assert torch.equal(weights(tuned.task), weights(first))
    assert tuned.steps == 3
    unchecked = learn([members], harmful, start=first)
    assert not torch.equal(weights(unchecked.task), weights(first))


def test_several_sets_are_read_as_one(images):
    one, two = images.rows(np.arange(10)), images.rows(np.arange(10, len(images)))
    rows = np.array([11, 0, 9, 10, len(images) - 1])
    several = PooledBatches([one, two], device=torch.device("cpu"))
    whole = PatientBatches(images)
    assert several.count == len(images)
    for name, value in whole.fetch(rows).items():
        assert torch.equal(several.fetch(rows)[name], value)


def test_sets_of_other_classes_are_refused(images):
    other = images.with_cases(images.cases, classes=tuple(reversed(images.header.classes)))
    with pytest.raises(ConfigError, match="classes"):
        learn([images, other], TaskSettings(steps=1))
    with pytest.raises(ConfigError, match="steps"):
        TaskSettings(steps=0)
