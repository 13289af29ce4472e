"""A simulator fitted to one sum over patients: nearer to them than the wide pool and the placebo, and repeatable."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedsynth.errors import ConfigError, FedSynthError
from fedsynth.models import public_pool
from fedsynth.models.base import ImageShape, SeededSource, Tensors
from fedsynth.models.fitted_family import FittedFamily
from fedsynth.models.generators.catalog import build, find
from fedsynth.models.moment_matching import clipped

SHAPE = ImageShape(
    channels=2,
    size=(20, 20),
    n_classes=3,
    n_labels=4,
    channel_names=("FLAIR", "T1c"),
    class_names=("high-grade", "healthy", "low-grade"),
    label_names=("background", "edema", "core", "enhancing"),
)
PLAIN = ImageShape(channels=1, size=(16, 16), n_labels=2, channel_names=("t2",), label_names=("background", "tumour"))
SMALL = {"pool": 60, "slices": 2, "children": 40}
SMALLEST = {"pool": 24, "slices": 1, "children": 16, "generations": 1}


def small(shape: ImageShape = SHAPE, **options: object) -> FittedFamily:
    family = build("fitted-simulator", shape, **{**SMALL, **options})
    assert isinstance(family, FittedFamily)
    return family


def drawn(family: FittedFamily, n: int, label: int | None = None, seed: int = 0) -> Tensors:
    condition = {} if label is None else {"label": torch.eye(3)[[label] * n]}
    return family.sample(condition, family.noise(n, SeededSource(seed)))


def sums_of(family: FittedFamily, total: np.ndarray, patients: float, variance: float = 0.0) -> Tensors:
    values = {"total": total, "patients": patients, "variance": variance}
    return {f"simulator.{name}": torch.tensor(value, dtype=torch.float64) for name, value in values.items()}


@pytest.fixture(scope="module")
def shifted() -> tuple[FittedFamily, np.ndarray]:
    """A family fitted to patients whose styles come from a corner of the wide family, and their mean vector."""
    family = small()
    simulator = family.simulator
    rng, (low, high) = np.random.default_rng(7), simulator.limits
    patients = [
        replace(simulator.draw(rng), style=low + (high - low) * rng.uniform(0.6, 1, len(low))) for _ in range(40)
    ]
    found = public_pool.show(patients, simulator, 2, rng)
    target = clipped(family.whitening(found.statistics)).mean(0)
    family.fit(0, sums_of(family, 40 * target, 40.0))
    return family, target


def test_what_it_states_of_itself() -> None:
    family, entry = small(), find("fitted-simulator")
    assert (family.phases, family.passes, family.per_patient) == ((), 1, True)
    assert set(family.fitted) == set(family.sampler) == set(family.nets)
    assert not list(family.parameters())
    assert entry.kind == "fitted"
    assert entry.private == "one noised sum of bounded statistics, one vector per patient"


@pytest.fixture(scope="module")
def fitted() -> FittedFamily:
    """A small pool fitted to some sum: for what holds of every fit."""
    return fit_some(small(**SMALLEST))


def fit_some(family: FittedFamily) -> FittedFamily:
    total = np.linspace(-6, 6, family.whitening.axes.shape[1])
    family.fit(0, sums_of(family, total, 20.0, 1.0))
    return family


@pytest.mark.slow
def test_the_fit_comes_nearer_to_shifted_patients_than_the_wide_pool_and_the_placebo(
    shifted: tuple[FittedFamily, np.ndarray],
) -> None:
    family, target = shifted
    found = {}
    for arm in ("fitted", "placebo", "public"):
        family.arm, family.wide = arm, 0.0
        made = family.sample({"label": torch.eye(3).repeat(20, 1)}, family.noise(60, SeededSource(3)))
        found[arm] = clipped(family.statistics(made).numpy()).mean(0)
    family.wide = 0.3
    apart = {arm: float(np.linalg.norm(mean - target)) for arm, mean in found.items()}
    assert apart["fitted"] < 0.8 * apart["public"], apart
    assert apart["fitted"] < 0.8 * apart["placebo"], apart
    assert (found["fitted"] - found["public"]) @ target > 0


def test_the_same_checkpoint_draws_the_same_images_and_fits_repeat(fitted: FittedFamily) -> None:
    family, other = fitted, small(**SMALLEST)
    other.nets.load_state_dict(family.nets.state_dict())
    for arm in ("fitted", "placebo", "public"):
        family.arm = other.arm = arm
        assert torch.equal(drawn(family, 3, 0)["image"], drawn(other, 3, 0)["image"])
    again = fit_some(small(**SMALLEST))
    for name, value in family.nets.state_dict().items():
        assert torch.equal(value, again.nets.state_dict()[name]), name


def test_an_image_does_not_depend_on_its_company(fitted: FittedFamily) -> None:
    family = fitted
    family.arm = "fitted"
    noise = family.noise(4, SeededSource(5))
    label = {"label": torch.eye(3)[[0, 1, 2, 0]]}
    together = family.sample(label, noise)
    alone = family.sample({"label": label["label"][2:3]}, {"draw": noise["draw"][2:3]})
    assert torch.equal(together["image"][2:3], alone["image"])
    assert torch.equal(together["mask"][2:3], alone["mask"])
    assert not torch.equal(together["image"][0], together["image"][3])


@pytest.mark.parametrize("arm", ["fitted", "placebo", "public"])
def test_images_follow_the_class_and_are_in_range(fitted: FittedFamily, arm: str) -> None:
    family = fitted
    family.arm = arm  # type: ignore[assignment]
    high, healthy, low = (drawn(family, 12, label) for label in range(3))
    assert not healthy["mask"][:, 1:].any()
    assert high["mask"][:, 3].any()  # takes up contrast agent
    assert low["mask"][:, 2].sum() > 3 * low["mask"][:, 3].sum()
    for made in (high, healthy, low):
        assert made["image"].shape == (12, 2, 20, 20)
        assert -1 <= made["image"].min() < -0.9
        assert 0 < made["image"].max() <= 1
        assert torch.equal(made["mask"].sum(1), torch.ones(12, 20, 20))


def test_images_of_the_public_pool_need_no_fit_and_others_do() -> None:
    family = small(PLAIN)
    with pytest.raises(FedSynthError, match="not fitted"):
        drawn(family, 1)
    family.arm = "public"
    made = drawn(family, 6)
    assert made["image"].shape == (6, 1, 16, 16)
    assert made["mask"].shape == (6, 2, 16, 16)
    assert made["mask"][:, 1].any()


def test_a_head_surrounds_the_brain_where_it_is_wanted() -> None:
    shown = {}
    for head in (False, True):
        family = small(PLAIN, head=head)
        family.arm = "public"
        shown[head] = (drawn(family, 12)["image"] == -1).float().mean()
    assert shown[False] > 0.3
    assert shown[True] < 0.5 * shown[False]


def test_statistics_are_of_each_image_alone() -> None:
    family = small()
    family.arm = "public"
    batch = drawn(family, 4, 0)
    vectors = family.statistics(batch)
    assert vectors.dtype == torch.float64
    alone = family.statistics({name: value[1:2] for name, value in batch.items()})
    torch.testing.assert_close(vectors[1:2], alone)
    blank = {"image": torch.full((1, 2, 20, 20), torch.nan), "mask": torch.zeros(1, 4, 20, 20)}
    assert torch.isfinite(family.statistics(blank)).all()


def test_the_placebo_is_as_far_away_in_another_direction() -> None:
    """Its target is as long as the released one and no patient's, another for every release, the same for the same."""
    family = small(PLAIN, generations=0)
    parts = family.whitening.axes.shape[1]
    asked: list[np.ndarray] = []
    real = public_pool.evolved

    def evolved(simulator, settings, whitening, target):  # type: ignore[no-untyped-def]
        asked.append(target.mean)
        return real(simulator, settings, whitening, target)

    total = np.linspace(-1, 1, parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(public_pool, "evolved", evolved)
        for factor in (1.0, 1.0, 2.0):
            small(PLAIN, generations=0).fit(0, sums_of(family, factor * total, 30.0, 0.45))
    for fitted, placebo in zip(asked[::2], asked[1::2], strict=True):
        assert np.linalg.norm(placebo) == pytest.approx(np.linalg.norm(fitted))
        assert abs(placebo @ fitted) < 0.9 * np.linalg.norm(fitted) ** 2
    assert np.array_equal(asked[1], asked[3])
    assert not np.allclose(2 * asked[1], asked[5])


def test_a_private_fit_refuses_a_sum_without_noise() -> None:
    family = small(PLAIN, generations=0, private=True)
    total = np.zeros(family.whitening.axes.shape[1])
    with pytest.raises(FedSynthError, match="needs noise on its sum"):
        family.fit(0, sums_of(family, total, 30.0))
    family.fit(0, sums_of(family, total, 30.0, 0.45))
    assert family.nets["simulator"].state_dict()["weights"].sum() == pytest.approx(1)


def test_more_noise_and_fewer_patients_hold_the_fit_back() -> None:
    family = small(PLAIN, generations=0)
    parts = family.whitening.axes.shape[1]
    aim = np.eye(parts)[0] * 0.4

    def moved(patients: float, variance: float) -> float:
        family.fit(0, sums_of(family, patients * aim, patients, variance))
        weights = family.nets["simulator"].state_dict()["weights"].numpy()
        pool = public_pool.wide_pool(family.simulator, family.settings)
        return float(weights @ clipped(family.whitening(pool.statistics))[:, 0])

    assert moved(50.0, 0.0) > moved(50.0, 400.0) > 0
    assert moved(50.0, 100.0) > moved(10.0, 100.0)
    assert np.isfinite(moved(-3.0, 0.5))  # a noised count may be anything


def test_unknown_classes_draw_from_all_and_classes_of_one_kind_weigh_alike() -> None:
    graded = small(replace(SHAPE, class_names=("grade-2", "grade-3", "")))
    assert graded.simulator.classes == (None, None, None)
    graded.arm = "public"
    assert drawn(graded, 8, 1)["mask"][:, 1:].any()
    assert small().simulator.shares.tolist() == pytest.approx([1 / 3] * 3)
    assert small(replace(SHAPE, n_classes=2, class_names=("HGG", "LGG"))).simulator.shares.tolist() == [0, 0.5, 0.5]


def test_labels_are_those_of_the_set_in_its_own_order() -> None:
    swapped = small(replace(SHAPE, label_names=("background", "enhancing", "necrosis", "oedema")))
    usual = small()
    swapped.arm = usual.arm = "public"
    here, there = drawn(swapped, 10, 0)["mask"], drawn(usual, 10, 0)["mask"]
    assert torch.equal(here, there[:, [0, 3, 2, 1]])
    assert swapped.simulator.layout.lesion == (1, 2, 3)
    tissue = replace(SHAPE, n_labels=7, label_names=("background", "csf", "gm", "wm", "edema", "core", "enhancing"))
    assert small(tissue).simulator.layout.lesion == (4, 5, 6)


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        (replace(SHAPE, channel_names=("flair", "adc")), "adc"),
        (replace(SHAPE, channel_names=()), "without names"),
        (replace(SHAPE, n_labels=0, label_names=()), "without masks"),
        (replace(SHAPE, n_labels=2, label_names=("background", "nodule")), "nodule"),
    ],
)
def test_sets_that_the_phantom_does_not_know_are_refused_in_a_sentence(shape: ImageShape, found: str) -> None:
    with pytest.raises(ConfigError, match="no public pool of such images") as raised:
        small(shape)
    assert found in str(raised.value)
    assert "--public SET" in str(raised.value)


@pytest.mark.parametrize("size", [(16, 16, 16), (16, 24), (8, 8)])
def test_sizes_that_the_phantom_cannot_show_are_refused(size: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="public pool"):
        small(replace(PLAIN, size=size))


def test_a_pool_is_made_once_for_all_processes_and_a_damaged_one_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDSYNTH_STORE", str(tmp_path))
    monkeypatch.setattr(public_pool, "_remembered", {})
    family = small(PLAIN, pool=12)
    first = public_pool.wide_pool(family.simulator, family.settings)
    [kept] = (tmp_path / "public-pools").glob("*.npz")
    before = kept.stat().st_mtime_ns
    code = (
        "from tests.models.test_fitted_simulator import PLAIN, public_pool, small\n"
        "family = small(PLAIN, pool=12)\n"
        "print(repr(float(public_pool.wide_pool(family.simulator, family.settings).statistics.sum())))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == float(first.statistics.sum())
    assert kept.stat().st_mtime_ns == before
    kept.write_bytes(b"damaged")
    public_pool._remembered.clear()
    assert np.array_equal(public_pool.wide_pool(family.simulator, family.settings).statistics, first.statistics)
    assert kept.stat().st_size > 1000
    other = small(PLAIN, pool=12, pool_seed=1)
    assert not np.array_equal(public_pool.wide_pool(other.simulator, other.settings).statistics, first.statistics)
    assert len(list((tmp_path / "public-pools").glob("*.npz"))) == 2


def test_names_of_classes_and_labels_are_part_of_a_pool() -> None:
    graded, known = small(replace(SHAPE, class_names=("grade-2", "grade-3", "grade-4"))), small()
    assert graded.shape == known.shape
    assert public_pool._name(graded.simulator, graded.settings) != public_pool._name(known.simulator, known.settings)


def test_slices_of_a_class_with_a_lesion_show_it() -> None:
    """A classifier cannot learn classes from slices that miss what tells them apart."""
    public = small()
    public.arm = "public"
    shows = {label: drawn(public, 30, label)["mask"][:, 1:].flatten(1).any(1).double().mean() for label in range(3)}
    assert shows[1] == 0
    assert min(shows[0], shows[2]) > 0.9


def test_slices_of_sets_without_classes_lie_all_over_the_lesions_surroundings() -> None:
    public = small(PLAIN)
    public.arm = "public"
    shows = drawn(public, 60)["mask"][:, 1:].flatten(1).any(1).double().mean()
    assert 0.3 < shows < 0.85
