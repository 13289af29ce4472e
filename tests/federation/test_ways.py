"""Ways of sharing other than the average of all: discriminators at home, each alone, a pull back, one generator for
all.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedsynth.errors import FedSynthError
from fedsynth.federation.egress_log import read_egress
from fedsynth.runs import Run
from fedsynth.training.checkpoint import load_generator
from fedsynth.training.random_streams import stream_seed
from fedsynth.training.session import fresh_family, prepare
from fedsynth.training.settings import cpu_threads
from tests.federation.tiny import SETTINGS, assert_same, go, killed_after, rows, simulated, site_images

CENTRAL = replace(SETTINGS, federation="central-generator", rounds=2, local_steps=3)


def test_discriminators_stay_at_home_where_only_the_generator_is_shared(tmp_path: Path) -> None:
    settings = replace(SETTINGS, share="generator")
    run = simulated(tmp_path, settings)
    assert {name.split(".")[0] for name in load_file(run.checkpoints / "round-0003.safetensors")} == {
        "generator",
        "average/generator",
    }
    assert not (run.checkpoints / "discriminator.safetensors").exists()
    egress = json.dumps(read_egress(run.site("site-0") / "egress.jsonl"))
    assert "discriminator." not in egress
    states = [load_file(run.site(f"site-{i}") / "state-000003.safetensors") for i in (0, 1)]
    assert not np.array_equal(*(state["nets.discriminator.layers.0.weight"] for state in states))
    broken = killed_after(tmp_path, settings, 2)
    go(broken, settings)
    assert_same(run, broken)


def test_each_on_its_own_is_training_alone(tmp_path: Path) -> None:
    settings = replace(SETTINGS, federation="none")
    run = simulated(tmp_path, settings)
    with cpu_threads(1):
        alone = prepare(site_images(tmp_path, 1), settings.training(), streams=stream_seed(0, "site", "site-1"))
        list(alone.trainer.run(settings.total_steps))
    found = load_file(run.site("site-1") / "generator.safetensors")
    for name, value in alone.trainer.ema.values.items():
        assert np.array_equal(found[name], value.numpy()), name
    assert not (run.checkpoints / "generator.safetensors").exists()


def test_fedprox_stays_nearer_to_the_received_weights(tmp_path: Path) -> None:
    def moved(run: Run) -> float:
        first = fresh_family(SETTINGS.training(), load_generator(run.checkpoints)[0].shape).nets.state_dict()
        last = load_file(run.checkpoints / "round-0001.safetensors")
        return float(sum(((last[name] - first[name].numpy()) ** 2).sum() for name in first))

    settings = replace(SETTINGS, rounds=1, local_steps=20)
    free = moved(simulated(tmp_path, settings, "free"))
    pulled = replace(settings, strategy="fedprox", strategy_options={"mu": 100.0})
    assert moved(simulated(tmp_path, pulled, "pulled")) < 0.8 * free


def test_a_generator_at_the_server_with_one_site_is_pooled_training(tmp_path: Path) -> None:
    settings = replace(CENTRAL, sites=1)
    run = simulated(tmp_path, settings)
    with cpu_threads(1):
        pooled = prepare(site_images(tmp_path, 0, 1), settings.training(), streams=stream_seed(0, "site", "site-0"))
        list(pooled.trainer.run(6))
    found = load_file(run.checkpoints / "round-0006.safetensors")
    for name, value in pooled.trainer.family.nets.state_dict().items():
        if name.startswith("generator"):
            np.testing.assert_array_equal(found[name], value.numpy(), err_msg=name)
    released = load_file(run.checkpoints / "generator.safetensors")
    for name, value in pooled.trainer.ema.values.items():
        np.testing.assert_allclose(released[name], value.numpy(), atol=1e-6)
    assert [(row["round"], row["steps"]) for row in rows(run)] == [("1", "3"), ("2", "3")]


def test_a_generator_at_the_server_survives_a_kill_and_sees_no_discriminator(tmp_path: Path) -> None:
    whole = simulated(tmp_path, CENTRAL, "whole")
    broken = killed_after(tmp_path, CENTRAL, 1)
    go(broken, CENTRAL)
    assert_same(whole, broken)
    assert "discriminator." not in json.dumps(read_egress(whole.site("site-0") / "egress.jsonl"))
    states = [load_file(whole.site(f"site-{i}") / "state-000006.safetensors") for i in (0, 1)]
    assert not np.array_equal(*(state["nets.discriminator.layers.0.weight"] for state in states))


def test_a_generator_that_reads_patients_does_not_go_to_the_server(tmp_path: Path) -> None:
    settings = replace(CENTRAL, generator="vae", options={})
    with pytest.raises(FedSynthError, match="settings do not fit the site"):
        simulated(tmp_path, settings)
