"""The utility benchmark: what must come out when the answer is known, and what is refused."""

from dataclasses import asdict, dataclass, replace

import numpy as np
import pytest

from fedsynth.data.phantoms.cohort import make_phantoms
from fedsynth.data.phantoms.settings import PhantomSettings
from fedsynth.errors import FedSynthError
from fedsynth.evaluation.utility.arm_cache import ArmCache
from fedsynth.evaluation.utility.arm_trainings import Plan
from fedsynth.evaluation.utility.benchmark import prepare, run_utility
from fedsynth.evaluation.utility.training_arms import Material, parse_arms
from fedsynth.experiments.downstream_learners import TaskLearner
from fedsynth.training.settings import TaskSettings

pytestmark = pytest.mark.usefixtures("few_draws")


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


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Arms on real images are the same in every test that trains alike."""
    return ArmCache(folder=tmp_path_factory.mktemp("arms"))


def scores_of(real, synthetic, *arms, kind="segmentation", network="unet", seeds=1, steps=60, kept=None):
    task = TaskSettings(network=network, steps=steps, batch=8, rate=5e-3)
    plan = Plan(kind=kind, arms=[(arm, False) for arm in arms], seeds=seeds, settings=asdict(task))
    return run_utility(real, synthetic, plan, TaskLearner(task), kept=kept)


def noise_of(real):
    """The pixels of every image in random order, the masks as they are."""
    members = real.select(role="member")
    pixels = np.asarray(members.images)
    noise = np.random.default_rng(0).permuted(pixels.reshape(*pixels.shape[:2], -1), axis=2).reshape(pixels.shape)
    return synthetic_of(members, images=noise)


class Oracle:
    """Finds, of the lesions of real patients, the share that the sets it learned from are known to teach."""

    def __init__(self, teaches, collapses=()):
        self.teaches, self.collapses, self.seeds = teaches, collapses, []

    def learn(self, sets, *, seed, augment, reference=None, start=None):
        name = sets[0].header.name
        self.seeds.append((name, seed))
        taught = [self.teaches[one.header.name] for one in sets] + ([] if start is None else [start.teaches])
        return Known(teaches=float(np.mean(taught)), collapsed=(name, seed) in self.collapses, seed=seed)


@dataclass(frozen=True, kw_only=True)
class Known:
    teaches: float
    collapsed: bool
    seed: int
    steps: int = 7

    def predict(self, images):
        rng = np.random.default_rng(self.seed)
        for mask in np.asarray(images.masks):
            kept = np.where(rng.random(mask.shape) < self.teaches, mask, 0)
            yield (kept[None] == np.arange(4)[:, None, None]).astype(np.float32)


def one_slice_each(real):
    return real.rows(np.flatnonzero(~real.cases["patient"].duplicated()))


def known(real, teaches, *, collapses=(), nobody=None, kept=None, seeds=1, arms=("real", "synthetic")):
    learner = Oracle({"phantom": 0.9, "mean-image": 0.3, **teaches}, collapses)
    synthetic = synthetic_of(real.select(role="member"))
    synthetic = replace(synthetic, header=replace(synthetic.header, name="made"))
    plan = Plan(kind="segmentation", arms=[(arm, False) for arm in arms], seeds=seeds, nobody=nobody or {})
    return run_utility(real, synthetic, plan, learner, kept=kept), learner


def test_every_arm_stands_beside_the_real_one(real, others, kept):
    result = scores_of(real, others, "real", "synthetic", kept=kept)
    controls = [result.scores[f"dice/{arm}"].value for arm in ("threshold", "mean-image")]
    assert result.scores["dice/synthetic"].baseline == pytest.approx(max(controls))
    assert result.scores["fp_area/synthetic"].control == pytest.approx(result.scores["fp_area/real"].value)
    assert "dice_skill/mean-image" not in result.scores
    assert result.scores["dice/synthetic"].value != result.scores["dice/real"].value  # other images, another network
    assert result.scores["dice/synthetic"].control == pytest.approx(result.scores["dice/real"].value)
    with_lesion = real.select(role="holdout").rows(holdout_with_lesion(real)).cases["patient"].nunique()
    assert result.scores["dice/real"].n == result.scores["dice_ratio/synthetic"].n == with_lesion
    assert with_lesion < result.inputs["real"].roles["holdout"]
    assert set(result.per_site) == set(real.cases["site"])
    of_groups = [scores for by_name in result.details["subgroups"].values() for scores in by_name.values()]
    assert of_groups
    assert all(set(scores) == {"dice/synthetic", "dice_ratio/synthetic"} for scores in of_groups)
    assert all(6 <= scores["dice/synthetic"].n <= with_lesion for scores in of_groups)
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


def test_noise_and_shuffled_masks_are_worse_than_right_ones(real, kept):
    members = real.select(role="member")
    masks = np.asarray(members.masks)
    shuffled = synthetic_of(members, masks=masks[np.random.default_rng(0).permutation(len(masks))])
    right = scores_of(real, None, "real", kept=kept).scores["dice/real"].value
    for wrong in (noise_of(real), shuffled):
        assert scores_of(real, wrong, "synthetic", kept=kept).scores["dice/synthetic"].value < 0.6 * right


@pytest.mark.slow
def test_a_copier_has_the_skill_of_real_images_and_noise_has_none(real):
    copier = scores_of(real, synthetic_of(real.select(role="member")), "real", "synthetic", steps=400).scores
    noise = scores_of(real, noise_of(real), "real", "synthetic", steps=400).scores
    for name in ("dice_mean_skill/synthetic", "brats_slice_dice_skill/synthetic"):
        assert copier[name].value == pytest.approx(1, abs=0.01), name  # the same images, the same seed
        assert noise[name].value < 0.2, name


def test_a_set_lies_between_the_best_control_and_real_images(real):
    scores = {teaches: known(real, {"made": teaches})[0].scores for teaches in (0.9, 0.3, 0.05)}
    assert scores[0.9]["dice_mean_skill/synthetic"].value == pytest.approx(1, abs=0.02)
    assert scores[0.3]["dice_mean_skill/synthetic"].value == pytest.approx(0, abs=0.05)  # as the mean image
    assert scores[0.05]["dice_mean_skill/synthetic"].high < 0
    assert scores[0.9]["fp_area/synthetic"].value == 0


def test_a_collapsed_training_is_repeated_once_in_whichever_arm_and_counted(real):
    collapses = {("made", 0), ("made", 2), ("made", 1002), ("phantom", 1)}
    result, learner = known(real, {"made": 0.5}, collapses=collapses, seeds=3)
    found = result.details["trainings"]
    assert found["synthetic"] == {"steps": [7, 7, 7], "repeated": 2, "collapsed": 1}
    assert found["real"] == {"steps": [7, 7, 7], "repeated": 1, "collapsed": 0}
    assert found["mean-image"]["repeated"] == 0
    assert [seed for name, seed in learner.seeds if name == "made"] == [0, 1000, 1, 2, 1002]


@pytest.mark.parametrize(
    ("made", "public", "said"),
    [
        (0.8, 0.4, "better than images not derived from members"),  # one arm alone never says that patients added
        (0.4, 0.8, "worse than images not derived from members"),
        (0.6, 0.6, "no gain shown"),
    ],
)
@pytest.mark.parametrize("name", ["public", "placebo"])
def test_what_patients_add_to_images_of_nobody(real, made, public, said, name):
    real = one_slice_each(real)
    nobody = synthetic_of(real.select(role="member").rows(np.arange(9)))
    nobody = replace(nobody, header=replace(nobody.header, name="nobody"))
    result, _ = known(real, {"made": made, "nobody": public}, nobody={name: nobody}, seeds=3)
    assert result.details[f"over_{name}"]["synthetic"].startswith(said)
    assert result.scores[f"dice_over_{name}/synthetic"].value == pytest.approx(
        result.scores["dice/synthetic"].value - result.scores[f"dice/{name}"].value
    )
    assert result.inputs[name].images == 9


def test_patients_added_nothing_where_public_images_do_as_well_however_bad_the_placebo(real):
    real, arms = one_slice_each(real), {}
    for name in ("public", "placebo"):
        nobody = synthetic_of(real.select(role="member").rows(np.arange(9)))
        arms[name] = replace(nobody, header=replace(nobody.header, name=name))
    alike, _ = known(real, {"made": 0.8, "public": 0.8, "placebo": 0.4}, nobody=arms, seeds=3)
    said = alike.details["over_placebo"]["synthetic"]
    assert "not shown to be better than the public ones" in said
    assert "patients added" not in said
    better, _ = known(real, {"made": 0.8, "public": 0.4, "placebo": 0.4}, nobody=arms, seeds=3)
    assert better.details["over_placebo"]["synthetic"].startswith("patients added")


def test_arms_without_the_synthetic_set_are_trained_once_for_all_rows(real, tmp_path):
    real = one_slice_each(real)
    kept = ArmCache(folder=tmp_path)
    first, trained = known(real, {"made": 0.5}, kept=kept)
    again, few = known(real, {"made": 0.7}, kept=kept)
    assert {name for name, _ in trained.seeds} == {"phantom", "mean-image", "made"}
    assert {name for name, _ in few.seeds} == {"made"}
    assert again.scores["dice/real"] == first.scores["dice/real"]
    assert again.details["trainings"]["real"] == first.details["trainings"]["real"]
    other = real.with_cases(
        real.cases.assign(role=real.cases["role"].replace({"member": "holdout", "holdout": "member"}))
    )
    assert {name for name, _ in known(other, {"made": 0.5}, kept=kept)[1].seeds} >= {"phantom", "mean-image"}


def test_without_reference_patients_there_are_no_controls(real):
    kept = one_slice_each(real).select(role=["member", "holdout"])
    result, _ = known(kept, {"made": 0.5})
    assert "reference" in result.details["why_no_controls"]
    assert "reference" in result.details["why_no_early_stop"]
    assert result.scores["dice/synthetic"].baseline is None
    assert result.scores["dice_skill/synthetic"].value is None


def test_mislabelled_classes_lower_accuracy_and_the_baseline_is_the_commonest_class(real):
    """Each image carries a bar as bright as its class, so that the right answer can be learnt in no time."""
    names = real.header.classes
    pixels = np.asarray(real.images).copy()
    pixels[:, :, :8] = np.array([names.index(name) for name in real.cases["class"]])[:, None, None, None] * 100
    barred = replace(real, images=pixels)
    members = barred.select(role="member")
    wrong = dict(zip(names, np.roll(names, 1), strict=True))
    mislabelled = synthetic_of(members.with_cases(members.cases.assign(**{"class": members.cases["class"].map(wrong)})))
    result = scores_of(barred, mislabelled, "real", "synthetic", kind="classification", network="resnet")
    holdout = real.select(role="holdout").cases["class"]
    assert result.scores["accuracy/real"].baseline == pytest.approx(holdout.value_counts(normalize=True).max())
    assert result.scores["accuracy/real"].value > 0.9
    assert result.scores["auc/real"].value > 0.9
    assert result.scores["accuracy/synthetic"].value < 0.1
    assert result.scores["accuracy_ratio/synthetic"].high < 0.5


ARMS = ("real", "real-local", "synthetic-then-10%-real", "real+synthetic")


def test_hospitals_alone_and_fine_tuning(real):
    real = one_slice_each(real)
    result = scores_of(real, synthetic_of(real.select(role="member")), *ARMS, steps=2)
    assert {f"dice/{arm}" for arm in (*ARMS, "threshold", "mean-image")} <= result.scores.keys()
    assert "dice_ratio/real-local" in result.per_site["hospital-1"]


def test_three_seeds_are_tested_in_pairs(real):
    result, learner = known(one_slice_each(real), {"made": 0.5}, seeds=3, arms=ARMS)
    assert {seed for _, seed in learner.seeds} == {0, 1, 2}
    assert set(result.details["paired"]) == set(ARMS) - {"real"}
    for found in result.details["paired"].values():
        assert found["p"] <= found["p_holm"] <= 1
    assert result.details["paired"]["synthetic-then-10%-real"]["p"] < 0.05 < result.details["paired"]["real-local"]["p"]


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
        parse_arms(
            text.split(","), augmentation=augmentation, material=Material(members=real, synthetic=None), holdout=real
        )


def test_arms_come_with_and_without_augmentation(real):
    material = Material(members=real, synthetic=None)
    found = parse_arms(["real", "real-local"], augmentation="both", material=material, holdout=real)
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
