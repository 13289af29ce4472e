"""What the server says of every site's epsilon, where their declared sizes differ."""

from dataclasses import replace
from pathlib import Path

import pytest

from fedsynth.errors import ConfigError, FedSynthError
from fedsynth.federation.checkpoints import Checkpoint
from fedsynth.federation.exchange import Facts
from fedsynth.federation.handshake import as_agreement, handshake
from fedsynth.federation.messages import Hello
from fedsynth.federation.released_model import card_of, release
from fedsynth.federation.server_app import remembered
from fedsynth.privacy.accounting import rounded_up
from fedsynth.runs import Run, create_run
from fedsynth.training.settings import Privacy
from tests.federation.tiny import SETTINGS
from tests.training.tiny import tiny_set

PRIVACY = Privacy(epsilon=8.0, patients=100, expected_batch_size=10, delta=1e-3)


class Two:
    """Two willing hospitals that are never asked for a round."""

    def handshake(self) -> list[Hello]:
        facts = Facts.of(tiny_set())
        return [Hello(site=name, facts=facts) for name in ("large", "small")]

    def ask(self, orders: object, arrays: object) -> list[object]:
        raise AssertionError


def test_every_site_is_told_by_its_own_plan_and_the_card_by_the_weakest(tmp_path: Path) -> None:
    settings = replace(SETTINGS, batch=None, privacy=PRIVACY, weighting="declared:large=100,small=20")
    agreement = handshake(settings, Two())  # type: ignore[arg-type]
    assert {site: plan.settings.rate for site, plan in agreement.plans.items()} == {"large": 0.1, "small": 0.5}
    worst = max(plan.claim.replace_one for plan in agreement.plans.values())
    assert worst > min(plan.claim.replace_one for plan in agreement.plans.values()) + 1
    run, end = Run(folder=tmp_path), Checkpoint(round=3, weights={}, ema={}, sites=("large", "small"))
    whole = card_of(settings, agreement, end, run)
    assert f"replace-one {rounded_up(worst, 3):g}" in whole.privacy
    # a run that is resumed without the small one: its patients were promised less than those who are left
    here = as_agreement(agreement, settings, ["large"])
    assert card_of(settings, here, end, run) == whole
    assert whole.trained_on == "2 sites: large, small"
    alone = card_of(settings, agreement, replace(end, sites=("large",)), run)
    assert alone.privacy != whole.privacy
    assert [group.site for group in alone.lineage.runs[-1].patients] == ["large"]


def test_a_site_without_a_declared_size_is_told_before_anybody_pays() -> None:
    settings = replace(SETTINGS, weighting="declared:large=100")
    with pytest.raises(ConfigError, match=r"declares no size of a site.*small"):
        handshake(settings, Two())  # type: ignore[arg-type]


class Some:
    """Hospitals of phantoms or patients, by name."""

    def __init__(self, **phantoms: bool) -> None:
        facts = Facts.of(tiny_set())
        self.hellos = [Hello(site=name, facts=replace(facts, phantoms=value)) for name, value in phantoms.items()]

    def handshake(self) -> list[Hello]:
        return self.hellos


def test_a_run_that_met_patients_is_never_public_again(tmp_path: Path) -> None:
    """Resumed while the real hospital is away, its card said that no patient was ever read."""
    settings = replace(SETTINGS, min_sites=1)
    run = create_run(settings, generator="mlp", folder=tmp_path / "run")
    phantoms, both = Some(made=True), Some(made=True, real=False)
    public = []
    for sites in (phantoms, both, phantoms):
        agreement = remembered(run, handshake(settings, sites))  # type: ignore[arg-type]
        public.append(card_of(settings, agreement, Checkpoint(round=3, weights={}, ema={}), run).lineage.public)
    assert public == [True, False, False]


def test_the_card_is_written_last(tmp_path: Path) -> None:
    """A server that was killed between the files must do the release again when it is back."""
    agreement = handshake(SETTINGS, Two())  # type: ignore[arg-type]
    weights = {name: value.numpy() for name, value in agreement.family.nets.state_dict().items()}
    ema = {name: value for name, value in weights.items() if name.startswith("generator")}
    end = Checkpoint(round=3, weights=weights, ema=ema)
    for broken in ("discriminator.safetensors", "generator.safetensors"):
        (tmp_path / broken).mkdir()
        with pytest.raises(FedSynthError):
            release(SETTINGS, tmp_path, agreement, end, Run(folder=tmp_path))
        assert not (tmp_path / "generator.toml").exists()
        (tmp_path / broken).rmdir()
    release(SETTINGS, tmp_path, agreement, end, Run(folder=tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {
        "discriminator.safetensors",
        "generator.safetensors",
        "generator.toml",
    }
