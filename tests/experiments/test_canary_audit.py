"""The audit as a whole: silent on coins that had no part, silent on the real door, loud on every planted fault."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedsynth.errors import ConfigError
from fedsynth.evaluation.audit.epsilon_bounds import ceiling, one_run_bound
from fedsynth.evaluation.score import load_result
from fedsynth.experiments.canary_audit import (
    EVERYWHERE,
    Audited,
    AuditSettings,
    as_result,
    charging_of,
    cost_of,
    delta_of,
    exit_code,
    hold_audit,
    prove,
    rehearse,
)
from fedsynth.privacy.secure_rng import SecretRandomness
from fedsynth.runs import create_run
from fedsynth.training import session
from fedsynth.training.settings import Privacy, TrainSettings
from tests.training.tiny import tiny_set

SETTINGS = TrainSettings(generator="dcgan", images=Path("tiny"), steps=40, sheets=0, options={"latent": 4, "base": 4})
PRIVATE = replace(
    SETTINGS, steps=10, privacy=Privacy(epsilon=1, patients=70, expected_batch_size=70, fakes=16, slices_per_patient=2)
)
IMAGES = tiny_set(patients=20)


def audit_of(tmp_path: Path, settings: TrainSettings, **changes: object) -> Audited:
    asked = AuditSettings(canaries=100, **changes)  # type: ignore[arg-type]
    if settings.privacy is not None:
        settings = replace(settings, privacy=replace(settings.privacy, store=tmp_path / "store"))
    run = create_run(settings, generator="dcgan", folder=tmp_path / "run")
    return hold_audit(IMAGES, settings, asked, run)


def test_guesses_without_knowledge_prove_nothing_more_often_than_promised() -> None:
    rng = np.random.default_rng(0)
    fired = 0
    for number in range(100):
        coins = rng.integers(0, 2, 60) == 1
        bounds = prove(rng.normal(size=60), coins, ["a", "b"] * 30, delta=1e-5, seed=number)
        assert set(bounds) == {EVERYWHERE, "a", "b"}
        fired += any(one.epsilon > 0 for one in bounds.values())
    assert fired <= 12  # 5 % of 100, and the 99.9 % binomial error above it


def test_a_claim_made_by_hand_is_held_against_its_own_delta() -> None:
    """150 of 200 right refute epsilon 0.7 at delta 1e-5 and not at 1e-2: at the plan's, a true claim would fail."""
    assert delta_of(PRIVATE, AuditSettings(claim=0.7, delta=1e-2)) == 1e-2
    assert delta_of(PRIVATE, AuditSettings(delta=1e-2)) == 1e-5
    assert delta_of(SETTINGS, AuditSettings(claim=0.7, delta=1e-2)) == 1e-2
    at = [one_run_bound(canaries=200, guesses=200, right=150, delta=delta) for delta in (1e-5, 1e-2)]
    assert at[0] > 0.7 > at[1]


def test_perfect_guesses_reach_the_ceiling() -> None:
    coins = np.random.default_rng(1).permutation(200) < 100
    bounds = prove(coins + 0.0, coins, [""] * 200, delta=1e-5)
    assert set(bounds) == {EVERYWHERE}
    found = bounds[EVERYWHERE]
    assert found.epsilon == pytest.approx(found.ceiling) == pytest.approx(ceiling(200, 1e-5, comparisons=5))


def test_bounds_of_a_randomised_response_stay_below_its_epsilon() -> None:
    """Scores that tell each coin with odds e to one are epsilon-private: the bound must respect that."""
    rng, above = np.random.default_rng(2), 0
    for number in range(50):
        coins = rng.integers(0, 2, 200) == 1
        told = np.where(rng.random(200) < np.e / (1 + np.e), coins, ~coins) + 0.0
        above += prove(told, coins, [""] * 200, delta=1e-5, seed=number)[EVERYWHERE].epsilon > 1
    assert above <= 8  # 5 % of 50, and the 99.9 % binomial error above it


def test_a_plain_run_that_claims_epsilon_one_is_caught(tmp_path: Path) -> None:
    found = audit_of(tmp_path, SETTINGS, claim=1.0)
    assert found.verdict == "fail"
    assert found.lower > 1.5
    assert (tmp_path / "run" / "canaries.csv").is_file()


def test_the_real_private_training_is_not_contradicted(tmp_path: Path) -> None:
    found = audit_of(tmp_path, PRIVATE)
    assert found.claim is not None
    assert found.claim <= 1
    assert found.verdict == "no contradiction found"
    assert set(found.bounds) == {EVERYWHERE}
    assert "never confirms" in " ".join(found.sentences)
    assert f"at most epsilon {found.ceiling:.2f}" in found.reach


def test_what_cannot_be_seen_is_not_taken_for_a_kept_claim(tmp_path: Path) -> None:
    """Plain StyleGAN2 mixes samples (minibatch deviation): no canary has a gradient of its own."""
    settings = replace(SETTINGS, generator="stylegan2", steps=1, options={})
    found = audit_of(tmp_path, settings, claim=1.0)
    assert found.verdict == "inconclusive"
    assert found.bounds == {}
    assert "mix samples" in found.sentences[0]
    assert as_result(found, IMAGES, settings, AuditSettings()).scores["epsilon_lower_bound"].value is None


class WeakNoise(SecretRandomness):
    """FAULT: next to no noise (the latents of the fakes, at scale one, are left alone), found whatever the coins."""

    def gaussian(self, shape: tuple[int, ...], scale: float) -> torch.Tensor:
        return super().gaussian(shape, scale if scale == 1.0 else scale / 1e6)


def test_forgotten_noise_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "SecretRandomness", WeakNoise)
    found = audit_of(tmp_path, PRIVATE)
    assert found.verdict == "fail"
    assert found.claim is not None
    assert found.lower > found.claim


def test_the_result_has_the_common_form(tmp_path: Path) -> None:
    found = audit_of(tmp_path, replace(SETTINGS, steps=2))
    result = as_result(found, IMAGES, SETTINGS, AuditSettings())
    result.save(tmp_path / "audit.json")
    read = load_result(tmp_path / "audit.json")
    assert (read.benchmark, read.verdict) == ("audit", "inconclusive")
    assert read.scores["epsilon_lower_bound"].n == 100
    assert read.details["ceiling"] == pytest.approx(found.ceiling)
    assert exit_code("fail") == 1
    assert exit_code("no contradiction found") == 0
    assert exit_code("inconclusive") == 3


def test_real_patients_are_told_what_an_audit_costs_and_phantoms_nothing(tmp_path: Path) -> None:
    store = tmp_path / "store"
    settings = replace(PRIVATE, privacy=replace(PRIVATE.privacy, store=store))  # type: ignore[type-var]
    charged = charging_of(rehearse(IMAGES, settings))
    first = cost_of(charged, store, 1e-5)
    assert first is not None
    assert first[0] == 0
    assert first[1] <= 1
    hold_audit(
        IMAGES,
        settings,
        AuditSettings(canaries=20),
        create_run(settings, generator="dcgan", folder=tmp_path / "run"),
    )
    second = cost_of(charged, store, 1e-5)
    assert second is not None
    assert second[0] == pytest.approx(first[1], rel=0.02)
    assert second[1] > 1.2 * second[0]
    phantoms = IMAGES.with_cases(IMAGES.cases, provenance={"phantom": {"seed": 1}})
    assert charging_of(rehearse(phantoms, settings)) == charging_of(rehearse(IMAGES, SETTINGS)) == []
    assert cost_of([], store, 1e-5) is None


def test_what_cannot_be_private_is_not_audited() -> None:
    with pytest.raises(ConfigError, match="never private"):
        rehearse(IMAGES, TrainSettings(generator="label-gmm", images=Path("tiny")))
    with pytest.raises(ConfigError, match="at least 20"):
        AuditSettings(canaries=5)
