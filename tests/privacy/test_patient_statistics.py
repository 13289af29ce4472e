"""One bounded vector per patient: nobody moves the sum by more than norm 1, and the noise on it lies on its grid."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fedsynth.privacy.mechanism import GaussianMechanism
from fedsynth.privacy.patient_statistics import COUNT, GRID, LARGEST, RELEASE, PatientStatistics, bounded, read_sum
from fedsynth.privacy.plan import PrivateSettings, make_plan
from fedsynth.privacy.secure_rng import InsecureRandomness, SecretRandomness

LENGTH = 5
PLAN = make_plan(PrivateSettings(epsilon=8.0, delta=1e-5, patients=20, batch=20), {RELEASE: 1})


def vectors_of(batch: dict[str, Tensor]) -> Tensor:
    return batch["image"].double()


def sums() -> PatientStatistics:
    return PatientStatistics(vectors_of, length=LENGTH)


def patients(*vectors: Tensor) -> Callable[[Tensor], Any]:
    """Each with an image for every row of its tensor."""
    return lambda indices: ({"image": vectors[int(indices[0])][None]}, {})


@pytest.mark.parametrize("size", [0.0, 1e-30, 0.3, 1.0, 1e8, 1e300, math.inf, math.nan])
def test_no_patient_moves_the_sum_by_more_than_one(size: float) -> None:
    for seed in range(20):
        vector = torch.randn(LENGTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        kept = bounded(vector / vector.norm() * size)
        assert torch.isfinite(kept).all()
        assert kept.norm() <= 1.0
        assert kept[-1] > 0.999 * COUNT / LARGEST


def test_small_vectors_stay_as_they_are_and_large_ones_keep_their_direction() -> None:
    small, large = torch.tensor([0.3, -0.4, 0, 0, 0]), torch.tensor([30.0, -40, 0, 0, 0])
    assert bounded(small)[:-1] * LARGEST == pytest.approx(small.double(), abs=1e-6)
    assert bounded(large)[:-1] * LARGEST == pytest.approx(large.double() / 50, abs=1e-6)


def test_a_patient_counts_once_whatever_the_number_of_images() -> None:
    one, many = torch.full((1, LENGTH), 0.1), torch.full((40, LENGTH), 0.1)
    for rows in (one, many):
        total = sums().clipped_sum(torch.tensor([0]), patients(rows))[RELEASE]
        found = read_sum(total, noise=0.0)
        assert found.patients == pytest.approx(1, abs=1e-6)
        assert found.total == pytest.approx(torch.full((LENGTH,), 0.1).double(), abs=1e-6)


def test_the_sum_is_the_same_in_any_order_and_exact_on_its_grid() -> None:
    generator = torch.Generator().manual_seed(0)
    shown = [torch.randn(3, LENGTH, generator=generator) for _ in range(50)]
    forward = sums().clipped_sum(torch.arange(50), patients(*shown))[RELEASE]
    backward = sums().clipped_sum(torch.arange(49, -1, -1), patients(*shown))[RELEASE]
    assert torch.equal(forward, backward)
    assert torch.equal(forward, (forward / GRID).round() * GRID)


def test_a_release_takes_every_patient_once_with_the_planned_noise() -> None:
    shown = [torch.full((2, LENGTH), 0.2)] * 20
    names = [f"p{i}" for i in range(20)]

    def released(seed: int) -> Tensor:
        mechanism = GaussianMechanism(
            PLAN, {RELEASE: sums()}, patients=names, randomness=InsecureRandomness(seed), run="r"
        )
        mechanism.charge({RELEASE: 1}, round=0)
        scaled = mechanism.step(RELEASE, patients(*shown))[RELEASE] * PLAN.settings.batch
        with pytest.raises(RuntimeError, match="not charged"):
            mechanism.step(RELEASE, patients(*shown))
        return scaled

    true = sums().clipped_sum(torch.arange(20), patients(*shown))[RELEASE]
    noise = torch.stack([released(seed) for seed in range(40)]) - true
    assert torch.allclose(noise / GRID, (noise / GRID).round(), atol=1e-3)
    assert float(noise.std()) == pytest.approx(PLAN.noise, rel=0.15)
    assert float(noise.mean()) == pytest.approx(0, abs=0.15)


def test_what_is_read_is_unbiased_and_says_its_noise() -> None:
    read = read_sum(torch.tensor([0.2, 0.0, COUNT]) * 7 / LARGEST, noise=0.6)
    assert read.patients == pytest.approx(7)
    assert read.total == pytest.approx(torch.tensor([1.4, 0.0]).double())
    assert read.variance == pytest.approx(0.36 * 1.25)


def test_secret_noise_differs_between_releases() -> None:
    def once() -> Tensor:
        mechanism = GaussianMechanism(PLAN, {RELEASE: sums()}, patients=["a"], randomness=SecretRandomness(), run="r")
        mechanism.charge({RELEASE: 1}, round=0)
        return mechanism.step(RELEASE, patients(torch.zeros(1, LENGTH)))[RELEASE]

    assert not torch.equal(once(), once())
