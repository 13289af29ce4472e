"""The audit of the mechanism: silent on the real one, and it names every fault that is planted in it."""

from collections.abc import Iterator
from functools import lru_cache

import pytest
from scipy import stats

from fedsynth.errors import ConfigError
from fedsynth.evaluation.score import load_result
from fedsynth.experiments import mechanism_audit
from fedsynth.experiments.mechanism_audit import MechanismAudit, as_result, audit_mechanism
from fedsynth.privacy.accounting import Spent
from fedsynth.privacy.plan import PrivatePlan, PrivateSettings, make_plan
from tests.experiments.faults import FAULTS
from tests.experiments.repeatable import repeat_coins

PROPERTIES = ["sampling", "noise", "reuse", "contribution", "division", "charges"]
ASKED_FOR = list(FAULTS)[: list(FAULTS).index("steps_taken_twice") + 1]


def plan_of(steps: int, *, slices_per_patient: int = 1) -> PrivatePlan:
    settings = PrivateSettings(
        epsilon=8.0, delta=1e-5, patients=200, batch=160, clip=0.5, slices_per_patient=slices_per_patient
    )
    return make_plan(settings, {"discriminator": steps})


def uncalibrated(steps: int, noise: float, *, patients: int, batch: int) -> PrivatePlan:
    """A plan whose claim is trivially kept, made without the accountants."""
    settings = PrivateSettings(epsilon=50.0, delta=1e-5, patients=patients, batch=batch)
    claim = Spent(epsilon=50.0, renyi=50.0, replace_one=100.0, delta=1e-5, accountant="none")
    return PrivatePlan(settings=settings, steps=steps, noise=noise, claim=claim)


@pytest.fixture(scope="module")
def short() -> PrivatePlan:
    return plan_of(8, slices_per_patient=2)


@pytest.fixture(scope="module")
def longer() -> PrivatePlan:
    """The rate of the documents' example, at fewer steps."""
    return plan_of(40)


@pytest.fixture(scope="module")
def honest(short: PrivatePlan) -> MechanismAudit:
    with pytest.MonkeyPatch.context() as patch:
        repeat_coins(patch)
        return audit_mechanism(short, canaries=1024)


@pytest.fixture(scope="module", autouse=True)
def curves_kept() -> Iterator[None]:
    """Equal error rates under equal plans prove the same epsilon: found once for all faults."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mechanism_audit, "proven_epsilon", lru_cache(mechanism_audit.proven_epsilon))
        yield


@pytest.fixture
def nothing_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks of the properties name a fault without the epsilon that canaries prove, which takes as long."""
    monkeypatch.setattr(mechanism_audit, "proven_epsilon", lambda *given, **named: 0.0)


def named(found: MechanismAudit) -> set[str]:
    return {said.split(":")[0] for said in found.contradictions}


def test_an_honest_mechanism_proves_most_of_its_claim(honest: MechanismAudit) -> None:
    assert honest.verdict == "no contradiction found", honest.contradictions
    assert [one.name for one in honest.checks] == PROPERTIES
    assert 5 < honest.proven < honest.claim
    assert honest.proven == pytest.approx(honest.expected, abs=1.2)
    assert 1 < honest.one_run < honest.proven


def test_a_claim_below_what_is_spent_is_false(short: PrivatePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    repeat_coins(monkeypatch)
    found = audit_mechanism(short, canaries=1024, claim=4.0)
    assert found.verdict == "fail"
    assert named(found) == {"epsilon"}


@pytest.mark.usefixtures("nothing_proven")
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named(name: str, short: PrivatePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    repeat_coins(monkeypatch)
    fault = FAULTS[name]
    fault.make_positive_control(monkeypatch)
    found = audit_mechanism(short, canaries=1024)
    assert found.verdict == "fail"
    assert fault.broken in named(found)


def test_dividing_by_the_true_number_shows_where_as_many_are_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    repeat_coins(monkeypatch)
    FAULTS["divided_by_the_true_number"].make_positive_control(monkeypatch)
    found = audit_mechanism(uncalibrated(4, 2.0, patients=500, batch=400), canaries=1024)
    assert "division" in named(found)


@pytest.mark.parametrize("steps", [1, 3])
def test_few_steps_at_full_batches_can_be_audited(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    repeat_coins(monkeypatch)
    found = audit_mechanism(uncalibrated(steps, 3.0, patients=40, batch=40), canaries=1)
    assert found.verdict == "no contradiction found", found.contradictions
    assert found.canaries == 1024


def test_several_mechanisms_share_the_error(
    short: PrivatePlan, honest: MechanismAudit, monkeypatch: pytest.MonkeyPatch
) -> None:
    repeat_coins(monkeypatch)
    assert audit_mechanism(short, canaries=1024, comparisons=5).expected < honest.expected


def test_the_result_has_the_common_form(honest: MechanismAudit, tmp_path) -> None:  # type: ignore[no-untyped-def]
    as_result([honest]).save(tmp_path / "result.json")
    read = load_result(tmp_path / "result.json")
    assert (read.benchmark, read.verdict) == ("audit-mechanism", "no contradiction found")
    assert read.scores["epsilon_lower_bound"].value == honest.proven
    assert set(read.details["mechanisms"][0]["checks"]) == set(PROPERTIES)


def test_no_canary_is_bad_input(short: PrivatePlan) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        audit_mechanism(short, canaries=0)


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_proven")
@pytest.mark.parametrize("name", ASKED_FOR)
def test_a_fault_is_found_in_every_trial(name: str, longer: PrivatePlan) -> None:
    for _ in range(4):
        with pytest.MonkeyPatch.context() as patch:
            FAULTS[name].make_positive_control(patch)
            assert FAULTS[name].broken in named(audit_mechanism(longer, canaries=1024))


@pytest.mark.slow
def test_an_honest_mechanism_is_contradicted_in_at_most_a_twentieth_of_the_trials(longer: PrivatePlan) -> None:
    found = [audit_mechanism(longer, canaries=1024) for _ in range(60)]
    wrong = [one.contradictions for one in found if one.verdict == "fail"]
    assert len(wrong) <= stats.binom.ppf(0.999, len(found), 0.05), wrong
