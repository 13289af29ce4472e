"""The utility benchmark: what must come out when the answer is known, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from fedsynth.benchmark.utility.arms import Material, parse_arms
from fedsynth.benchmark.utility.utility import Plan, prepare, run_utility
from fedsynth.errors import FedSynthError
from fedsynth.images.phantom.cohort import PhantomSettings, make_phantoms
from fedsynth.study.learners import TaskLearner
from fedsynth.training.tasks import TaskSettings


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    settings = PhantomSettings(size=32, patients=40, slices=3, sites=2)
    return make_phantoms(tmp_path_factory.mktemp("set") / "set", settings, workers=1)


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """As many other patients of the same kind as the real set has members, as if they were synthetic."""
    settings = PhantomSettings(size=32, patients=40, slices=3, sites=2, seed=1)
    return synthetic_of(
        make_phantoms(tmp_path_factory.mktemp("others") / "set", settings, workers=1).select(role="member")
    )


def holdout_with_lesion(real):
    masks = np.asarray(real.select(role="holdout").masks)
    return np.flatnonzero(masks.reshape(len(masks), -1).any(1))


def synthetic_of(members, **changes):
    blank = members.cases.assign(patient="", site="", role="")
    header = replace(members.header, origin="synthetic", split=None)
    return replace(members, **{"header": header, "cases": blank, **changes})


def scores_of(real, synthetic, *arms, kind="segmentation", network="unet", seeds=1, steps=60):
    plan = Plan(kind=kind, arms=[(arm, False) for arm in arms], seeds=seeds)
    learner = TaskLearner(TaskSettings(network=network, steps=steps, batch=8, rate=5e-3))
    return run_utility(real, synthetic, plan, learner)


def test_every_arm_stands_beside_the_real_one(real, others):
    result = scores_of(real, others, "real", "synthetic")
    assert result.scores["dice/real"].value > 2 * result.scores["dice/real"].baseline
    assert result.scores["dice/synthetic"].value != result.scores["dice/real"].value  # other images, another network
    assert result.scores["dice/synthetic"].control == pytest.approx(result.scores["dice/real"].value)
    with_lesion = real.select(role="holdout").rows(holdout_with_lesion(real)).cases["patient"].nunique()
    assert result.scores["dice/real"].n == result.scores["dice_ratio/synthetic"].n == with_lesion
    assert with_lesion < result.inputs["real"].roles["holdout"]
    assert set(result.per_site) == set(real.cases["site"])
    assert result.details["paired"] == {}
    assert "luck" in result.details["intervals"]


@pytest.mark.slow
def test_other_patients_are_as_good_as_members_and_shuffled_masks_are_not(real, others):
    """A perfect generator: patients of the same kind who are not the members. Three trainings, all seeded."""
    result = scores_of(real, others, "real", "synthetic", seeds=3, steps=120)
    ratio = result.scores["dice_ratio/synthetic"]
    assert ratio.low <= 1 <= ratio.high
    assert ratio.high - ratio.low < 0.5
    assert result.details["paired"]["synthetic"]["p"] > 0.05
    masks = np.asarray(others.masks)[np.random.default_rng(0).permutation(len(others))]
    shuffled = scores_of(real, replace(others, masks=masks), "real", "synthetic", seeds=3, steps=120)
    assert shuffled.scores["dice_ratio/synthetic"].high < 0.9
    assert shuffled.details["paired"]["synthetic"]["p"] < 0.05


def test_noise_and_shuffled_masks_are_worse_than_right_ones(real):
    rng = np.random.default_rng(0)
    members = real.select(role="member")
    pixels, masks = np.asarray(members.images), np.asarray(members.masks)
    noise = rng.permuted(pixels.reshape(*pixels.shape[:2], -1), axis=2).reshape(pixels.shape)
    right = scores_of(real, None, "real").scores["dice/real"].value
    for wrong in (synthetic_of(members, images=noise), synthetic_of(members, masks=masks[rng.permutation(len(masks))])):
        assert scores_of(real, wrong, "synthetic").scores["dice/synthetic"].value < 0.6 * right


def test_mislabelled_classes_lower_accuracy_and_the_baseline_is_the_commonest_class(real):
    """Each image carries a bar as bright as its class, so that the right answer can be learnt in no time."""
    names = real.header.classes
    pixels = np.asarray(real.images).copy()
    pixels[:, :, :8] = np.array([names.index(name) for name in real.cases["class"]])[:, None, None, None] * 100
    barred = replace(real, images=pixels)
    members = barred.select(role="member")
    wrong = dict(zip(names, np.roll(names, 1), strict=True))
    mislabelled = synthetic_of(members.with_cases(members.cases.assign(**{"class": members.cases["class"].map(wrong)})))
    result = scores_of(barred, mislabelled, "real", "synthetic", kind="classification", network="densenet")
    holdout = real.select(role="holdout").cases["class"]
    assert result.scores["accuracy/real"].baseline == pytest.approx(holdout.value_counts(normalize=True).max())
    assert result.scores["accuracy/real"].value > 0.9
    assert result.scores["auc/real"].value > 0.9
    assert result.scores["accuracy/synthetic"].value < 0.1
    assert result.scores["accuracy_ratio/synthetic"].high < 0.5


def test_hospitals_alone_three_seeds_and_fine_tuning(real):
    synthetic = synthetic_of(real.select(role="member"))
    arms = ("real", "real-local", "synthetic-then-10%-real", "real+synthetic")
    result = scores_of(real, synthetic, *arms, seeds=3, steps=6)
    assert {f"dice/{arm}" for arm in arms} <= result.scores.keys()
    assert set(result.details["paired"]) == set(arms) - {"real"}
    for found in result.details["paired"].values():
        assert found["p"] <= found["p_holm"] <= 1
    assert result.per_site["hospital-1"]["dice_ratio/real-local"].value is not None


def test_a_tenth_has_a_patient_of_every_hospital(real):
    material = Material(members=real.select(role="member"), synthetic=None)
    tenth = material.tenth(0)
    assert set(tenth.cases["site"]) == set(real.cases["site"])
    assert tenth.cases["patient"].nunique() == 2  # a tenth of ten at each of two hospitals


@pytest.mark.parametrize(
    ("text", "augmentation", "said"),
    [
        ("rael", "none", "real"),
        ("synthetic", "none", "synthetic"),
        ("", "none", "arm"),
        ("real", "some", "augmentation"),
    ],
)
def test_arms_that_cannot_be_are_refused(real, text, augmentation, said):
    with pytest.raises(FedSynthError, match=said):
        parse_arms(text, augmentation=augmentation, material=Material(members=real, synthetic=None))


def test_arms_come_with_and_without_augmentation(real):
    material = Material(members=real, synthetic=None)
    found = parse_arms("real,real-local", augmentation="both", material=material)
    assert found == [("real", False), ("real-local", False), ("real", True), ("real-local", True)]


def test_sets_that_do_not_fit_are_refused(real):
    members = real.select(role="member")
    with pytest.raises(FedSynthError, match="holdout"):
        prepare(members, None, "segmentation")
    unmasked = replace(real, header=replace(real.header, mask_labels=()), masks=None)
    with pytest.raises(FedSynthError, match="masks"):
        prepare(unmasked, None, "segmentation")
    one_class = synthetic_of(members.select(label="healthy"))
    with pytest.raises(FedSynthError, match="classes"):
        prepare(real, one_class, "classification")
    small = synthetic_of(
        members, images=np.asarray(members.images)[..., :16], masks=np.asarray(members.masks)[..., :16]
    )
    with pytest.raises(FedSynthError, match="size"):
        prepare(real, small, "segmentation")
