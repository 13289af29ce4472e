"""The audit of a release: silent on the real one, and it names every fault that is planted in it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from fedsynth.experiments import mechanism_audit, release_audit
from fedsynth.experiments.mechanism_audit import MechanismAudit
from fedsynth.experiments.release_audit import audit_release
from fedsynth.privacy import mechanism, patient_statistics
from fedsynth.privacy.mechanism import GaussianMechanism
from fedsynth.privacy.patient_statistics import COUNT, LARGEST, RELEASE, PatientStatistics
from fedsynth.privacy.plan import PrivatePlan, PrivateSettings, make_plan
from tests.experiments.repeatable import repeat_coins

Plant = Callable[[pytest.MonkeyPatch], None]


def plan_of(epsilon: float) -> PrivatePlan:
    settings = PrivateSettings(epsilon=epsilon, delta=1e-5, patients=250, batch=250)
    return replace(make_plan(settings, {RELEASE: 1}), release=True)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release_audit, "CANARIES", 128)
    monkeypatch.setattr(release_audit, "BLANK", 64)
    repeat_coins(monkeypatch, where=release_audit)


def named(found: MechanismAudit) -> set[str]:
    return {said.split(":")[0] for said in found.contradictions}


@pytest.mark.parametrize("epsilon", [1.0, 8.0])
def test_an_honest_release_is_not_contradicted(epsilon: float) -> None:
    found = audit_release(plan_of(epsilon), canaries=1024)
    assert found.verdict == "no contradiction found", found.contradictions
    assert found.canaries == 1024
    assert found.proven <= found.claim
    assert found.proven == pytest.approx(found.expected, abs=1.5)
    if epsilon == 8:
        assert found.proven > 3
    assert [check.name for check in found.checks][-1] == "charges"


def test_a_claim_below_what_is_spent_is_false() -> None:
    assert "epsilon" in named(audit_release(plan_of(8.0), canaries=1024, claim=2.0))


def half_the_noise(patch: pytest.MonkeyPatch) -> None:
    real = mechanism.discrete_gaussian
    patch.setattr(mechanism, "discrete_gaussian", lambda rng, n, deviation: real(rng, n, deviation // 2))


def no_clip(patch: pytest.MonkeyPatch) -> None:
    def bounded(vector: torch.Tensor) -> torch.Tensor:
        return torch.cat([vector.double(), torch.tensor([COUNT], dtype=torch.float64)]) / LARGEST

    patch.setattr(patient_statistics, "bounded", bounded)


def constants_too_small(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(patient_statistics, "LARGEST", 1.0)


def patients_twice(patch: pytest.MonkeyPatch) -> None:
    real = PatientStatistics.clipped_sum

    def doubled(self: PatientStatistics, patients: torch.Tensor, *rest: object) -> object:
        return real(self, torch.cat([patients, patients]), *rest)  # type: ignore[arg-type]

    patch.setattr(PatientStatistics, "clipped_sum", doubled)


def count_without_noise(patch: pytest.MonkeyPatch) -> None:
    real = GaussianMechanism._noised

    def noised(self: GaussianMechanism, value: torch.Tensor, scale: float, grid: float | None) -> torch.Tensor:
        return torch.cat([real(self, value[:-1], scale, grid), value[-1:]])

    patch.setattr(GaussianMechanism, "_noised", noised)


def noise_of_before(patch: pytest.MonkeyPatch) -> None:
    real, kept = mechanism.discrete_gaussian, []

    def same(rng: object, n: int, deviation: int) -> torch.Tensor:
        kept[:] = kept or [real(rng, n, deviation)]  # type: ignore[arg-type]
        return kept[0]

    patch.setattr(mechanism, "discrete_gaussian", same)


def half_the_patients(patch: pytest.MonkeyPatch) -> None:
    real = PatientStatistics.clipped_sum

    def some(self: PatientStatistics, patients: torch.Tensor, *rest: object) -> object:
        return real(self, patients[::2], *rest)  # type: ignore[arg-type]

    patch.setattr(PatientStatistics, "clipped_sum", some)


@pytest.mark.parametrize(
    ("plant", "broken"),
    [
        (half_the_noise, "noise"),
        (no_clip, "contribution"),
        (constants_too_small, "contribution"),
        (patients_twice, "contribution"),
        (count_without_noise, "count"),
        (noise_of_before, "reuse"),
        (half_the_patients, "sampling"),
    ],
)
def test_a_fault_is_named(plant: Plant, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    monkeypatch.setattr(mechanism_audit, "proven_epsilon", lambda *given, **named: 0.0)  # the properties name a fault
    found = audit_release(plan_of(8.0), canaries=512)
    assert found.verdict == "fail"
    assert broken in named(found)


def test_the_best_attack_on_a_release_stays_under_the_curve_that_the_budget_allows() -> None:
    """Neyman and Pearson: no test of one release has a better ROC than the likelihood ratio of its Gaussian."""
    plan, seen = plan_of(2.0), release_audit._Seen()
    for _ in range(12):
        release_audit._release(plan, seen)
    odds, inside = np.concatenate(seen.odds), np.concatenate(seen.included)
    epsilon, delta = plan.claim.epsilon, plan.settings.delta
    for level in np.quantile(odds, [0.1, 0.25, 0.5, 0.75, 0.9]):
        true, false = (odds[inside] > level), (odds[~inside] > level)
        least = stats.beta.ppf(0.001, true.sum(), (~true).sum() + 1) if true.any() else 0.0
        most = stats.beta.ppf(0.999, false.sum() + 1, (~false).sum()) if not false.all() else 1.0
        assert least <= np.exp(epsilon) * most + delta
        assert 1 - most <= np.exp(epsilon) * (1 - least) + delta
