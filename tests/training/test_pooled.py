"""A whole pooled run on disk: members only, resumed bit for bit, sheets and losses on the way."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fedsynth.errors import ConfigError, FedSynthError, RefusedError
from fedsynth.run import Run, create_run
from fedsynth.training.checkpoint import load_generator
from fedsynth.training.pooled import run_training
from fedsynth.training.preparing import prepare, training_members
from fedsynth.training.settings import TrainSettings, open_device
from tests.training.tiny import tiny_set

SETTINGS = TrainSettings(
    generator="mlp",
    images=Path("tiny"),
    steps=6,
    batch=4,
    sheets=2,
    options={"latent": 4, "hidden": [8, 8], "critic_hidden": [8]},
)


def start(tmp_path: Path, name: str = "run") -> Run:
    return create_run(SETTINGS, generator="mlp", folder=tmp_path / name)


def final_weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.checkpoints / "generator.safetensors")


def test_a_run_leaves_generator_card_losses_and_sheets(tmp_path: Path) -> None:
    run = start(tmp_path)
    card = run_training(tiny_set(), SETTINGS, run)
    assert card.steps == 6
    assert card.classes == ("a", "b")
    assert card.class_shares == (0.5, 0.5)
    assert sorted(path.name for path in run.samples.iterdir()) == ["step-000003.png", "step-000006.png"]
    with run.rounds.open() as file:
        rows = list(csv.DictReader(file))
    assert rows[-1]["steps"] == "6"
    assert float(rows[-1]["critic_loss"]) > 0
    family, read = load_generator(run.checkpoints)
    assert read == card
    assert set(final_weights(run)) == {name for name in family.nets.state_dict() if name.startswith("generator.")}


def test_interrupted_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    whole = start(tmp_path, "whole")
    run_training(tiny_set(), SETTINGS, whole)
    broken = start(tmp_path, "broken")

    class Killed(Exception):
        pass

    def kill(report: object, total: int) -> None:
        if report.step == 3:  # type: ignore[attr-defined]
            raise Killed

    with pytest.raises(Killed):
        run_training(tiny_set(), SETTINGS, broken, on_step=kill)
    run_training(tiny_set(), SETTINGS, broken, resume=True)
    for name, value in final_weights(whole).items():
        assert torch.equal(final_weights(broken)[name], value)


def test_only_members_are_trained_on() -> None:
    images = tiny_set()
    roles = np.where(images.cases["patient"].isin(["p0", "p1"]), "member", "holdout")
    split = images.with_cases(images.cases.assign(role=roles))
    assert set(training_members(split).cases["patient"]) == {"p0", "p1"}
    with pytest.raises(ConfigError, match="no members"):
        training_members(images.with_cases(images.cases.assign(role="holdout")))


def test_the_holdout_does_not_move_a_weight() -> None:
    images = tiny_set()
    roles = np.where(images.cases["patient"].isin(["p0", "p1"]), "member", "holdout")
    pixels = np.asarray(images.images).copy()
    pixels[roles == "holdout"] = 0
    split = images.with_cases(images.cases.assign(role=roles))
    first = prepare(split, SETTINGS).trainer
    second = prepare(replace(split, images=pixels), SETTINGS).trainer
    for trainer in (first, second):
        list(trainer.run(3))
    for name, value in first.family.nets.state_dict().items():
        assert torch.equal(value, second.family.nets.state_dict()[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"generator": "mlpp"}, "did you mean 'mlp'"),
        ({"options": {"hiden": [8]}}, "did you mean 'hidden'"),
        ({"generator": "dcgan", "options": {}}, "cannot make images of this size"),
        ({"generator": "spade", "options": {}}, "needs pairs"),
    ],
)
def test_bad_settings_are_one_sentence(change: dict[str, object], message: str) -> None:
    size = 6 if change.get("generator") == "dcgan" else 8
    with pytest.raises(ConfigError, match=message):
        prepare(tiny_set(size=size), replace(SETTINGS, **change))  # type: ignore[arg-type]


def test_settings_out_of_range() -> None:
    for change in ({"steps": 0}, {"batch": 0}, {"rate": 0.0}, {"rate": 2.0}):
        with pytest.raises(ConfigError):
            replace(SETTINGS, **change)  # type: ignore[arg-type]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_cuda_where_there_is_none_is_an_error() -> None:
    with pytest.raises(ConfigError, match="there is none"):
        open_device("cuda")


def test_a_run_of_patients_does_not_become_public_by_resuming(tmp_path: Path) -> None:
    """Its card would let a private run start from it at no cost."""
    run = start(tmp_path)
    run_training(tiny_set(), SETTINGS, run)
    images = tiny_set()
    phantoms = replace(images, header=replace(images.header, provenance={"phantom": {}}))
    with pytest.raises(FedSynthError, match="patients or their roles have changed"):
        run_training(phantoms, SETTINGS, run, resume=True)
    assert not load_generator(run.checkpoints)[1].lineage.public


def test_two_processes_in_one_run_are_refused(tmp_path: Path) -> None:
    run = start(tmp_path)
    with run.locked(), pytest.raises(RefusedError, match="another process"):
        run_training(tiny_set(), SETTINGS, run)


def test_a_damaged_generator_is_named(tmp_path: Path) -> None:
    run = start(tmp_path)
    run_training(tiny_set(), SETTINGS, run)
    file = run.checkpoints / "generator.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(FedSynthError, match=r"generator\.safetensors: is damaged"):
        load_generator(run.checkpoints)
