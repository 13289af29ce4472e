"""Settings as TOML, as Flower's run config and back; what cannot be is refused in one sentence."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedsynth.errors import ConfigError
from fedsynth.federation.settings import (
    FederationSettings,
    check_family,
    default_run_config,
    from_run_config,
    run_config_keys,
)
from fedsynth.training.settings import Privacy

FULL = FederationSettings(
    generator="mlp",
    sites=3,
    rounds=7,
    local_steps=9,
    strategy="fedadam",
    strategy_options={"rate": 0.1, "tau": 0.01},
    share="generator",
    federation="average",
    weighting="declared:a b=10,c=2.5",
    min_sites=2,
    deadline=12.5,
    inject="nan=0.1",
    count=11,
    rate=1e-3,
    seed=5,
    options={"hidden": [8, 8], "latent": 4, "wide": True},
    privacy=Privacy(epsilon=3.5, patients=40, insecure_seed=0, store=Path("/srv/store")),
)

SECURE = FederationSettings(
    generator="fitted-simulator", privacy=Privacy(epsilon=1.0, patients=40), secure_sum=True, colluding=1
)


@pytest.mark.parametrize(
    "settings", [FULL, SECURE, FederationSettings(), replace(FederationSettings(), pairing="t1-to-t2")]
)
def test_nothing_is_lost_on_the_way_through_flower(settings: FederationSettings) -> None:
    table = settings.to_run_config(Path("/data/run"))
    assert from_run_config(table) == (settings, Path("/data/run"))
    assert set(table) == set(run_config_keys()) == set(default_run_config())
    assert all(isinstance(value, bool | int | float | str) for value in table.values())


def test_a_misspelt_key_is_named() -> None:
    with pytest.raises(ConfigError, match="did you mean 'rounds'"):
        from_run_config(default_run_config() | {"run": "x", "ronds": 3})
    with pytest.raises(ConfigError, match="no run directory"):
        from_run_config(default_run_config())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rounds": 0}, "--rounds must be at least 1"),
        ({"local_steps": 0}, "--local-steps must be at least 1"),
        ({"min_sites": 5}, "--min-sites must lie within the number of sites .found 5.; take 1 to 3"),
        ({"deadline": 0.0}, "positive number of seconds"),
        ({"strategy": "fedavgg"}, "did you mean 'fedavg'"),
        ({"strategy": "fedprox", "strategy_options": {"tau": 1.0}}, "fedprox has no such option"),
        ({"weighting": "patients"}, "never weights by patients"),
        ({"weighting": "declared:a"}, "needs NAME=N"),
        ({"weighting": "sizes"}, "unknown --weighting"),
        ({"inject": "dropuot=0.1"}, "did you mean 'dropout'"),
        ({"count": 0}, "--count must be at least 1"),
    ],
)
def test_settings_that_cannot_be(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(FULL, **change)


def test_families_that_learn_nothing_are_not_federated() -> None:
    with pytest.raises(ConfigError, match="nothing to federate"):
        check_family(FederationSettings(generator="label-gmm"))


def test_weights_are_public_in_private_runs() -> None:
    metrics = {"patients": 17.0}
    private = replace(FULL, weighting="auto")
    assert private.weight("a b", metrics) == 1.0
    assert FULL.weight("a b", metrics) == 10.0
    assert FederationSettings().weight("a b", metrics) == 17.0
    assert FederationSettings(weighting="uniform").weight("a b", metrics) == 1.0
    with pytest.raises(ConfigError, match="declares no size of a site"):
        FULL.weight("d", metrics)


def test_more_than_half_must_answer_where_nothing_is_said() -> None:
    assert [FederationSettings(sites=n).quorum for n in (1, 2, 3, 4, 5)] == [1, 2, 2, 3, 3]
