"""Trackers of a federation hear what the sites' policies let leave, and nothing else."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fedsynth import config
from fedsynth.errors import ConfigError
from fedsynth.federation.approval import Plan, _meaning
from fedsynth.federation.policy import Asked
from fedsynth.federation.settings import FederationSettings, from_run_config
from fedsynth.runs import Run
from fedsynth.training import trackers
from tests.federation.tiny import SETTINGS, go, private, rows, start

TRACKED = replace(SETTINGS, weighting="uniform", rounds=2, trackers=("tensorboard",))


class Heard:
    """A sink that keeps what it is told."""

    def __init__(self) -> None:
        self.told: dict[str, str | float] = {}
        self.values: list[tuple[int, dict[str, float]]] = []
        self.closed: list[bool] = []

    def settings(self, told):
        self.told |= told

    def scalars(self, step, values):
        self.values.append((step, dict(values)))

    def close(self, *, failed):
        self.closed.append(failed)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    sink = Heard()
    monkeypatch.setattr(trackers, "find_spec", lambda name: json.__spec__)
    monkeypatch.setitem(trackers.SINKS, "tensorboard", lambda folder, name, first: sink)
    return sink


def begun(tmp_path: Path, settings: FederationSettings, policy: str = "") -> Run:
    run = start(tmp_path, settings)
    if policy:
        run.site("site-0").mkdir(parents=True)
        (run.site("site-0") / "policy.toml").write_text(policy)
    go(run, settings)
    return run


def test_losses_of_every_site_and_round_are_those_of_the_round_log(tmp_path: Path, heard: Heard) -> None:
    run = begun(tmp_path, TRACKED)
    assert [step for step, _ in heard.values] == [1, 2]
    nets = ("discriminator", "generator")
    for row in rows(run):
        _, values = heard.values[int(row["round"]) - 1]
        for net in nets:
            assert values[f"{row['site']}/{net}_loss"] == pytest.approx(float(row[f"{net}_loss"]), rel=1e-5)
    names = {"sites answered", *(f"site-{i}/{net}_loss" for i in (0, 1) for net in nets)}
    assert all(set(values) == names for _, values in heard.values)  # no patients, no class shares, no seconds
    assert heard.closed == [False]


def test_what_a_policy_keeps_at_home_is_in_no_tracker(tmp_path: Path, heard: Heard) -> None:
    begun(tmp_path, TRACKED, 'allow-plain = true\nmetrics = ["steps", "discriminator_loss"]')
    for _, values in heard.values:
        told = {name for name in values if name.startswith("site-0/")}
        assert told == {"site-0/discriminator_loss"}
        assert "site-1/generator_loss" in values


def test_a_closed_site_tells_trackers_nothing(tmp_path: Path, heard: Heard) -> None:
    begun(tmp_path, TRACKED, "allow-plain = true\nmetrics = []")
    assert not [name for _, values in heard.values for name in values if "site-0" in name]
    assert [values["sites answered"] for _, values in heard.values] == [2, 2]


def test_a_private_run_has_none_for_they_note_the_time(tmp_path: Path) -> None:
    for settings in (private(tmp_path, insecure=False), private(tmp_path)):
        with pytest.raises(ConfigError, match=r"private run has no trackers.*rounds\.csv"):
            replace(settings, trackers=("tensorboard",))


def test_settings_are_told_without_paths_and_names(tmp_path: Path, heard: Heard) -> None:
    begun(tmp_path, replace(TRACKED, rounds=1))
    assert heard.told["generator"] == "mlp"
    assert heard.told["options.latent"] == 4
    assert str(tmp_path) not in str(heard.told)
    assert not {"weighting", "pairing", "inject", "start"} & set(heard.told)


@pytest.mark.parametrize("where", ["settings", "scalars", "close"])
def test_a_tracker_that_fails_is_left_out_and_ends_nothing(
    tmp_path: Path, heard: Heard, where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError("database is locked")

    monkeypatch.setattr(heard, where, broken)
    run = begun(tmp_path, TRACKED)
    assert {row["round"] for row in rows(run)} == {"1", "2"}
    assert caplog.text.count("tracker tensorboard failed") == 1


def test_trackers_travel_with_the_run_and_belong_to_the_plan() -> None:
    two = replace(SETTINGS, trackers=("tensorboard", "mlflow"))
    assert from_run_config(two.to_run_config(Path("run")))[0] == two
    assert config.read_table(FederationSettings, config.as_table(two)) == two
    assert "trackers" not in Plan(settings=SETTINGS).table
    assert Plan(settings=two).sha256 != Plan(settings=SETTINGS).sha256
    asked = Asked(generator="mlp", private=False)
    assert any("losses" in line and "tensorboard, mlflow" in line for line in _meaning(two, asked))


def test_an_unknown_tracker_and_one_that_is_not_installed_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="trackers"):
        config.read_table(FederationSettings, {"trackers": ["tensorbord"]})
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"mlflow.*fedsynth\[trackers\]"):
        trackers.require_trackers(("mlflow",))
