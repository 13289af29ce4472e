"""What is exchanged after training: sums that fit the maps of all sites, and samplers of a one-shot federation."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from typer.testing import CliRunner

from fedsynth.cli import app
from fedsynth.errors import FedSynthError
from fedsynth.federation import client_app
from fedsynth.federation.deploy.cost_estimate import count_cost
from fedsynth.federation.egress_log import read_egress
from fedsynth.federation.exchange import Facts
from fedsynth.federation.outputs import finish
from fedsynth.federation.settings import FederationSettings
from fedsynth.models.mixture import SiteMixture
from fedsynth.runs import Run
from fedsynth.training import session
from fedsynth.training.checkpoint import load_generator
from fedsynth.training.fitting import sums_of
from fedsynth.training.membership_scores import membership_scorer
from fedsynth.training.random_streams import stream_seed
from fedsynth.training.session import prepare
from fedsynth.training.settings import cpu_threads
from tests.federation.tiny import SETTINGS as JOINT
from tests.federation.tiny import assert_same, go, killed_after, rows, simulated, site_images, start
from tests.training.test_fitting import tumours

SETTINGS = FederationSettings(
    generator="two-stage", sites=2, rounds=2, local_steps=1, batch=4, count=8, options={"base": 4, "latent": 4}
)
ONE_SHOT = replace(SETTINGS, federation="one-shot")
PASSES = 9


def federated(tmp_path: Path, settings: FederationSettings, name: str = "run") -> Run:
    run = start(tmp_path, settings, name, images=tumours())
    go(run, settings)
    return run


def maps_of_everybody(settings: FederationSettings) -> dict[str, np.ndarray]:
    """The model of label maps as one site with all images would fit it."""
    prepared = prepare(tumours(), settings.training())
    family = prepared.trainer.family
    for number in range(family.passes):
        sums = sums_of(family, prepared.dataset, number)
        family.fit(number, {name: value for name, value in sums.items() if name.startswith("maps-")})
    return {name: value.numpy() for name, value in family.nets.state_dict().items() if name.startswith("maps-")}


def test_the_maps_are_fitted_to_all_sites_as_if_they_were_one(tmp_path: Path) -> None:
    run = federated(tmp_path, SETTINGS)
    found = load_file(run.checkpoints / "generator.safetensors")
    for name, value in maps_of_everybody(SETTINGS).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-3, err_msg=name)
    assert found["renderer-prior.weight"].any()
    card = load_generator(run.checkpoints)[1]
    assert (card.generator, card.steps) == ("two-stage", 2)
    made = finish(SETTINGS, run).images
    assert made is not None
    assert np.asarray(made.masks).any()
    told = rows(run)
    assert len(told) == 2 * (2 + PASSES)
    assert {row["steps"] for row in told if int(row["round"]) > 2} == {"0"}
    left = [line for line in read_egress(run.site("site-0") / "egress.jsonl") if line["round"] > 2]
    assert len(left) == PASSES
    assert "renderer-autoencoder" not in json.dumps(left)


def killed_while_fitting(tmp_path: Path, settings: FederationSettings, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The server dies after the third exchange that follows training, and the sites forget what was in memory."""
    from fedsynth.federation import rounds

    run, kept = start(tmp_path, settings, "broken", images=tumours()), rounds.save_checkpoint

    class Killed(Exception):
        pass

    def save(folder: Path, checkpoint: rounds.Checkpoint, generator: str) -> None:
        kept(folder, checkpoint, generator)
        if checkpoint.round == settings.training_exchanges + 3:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(rounds, "save_checkpoint", save)
        with pytest.raises(Killed):
            go(run, settings)
    client_app.forget_everything()
    return run


@pytest.mark.parametrize("settings", [SETTINGS, ONE_SHOT], ids=["average", "one-shot"])
def test_a_kill_while_fitting_changes_nothing(
    tmp_path: Path, settings: FederationSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = federated(tmp_path, settings), killed_while_fitting(tmp_path, settings, monkeypatch)
    go(broken, settings)
    assert_same(whole, broken)
    assert rows(whole)[-1]["round"] == rows(broken)[-1]["round"]


def test_a_one_shot_federation_keeps_what_each_site_trained_alone(tmp_path: Path) -> None:
    run = federated(tmp_path, ONE_SHOT)
    family, card = load_generator(run.checkpoints)
    assert isinstance(family, SiteMixture)
    assert membership_scorer(run) is None, "several samplers have no common score"
    assert card.mixture == (0.5, 0.5)
    found = load_file(run.checkpoints / "generator.safetensors")
    with cpu_threads(1):
        alone = prepare(site_images(tmp_path, 1), ONE_SHOT.training(), streams=stream_seed(0, "site", "site-1"))
        list(alone.trainer.run(2))
        alone.fit(but=alone.trainer.family.pooled)
    for name, value in alone.trainer.ema.values.items():
        if name.startswith("renderer-"):
            assert np.array_equal(found[f"1-{name}"], value.numpy()), name
    for name, value in maps_of_everybody(ONE_SHOT).items():
        for site in (0, 1):
            np.testing.assert_allclose(found[f"{site}-{name}"], value, rtol=1e-3, atol=1e-3, err_msg=name)
    made = finish(ONE_SHOT, run).images
    assert made is not None
    assert len(made) == 8
    drawn = tmp_path / "drawn"
    done = CliRunner().invoke(app, ["synthesize", str(run.folder), "--count", "8", "--out", str(drawn)])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("settings", [SETTINGS, ONE_SHOT], ids=["average", "one-shot"])
def test_what_travels_after_the_last_round_was_counted_before(tmp_path: Path, settings: FederationSettings) -> None:
    run = federated(tmp_path, settings)
    cost = count_cost(settings, Facts.of(tumours()))
    own = [row for row in rows(run) if row["site"] == "site-1"]
    assert (cost.rounds, cost.exchanges) == (2, len(own) - 2)
    assert [int(row["bytes_up"]) for row in own[:2]] == [cost.bytes_up] * 2
    assert sum(int(row["bytes_up"]) for row in own[2:]) == cost.after_up
    assert sum(int(row["bytes_down"]) for row in own[2:]) == cost.after_down


def test_networks_that_sites_begin_with_are_counted_in_every_round_down(tmp_path: Path) -> None:
    begun = simulated(tmp_path, replace(JOINT, rounds=1), "begun")
    settings = replace(JOINT, federation="one-shot", rounds=2, start=begun.folder)
    run = simulated(tmp_path, settings)
    cost = count_cost(settings, Facts.of(site_images(tmp_path, 0)))
    assert cost.bytes_up == 0 < cost.bytes_down
    assert [int(row["bytes_down"]) for row in rows(run) if row["round"] in ("1", "2")] == [cost.bytes_down] * 4


def test_in_a_one_shot_federation_nothing_leaves_before_the_end(tmp_path: Path) -> None:
    run = federated(tmp_path, ONE_SHOT)
    for line in read_egress(run.site("site-0") / "egress.jsonl"):
        if 0 < line["round"] <= 2:
            assert line["bytes"] == 0


def test_any_family_can_be_trained_in_one_shot_and_bigger_sites_are_drawn_more_often(tmp_path: Path) -> None:
    settings = replace(JOINT, federation="one-shot", sites=2, rounds=1, weighting="declared:site-0=30,site-1=10")
    run = simulated(tmp_path, settings)
    card = load_generator(run.checkpoints)[1]
    assert card.mixture == (0.75, 0.25)
    assert {name.split(".")[0] for name in load_file(run.checkpoints / "generator.safetensors")} == {
        "0-generator",
        "1-generator",
    }
    broken = killed_after(tmp_path, settings, 1)
    go(broken, settings)
    assert_same(run, broken)


def test_each_on_its_own_fits_its_own_maps(tmp_path: Path) -> None:
    settings = replace(SETTINGS, federation="none", rounds=1)
    run = federated(tmp_path, settings)
    each = [load_file(run.site(f"site-{i}") / "generator.safetensors") for i in (0, 1)]
    assert each[0]["maps-maps.counts"][-1, 0] == each[1]["maps-maps.counts"][-1, 0] == 12
    assert not np.array_equal(each[0]["maps-maps.means"], each[1]["maps-maps.means"])
    assert len(finish(settings, run).images or ()) == 8


def test_a_site_that_sends_sums_of_another_shape_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(SETTINGS, min_sites=1)
    true_sums = session.sums_of

    def sums(family, dataset, number, **rest):  # type: ignore[no-untyped-def]
        found = true_sums(family, dataset, number, **rest)
        if dataset.count == 12 and sums.spoil:
            sums.spoil = False
            return {name: torch.zeros(1, dtype=torch.float64) for name in found}
        return found

    sums.spoil = True
    monkeypatch.setattr(session, "sums_of", sums)
    told = rows(federated(tmp_path, settings))
    assert sorted(row["reason"] for row in told if row["round"] == "3") == ["", "sent another shape"]


def test_policies_name_what_the_sums_are_for(tmp_path: Path) -> None:
    run = start(tmp_path, SETTINGS, images=tumours())
    run.site("site-0").mkdir(parents=True)
    (run.site("site-0") / "policy.toml").write_text('allow-plain = true\nnetworks = ["renderer-autoencoder"]')
    with pytest.raises(FedSynthError, match="refused by its policy: networks"):
        go(run, SETTINGS)
