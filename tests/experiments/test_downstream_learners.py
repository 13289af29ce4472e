"""Task networks for the benchmarks: hospitals are averaged by their images, and predictions are probabilities."""

import numpy as np
import pytest
import torch

from fedsynth.data.phantoms.cohort import make_phantoms
from fedsynth.data.phantoms.settings import PhantomSettings
from fedsynth.experiments.downstream_learners import TaskLearner
from fedsynth.training.downstream import task_trainer
from fedsynth.training.random_streams import stream_seed
from fedsynth.training.settings import TaskSettings

SETTINGS = TaskSettings(network="densenet", steps=4, batch=4)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    settings = PhantomSettings(size=32, patients=8, slices=2, sites=2)
    return make_phantoms(tmp_path_factory.mktemp("set") / "set", settings, workers=1)


def weights(task):
    return torch.cat([value.flatten() for value in task.state_dict().values()])


def test_hospitals_are_averaged_by_their_images_and_the_order_of_steps_is_fixed(images):
    counts = {"hospital-1": 6, "hospital-2": 2}
    sites = {site: images.select(site=site).rows(np.arange(n)) for site, n in counts.items()}
    learner = TaskLearner(TaskSettings(network="densenet", steps=1, batch=4))
    once = learner.learn_federated(sites, seed=0, augment=True)[None]
    parts = []
    for number, site in enumerate(sites.values()):
        trainer = task_trainer(
            [site], TaskSettings(network="densenet", steps=1, batch=4), stream=stream_seed(0, "site", number)
        )
        list(trainer.run(1))
        parts.append(weights(trainer.family))
    torch.testing.assert_close(weights(once.task), 0.75 * parts[0] + 0.25 * parts[1], atol=1e-6, rtol=1e-5)


def test_predictions_are_probabilities_in_order(images):
    learned = TaskLearner(SETTINGS).learn([images], seed=0, augment=False)
    found = np.stack(list(learned.predict(images)))
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(found[3:4], np.stack(list(learned.predict(images.rows(np.array([3]))))), atol=1e-5)
