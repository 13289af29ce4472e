"""When training ends: by the reference patients, at the best weights; and what counts as collapsed."""

import numpy as np
import pytest
import torch

from fedsynth.data.phantoms.cohort import make_phantoms
from fedsynth.data.phantoms.settings import PhantomSettings
from fedsynth.models.base import ImageShape
from fedsynth.models.downstream.tasks import build_task
from fedsynth.training import stopping
from fedsynth.training.downstream import learn
from fedsynth.training.patient_batches import PatientBatches
from fedsynth.training.settings import TaskSettings
from fedsynth.training.stopping import FEWEST, PATIENCE, EarlyStopping, has_collapsed, tally

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    settings = PhantomSettings(size=32, patients=16, slices=3, sites=2)
    return make_phantoms(tmp_path_factory.mktemp("set") / "set", settings, workers=1)


def task_that(images, answers, network="unet"):
    """A real task whose predictions are replaced by `answers`, in turn."""
    task = build_task(network, PatientBatches(images).shape)
    task.predict = lambda image: next(answers)  # type: ignore[method-assign]
    return task


def truth(images):
    return PatientBatches(images).fetch(np.arange(len(images)))


def test_the_score_is_dice_over_labels_and_false_positives_count(images):
    batch = truth(images)
    task = task_that(images, iter([batch["mask"]]))
    assert task.quality(task.tally(batch)) == 1
    painted = batch["mask"].clone()
    healthy = (painted[:, 1:].sum((1, 2, 3)) == 0).nonzero()[0, 0]
    painted[healthy, 0, :4], painted[healthy, 1, :4] = 0, 1
    edema = batch["mask"][:, 1].sum()
    task = task_that(images, iter([painted]))
    expected = (2 * edema / (2 * edema + 4 * 32) + 2) / 3
    assert task.quality(task.tally(batch)) == pytest.approx(float(expected))


def test_classes_count_alike_however_rare():
    """Three images of one class and one of another, called right with 0.5 and 1."""
    chances = torch.tensor([[0.5, 0.5]] * 3 + [[0.0, 1.0]])
    label = torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]])

    task = build_task("densenet", ImageShape(channels=1, size=(8, 8), n_classes=2, n_labels=0, channel_names=("t1",)))
    task.predict = lambda image: chances
    assert task.quality(task.tally({"image": chances, "label": label})) == pytest.approx(0.75)


def test_training_ends_after_so_many_looks_without_a_gain_at_the_best_weights(images):
    images = images.rows(np.arange(30))  # one block
    batch = truth(images)
    good, none = batch["mask"], torch.zeros_like(batch["mask"])
    none[:, 0] = 1
    before = FEWEST - PATIENCE - 1
    task = task_that(images, iter([none] * before + [good] + [none] * PATIENCE))
    stop = EarlyStopping(images, device=CPU)
    first = next(task.parameters())
    said = []
    for number in range(FEWEST):
        with torch.no_grad():
            first.fill_(number)
        said.append(stop.seen(task))
    assert said == [False] * (FEWEST - 1) + [True]
    stop.restore(task)
    assert (next(task.parameters()) == before).all()


def test_without_reference_patients_training_goes_to_the_ceiling(images):
    task = task_that(images, iter([]))
    stop = EarlyStopping(None, device=CPU)
    assert not any(stop.seen(task) for _ in range(FEWEST + 2))
    healthy = images.rows(np.flatnonzero(~np.asarray(images.masks).reshape(len(images), -1).any(1)))
    blank = torch.zeros(len(healthy), 4, 32, 32)
    stop = EarlyStopping(healthy, device=CPU)
    assert not any(stop.seen(task_that(images, iter([blank]))) for _ in range(FEWEST + 2))


def test_networks_of_several_sites_end_together_and_go_back_to_one_moment(images):
    """The second has no reference patients, the third's cannot be scored: the first and the fourth are averaged."""
    images = images.rows(np.arange(30))
    batch = truth(images)
    good, none = batch["mask"], torch.zeros_like(batch["mask"])
    none[:, 0] = 1
    healthy = images.rows(np.flatnonzero(~np.asarray(images.masks).reshape(len(images), -1).any(1)))
    blank = torch.zeros(len(healthy), 4, 32, 32)
    answers = [iter([none, good, none]), iter([]), iter([blank] * 3), iter([good, good, none])]
    tasks = [task_that(images, one) for one in answers]
    stop = EarlyStopping(images, None, healthy, images, device=CPU)
    for number in range(3):
        for task in tasks:
            with torch.no_grad():
                next(task.parameters()).fill_(number)
        assert not stop.seen(*tasks)
    stop.restore(*tasks)
    assert all((next(task.parameters()) == 1).all() for task in tasks)


def test_a_run_ends_before_the_ceiling_when_nothing_is_gained(images, monkeypatch):
    monkeypatch.setattr(stopping, "GAIN", 1.0)
    monkeypatch.setattr("fedsynth.training.downstream.CHECK", 1)
    few = images.rows(np.arange(8))
    done = learn([few], TaskSettings(network="densenet", steps=40, batch=2), reference=few)
    assert done.steps == FEWEST


def test_what_finds_nothing_in_its_own_images_has_collapsed(images):
    batch = truth(images)
    none = torch.zeros_like(batch["mask"])
    none[:, 0] = 1
    assert has_collapsed(task_that(images, iter(none.split(32))), [images], seed=0)
    assert not has_collapsed(task_that(images, iter(batch["mask"].split(32))), [images], seed=0)
    one = torch.zeros(len(images), 3)
    one[:, 1] = 1
    assert has_collapsed(task_that(images, iter(one.split(32)), "densenet"), [images], seed=0)
    assert not has_collapsed(task_that(images, iter(batch["label"].split(32)), "densenet"), [images], seed=0)
    same = images.select(label="healthy")
    assert not has_collapsed(task_that(images, iter(one[: len(same)].split(32)), "densenet"), [same], seed=0)


def test_a_tally_does_not_depend_on_the_blocks(images, monkeypatch):
    task, dataset = build_task("unet", PatientBatches(images).shape).eval(), PatientBatches(images)
    whole = tally(task, dataset)
    monkeypatch.setattr(stopping, "BLOCK", 7)
    torch.testing.assert_close(tally(task, dataset), whole)
