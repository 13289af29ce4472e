"""What a run directory keeps of who had which role tells nobody who was in it."""

from dataclasses import replace
from pathlib import Path

import pytest

from fedsynth.images.split import roles_digest
from fedsynth.run import create_run
from fedsynth.training.pooled import run_training
from fedsynth.training.roles import roles_mark
from tests.training.test_lineage import patients, phantoms, told


def test_whoever_knows_all_names_but_one_cannot_test_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDSYNTH_STORE", str(tmp_path / "store"))
    settings, images = told(tmp_path, None), patients("a")
    run = create_run(settings, generator=settings.generator, folder=tmp_path / "run")
    run_training(images, settings, run)
    kept = run.roles.read_text().strip()
    assert kept == roles_mark(images) != roles_digest(images.cases)
    monkeypatch.setenv("FEDSYNTH_STORE", str(tmp_path / "attacker"))
    assert roles_mark(images) != kept
    holdout = replace(images, cases=images.cases.assign(role="holdout"))
    assert roles_mark(holdout) != roles_mark(images)


def test_phantoms_are_nobody(tmp_path: Path) -> None:
    assert roles_mark(phantoms()) == roles_digest(phantoms().cases)
