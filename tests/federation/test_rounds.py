"""Whole simulated runs: by hand, against centralised training, broken off and resumed, with sites that fail."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from fedsynth.errors import ConfigError, FedSynthError, RefusedError
from fedsynth.federation import client_app, rounds
from fedsynth.federation.egress_log import read_egress
from fedsynth.federation.moving_average import straight_line
from fedsynth.federation.settings import FederationSettings
from fedsynth.privacy.accounting import epsilon_of
from fedsynth.privacy.ledger import Ledger, read_ledger
from fedsynth.runs import Run, open_run
from fedsynth.training.checkpoint import load_generator
from fedsynth.training.membership_scores import membership_scorer
from fedsynth.training.random_streams import stream_seed
from fedsynth.training.session import prepare
from fedsynth.training.settings import cpu_threads
from tests.federation.tiny import (
    SETTINGS,
    assert_same,
    go,
    killed_after,
    private,
    rows,
    simulated,
    site_images,
    start,
    weights,
)


def by_hand(tmp_path: Path, settings: FederationSettings) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Two trainers and a weighted mean in float64, the moving average step by step along the straight line."""
    with cpu_threads(1):
        trainers = [
            prepare(site_images(tmp_path, i), settings.training(), streams=stream_seed(0, "site", f"site-{i}"))
            for i in range(2)
        ]
        sizes = [5, 4]  # patients 0, 2, 4, 6, 8 and 1, 3, 5, 7
        old = {k: v.numpy().copy() for k, v in trainers[0].trainer.family.nets.state_dict().items()}
        ema = {name: value.copy() for name, value in old.items() if name.startswith("generator")}
        step = 0
        for _ in range(settings.rounds):
            for one in trainers:
                state = {name: torch.from_numpy(value.copy()) for name, value in old.items()}
                one.trainer.family.nets.load_state_dict(state)
                list(one.trainer.run(settings.local_steps))
            states = [one.trainer.family.nets.state_dict() for one in trainers]
            new = {
                name: sum(size / 9 * state[name].double().numpy() for size, state in zip(sizes, states, strict=True))
                for name in old
            }
            new = {name: np.asarray(value, np.float32) for name, value in new.items()}
            for k in range(1, settings.local_steps + 1):
                decay = min(0.5 ** (1 / 50.0), (1 + step) / (10 + step))
                share = k / settings.local_steps
                for name in ema:
                    here = (1 - share) * old[name] + share * new[name]
                    ema[name] = decay * ema[name] + (1 - decay) * here
                step += 1
            old = new
    return old, ema


def test_two_sites_and_two_rounds_are_as_by_hand(tmp_path: Path) -> None:
    settings = replace(SETTINGS, rounds=2)
    run = simulated(tmp_path, settings)
    expected, ema = by_hand(tmp_path, settings)
    found = load_file(run.checkpoints / "round-0002.safetensors")
    for name, value in expected.items():
        assert np.array_equal(found[name], value), name
    released = load_file(run.checkpoints / "generator.safetensors")
    assert released.keys() == ema.keys()
    for name, value in ema.items():
        np.testing.assert_allclose(released[name], value, atol=1e-6)
    discriminator = load_file(run.checkpoints / "discriminator.safetensors")
    assert all(np.array_equal(value, expected[name]) for name, value in discriminator.items())
    assert discriminator.keys() == {name for name in expected if name.startswith("discriminator")}


def test_a_run_leaves_what_the_design_says(whole: Run) -> None:
    told = rows(whole)
    assert [(row["round"], row["site"]) for row in told] == [(str(r), f"site-{i}") for r in (1, 2, 3) for i in (0, 1)]
    assert all(row["answered"] == "true" and float(row["discriminator_loss"]) and row["steps"] == "2" for row in told)
    egress = read_egress(whole.site("site-0") / "egress.jsonl")
    assert [line["message"] for line in egress] == ["hello", "train", "train", "train"]
    assert "generator.last.weight" in egress[1]["content"]
    _, card = load_generator(whole.checkpoints)
    assert card.steps == 6
    assert card.class_shares == (pytest.approx(5 / 9, abs=0.2), pytest.approx(4 / 9, abs=0.2))
    assert sum(card.class_shares) == pytest.approx(1)


def test_any_number_of_workers_gives_the_same_bits(tmp_path: Path) -> None:
    settings = replace(SETTINGS, sites=3, min_sites=3)
    assert_same(simulated(tmp_path, settings, "one"), simulated(tmp_path, settings, "three", workers=3))


def test_one_site_alone_is_pooled_training(tmp_path: Path) -> None:
    settings = replace(SETTINGS, sites=1)
    run = simulated(tmp_path, settings)
    with cpu_threads(1):
        pooled = prepare(site_images(tmp_path, 0, 1), settings.training(), streams=stream_seed(0, "site", "site-0"))
        list(pooled.trainer.run(settings.total_steps))
    found = load_file(run.checkpoints / "round-0003.safetensors")
    for name, value in pooled.trainer.family.nets.state_dict().items():
        assert np.array_equal(found[name], value.numpy()), name


def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path, whole: Run) -> None:
    broken = killed_after(tmp_path, SETTINGS, 1)
    go(broken, SETTINGS)
    assert_same(whole, broken)
    assert [row["round"] for row in rows(broken)] == ["1", "1", "2", "2", "3", "3"]


def test_a_round_whose_checkpoint_was_lost_is_done_again_to_the_same_bits(tmp_path: Path, whole: Run) -> None:
    """Killed between a site's work and the server's checkpoint, with every state of the round thrown away or kept."""
    for name, throw_away in (("kept", False), ("thrown", True)):
        broken = killed_after(tmp_path, SETTINGS, 2, name)
        (broken.checkpoints / "round-0002.safetensors").unlink()
        if throw_away:
            (broken.site("site-0") / "state-000002.safetensors").unlink()
        go(broken, SETTINGS)
        assert_same(whole, broken)


@pytest.mark.slow
def test_an_insecure_private_run_resumes_to_the_same_bits_and_pays_once(tmp_path: Path) -> None:
    settings = private(tmp_path)
    whole = simulated(tmp_path, settings, "whole")
    broken = killed_after(tmp_path, settings, 2)
    (broken.checkpoints / "round-0002.safetensors").unlink()
    (broken.site("site-0") / "state-000002.safetensors").unlink()
    go(broken, settings)
    assert_same(whole, broken)
    names = {(run.site("site-0") / "ledger-name").read_text().strip() for run in (whole, broken)}
    ledger = Ledger("site-0", tmp_path / "store")
    assert [ledger.steps_charged(name) for name in names] == [6, 6]
    assert "NOT PRIVATE" in load_generator(broken.checkpoints)[1].privacy
    assert all(row["epsilon"] == "" for row in rows(broken))


@pytest.mark.parametrize("generator", [pytest.param("vae", marks=pytest.mark.slow), "mlp"])
def test_networks_that_private_hospitals_trained_are_built_again(tmp_path: Path, generator: str) -> None:
    """Private networks have other widths than plain ones: the card must lead to them, and the judge as well."""
    run = simulated(tmp_path, replace(private(tmp_path), generator=generator, options={}), "run")
    family, card = load_generator(run.checkpoints)
    assert card.private
    assert {phase.net: phase.interval for phase in family.phases} in (
        {"autoencoder": 1, "prior": 2},
        {"discriminator": 1, "generator": 1},
    )
    assert membership_scorer(run) is not None


def test_a_private_run_that_lost_a_block_takes_fewer_steps(tmp_path: Path) -> None:
    settings = private(tmp_path, insecure=False)
    broken = killed_after(tmp_path, settings, 2)
    (broken.checkpoints / "round-0002.safetensors").unlink()
    (broken.site("site-0") / "state-000002.safetensors").unlink()
    go(broken, settings)
    steps = {(row["round"], row["site"]): row["steps"] for row in rows(broken)}
    assert steps["2", "site-0"] == "2"  # the block that it paid for anew
    assert steps["3", "site-0"] == "0"  # nothing was left
    assert steps["3", "site-1"] == "2"  # whose answer of round 2 was sent again, at no cost
    for site in ("site-0", "site-1"):
        name = (broken.site(site) / "ledger-name").read_text().strip()
        assert Ledger(site, tmp_path / "store").steps_charged(name) == 6
        assert (broken.site(site) / "ledger.jsonl").read_text().count('"steps": 2') == 3
    epsilon = [float(row["epsilon"]) for row in rows(broken) if row["round"] == "3"]
    assert epsilon[0] == epsilon[1] <= settings.privacy.epsilon
    card = load_generator(broken.checkpoints)[1]
    assert "epsilon 8 at delta 0.001" in card.privacy
    assert card.class_shares == (0.5, 0.5)


@pytest.mark.slow
def test_private_replies_tell_nothing_that_was_counted(tmp_path: Path) -> None:
    run = simulated(tmp_path, private(tmp_path, insecure=False))
    for line in read_egress(run.site("site-0") / "egress.jsonl")[1:]:
        numbers = {name for name in line["content"] if "." not in name}
        assert numbers == {"discriminator_loss", "generator_loss", "steps", "charged"}
    assert all(row["seconds"] == "" for row in rows(run))


def test_failures_on_purpose_are_left_out_and_written_down(tmp_path: Path) -> None:
    settings = replace(SETTINGS, sites=3, min_sites=1, rounds=6, inject="dropout=0.2,straggler=0.2,nan=0.2", seed=3)
    run = simulated(tmp_path, settings)
    reasons = {row["reason"] for row in rows(run)}
    assert reasons == {"", "cannot be reached", "did not answer in time", "sent what is not a number"}
    left_out = next(row for row in rows(run) if row["reason"])
    assert left_out["answered"] == "false"
    assert all(np.isfinite(value).all() for value in weights(run).values())
    assert_same(run, simulated(tmp_path, settings, "again", workers=2))


def test_what_a_late_answer_has_cost_stands_in_the_record(tmp_path: Path) -> None:
    """Its block was charged before it was late: nobody may read a smaller epsilon because a site said nothing."""
    settings = replace(private(tmp_path, insecure=False), min_sites=1, rounds=4, inject="straggler=0.4", seed=2)
    run = killed_after(tmp_path, settings, 2)
    go(run, settings)
    late = [row for row in rows(run) if row["reason"] == "did not answer in time"]
    assert {row["site"] for row in late} == {"site-0", "site-1"}
    for row in rows(run):
        charges = read_ledger(run.site(row["site"]) / "ledger.jsonl")
        spent = [charge.mechanism for charge in charges if charge.round <= int(row["round"])]
        assert int(row["charged"]) == sum(one.steps for one in spent)
        assert float(row["epsilon"]) == pytest.approx(epsilon_of(spent, 1e-3), rel=1e-4)


def test_too_few_answers_stop_the_run_and_it_can_go_on(tmp_path: Path) -> None:
    policy = 'allow-plain = true\ngenerators = ["dcgan"]\n'
    run = start(tmp_path, SETTINGS)
    run.site("site-1").mkdir(parents=True, exist_ok=True)
    (run.site("site-1") / "policy.toml").write_text(policy)
    with pytest.raises(FedSynthError, match=r"1 of 2 sites take part and 2 must .*site-1: refused by its policy"):
        go(run, SETTINGS)
    (run.site("site-1") / "policy.toml").write_text("allow-plain = true\n")
    go(run, SETTINGS)
    assert len(rows(run)) == 6


def test_a_site_that_fails_keeps_its_text_to_itself(tmp_path: Path) -> None:
    settings = replace(SETTINGS, min_sites=1)
    run = start(tmp_path, settings)
    place = run.site("site-1") / "state-000001.safetensors"
    place.mkdir(parents=True)  # its disk is not what it should be
    go(run, settings)
    told = [row for row in rows(run) if row["site"] == "site-1"]
    assert {row["answered"] for row in told} == {"false"}
    assert str(tmp_path) not in run.rounds.read_text()
    assert "state-000001" in (run.site("site-1") / "site.log").read_text()


def test_growing_networks_grow_in_step(tmp_path: Path) -> None:
    """A growing sampler remembers its stage in a buffer: the same at every site, whoever missed rounds."""
    settings = replace(
        SETTINGS, generator="progan", options={}, rounds=4, local_steps=1, min_sites=1, inject="dropout=0.4", seed=1
    )
    run = simulated(tmp_path, settings)
    assert any(row["reason"] for row in rows(run))
    grown = [load_file(path)["generator.grown"] for path in sorted(run.checkpoints.glob("round-*"))]
    assert float(grown[-1]) == 0.75  # the progress of the last of four steps
    assert float(load_file(run.checkpoints / "generator.safetensors")["generator.grown"]) == 0.75


def test_the_servers_optimiser_survives_a_kill(tmp_path: Path) -> None:
    settings = replace(SETTINGS, strategy="fedadam")
    whole = simulated(tmp_path, settings, "whole")
    broken = killed_after(tmp_path, settings, 2)
    go(broken, settings)
    assert_same(whole, broken)


def test_the_moving_average_moves_as_one_that_is_updated_every_step() -> None:
    rng = np.random.default_rng(0)
    ema, old, new = rng.normal(size=(3, 5))
    kept, from_old, from_new = straight_line(7, 12, 5.0)
    slow = ema.copy()
    for k in range(1, 13):
        decay = min(0.5 ** (1 / 5.0), (1 + 7 + k - 1) / (10 + 7 + k - 1))
        slow = decay * slow + (1 - decay) * ((1 - k / 12) * old + k / 12 * new)
    np.testing.assert_allclose(kept * ema + from_old * old + from_new * new, slow, atol=1e-12)
    assert kept + from_old + from_new == pytest.approx(1)


def test_a_run_goes_on_with_its_own_settings_only(tmp_path: Path) -> None:
    run = simulated(tmp_path, SETTINGS)
    with pytest.raises(ConfigError, match="started with local-steps = 2, not 3"):
        go(run, replace(SETTINGS, local_steps=3))
    with open_run(run.folder).locked(), pytest.raises(RefusedError, match="another process"):
        go(run, SETTINGS)


def test_memory_and_disk_give_the_same(tmp_path: Path, whole: Run) -> None:
    """As on an engine that starts a process for every message."""
    run = start(tmp_path, SETTINGS, "forgetful")
    go(run, SETTINGS, watch=lambda progress: client_app.forget_everything())
    assert_same(whole, run)


def test_sites_beyond_what_memory_may_hold_give_the_same(
    tmp_path: Path, whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_app, "KEPT_BYTES", 0)
    assert_same(whole, simulated(tmp_path, SETTINGS, "crowded"))
    assert len(client_app._works) == 1


def test_no_row_is_lost_when_the_server_dies_at_its_checkpoint(
    tmp_path: Path, whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, keep = start(tmp_path, SETTINGS), rounds.save_checkpoint

    for dies_before in (True, False):

        def dying(folder, checkpoint, generator, before=dies_before):  # type: ignore[no-untyped-def]
            if checkpoint.round == 2 and before:
                raise InterruptedError
            keep(folder, checkpoint, generator)
            if checkpoint.round == 2:
                raise InterruptedError

        monkeypatch.setattr(rounds, "save_checkpoint", dying)
        with pytest.raises(InterruptedError):
            go(run, SETTINGS)
        client_app.forget_everything()
    monkeypatch.setattr(rounds, "save_checkpoint", keep)
    go(run, SETTINGS)
    assert [row["round"] for row in rows(run)] == ["1", "1", "2", "2", "3", "3"]
    assert_same(run, whole)
