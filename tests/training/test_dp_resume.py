"""A private run that was broken off is resumed only as itself: same store, same name, same people, same claim."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fedsynth.data import ImageSet
from fedsynth.errors import RefusedError
from fedsynth.privacy.ledger import Ledger
from fedsynth.runs import Run
from fedsynth.training.centralised import run_training
from fedsynth.training.session import prepare
from fedsynth.training.settings import TrainSettings
from fedsynth.training.site_storage import SiteStorage
from tests.training.test_dp_gradients import PRIVACY, kept_in, start
from tests.training.tiny import tiny_set


def phantoms() -> ImageSet:
    images = tiny_set()
    return replace(images, header=replace(images.header, provenance={"phantom": {}}))


class Killed(Exception):
    """As if the process had ended."""


def run_killed_at(tmp_path: Path, settings: TrainSettings, step: int, images: ImageSet | None = None) -> Run:
    """A run of blocks of two steps that ended after step number `step`."""
    run = start(tmp_path, settings)

    def kill(report: object, total: int) -> None:
        if report.step == step:  # type: ignore[attr-defined]
            raise Killed

    with pytest.raises(Killed):
        run_training(tiny_set() if images is None else images, settings, run, on_step=kill)
    return run


@pytest.fixture
def _short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedsynth.training.centralised.BLOCK", 2)


@pytest.mark.usefixtures("_short_blocks")
def test_a_run_is_not_resumed_where_the_ledger_does_not_know_its_steps(tmp_path: Path) -> None:
    """With another store the lost block would be free and the card too small."""
    settings = kept_in(tmp_path)
    run = run_killed_at(tmp_path, settings, 4)
    elsewhere = replace(settings, privacy=replace(PRIVACY, store=tmp_path / "other"))
    with pytest.raises(RefusedError, match="the ledger knows 0"):
        run_training(tiny_set(), elsewhere, run, resume=True)
    assert not list((tmp_path / "other").rglob("ledger.jsonl"))


@pytest.mark.usefixtures("_short_blocks")
def test_a_run_that_lost_its_name_in_the_ledger_is_not_resumed(tmp_path: Path) -> None:
    settings = kept_in(tmp_path)
    run = run_killed_at(tmp_path, settings, 4)
    (run.site("centralised") / "ledger-name").unlink()
    with pytest.raises(RefusedError, match="name in the ledger"):
        run_training(tiny_set(), settings, run, resume=True)


def test_a_plain_run_does_not_become_private_by_resuming(tmp_path: Path) -> None:
    plain = replace(kept_in(tmp_path), generator="vae", options={"latent": 4, "base": 8}, privacy=None, batch=4)
    run = start(tmp_path, plain)
    run_training(tiny_set(), plain, run)
    private = replace(plain, batch=None, privacy=kept_in(tmp_path).privacy)
    with pytest.raises(RefusedError, match="name in the ledger"):
        run_training(tiny_set(), private, run, resume=True)


@pytest.mark.usefixtures("_short_blocks")
def test_a_run_of_patients_does_not_become_one_of_phantoms_by_resuming(tmp_path: Path) -> None:
    """A changed header would free the rest of the charge and stamp the generator public."""
    settings = kept_in(tmp_path)
    run = run_killed_at(tmp_path, settings, 4)
    with pytest.raises(RefusedError, match="phantoms"):
        run_training(phantoms(), settings, run, resume=True)


@pytest.mark.usefixtures("_short_blocks")
def test_a_run_of_phantoms_does_not_become_one_of_patients_by_resuming(tmp_path: Path) -> None:
    settings = kept_in(tmp_path)
    run = run_killed_at(tmp_path, settings, 4, phantoms())
    with pytest.raises(RefusedError, match="name in the ledger"):
        run_training(tiny_set(), settings, run, resume=True)


@pytest.mark.usefixtures("_short_blocks")
@pytest.mark.parametrize(("first", "then"), [({"insecure_seed": 1}, {}), ({"epsilon": 8.0}, {"epsilon": 4.0})])
def test_a_run_is_not_resumed_under_a_better_claim(
    tmp_path: Path, first: dict[str, float], then: dict[str, float]
) -> None:
    run = run_killed_at(tmp_path, kept_in(tmp_path, **first), 4)
    with pytest.raises(RefusedError, match="charged under other settings"):
        run_training(tiny_set(), kept_in(tmp_path, **then), run, resume=True)


@pytest.mark.usefixtures("_short_blocks")
def test_a_copied_run_shares_its_budget_with_the_original(tmp_path: Path) -> None:
    """Both are open at once: each saw four steps left when it began."""
    settings = kept_in(tmp_path)
    run = run_killed_at(tmp_path, settings, 1)
    shutil.copytree(run.folder, tmp_path / "copy")
    first, second = (
        prepare(tiny_set(), settings, storage=SiteStorage.of(Run(folder=tmp_path / name))) for name in ("run", "copy")
    )
    assert first.pay(2, 2) == 2
    assert second.pay(2, 2) == 2
    with pytest.raises(RefusedError, match="0 are left"):
        first.pay(4, 2)
    assert sum(charge.steps for charge in Ledger("centralised", tmp_path / "store").charges()) == 6
