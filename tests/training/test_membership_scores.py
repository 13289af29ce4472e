"""Networks as judges: by hand on a small critic, the same in every batch, from one holder and from a server."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fedsynth.data import ImageSet
from fedsynth.errors import FedSynthError
from fedsynth.models.base import SeededDraws, joined
from fedsynth.runs import Run, create_run
from fedsynth.training.centralised import run_training
from fedsynth.training.membership_scores import BATCH, CRITIC, DRAWS, Judge, judge_of
from fedsynth.training.patient_batches import Holder
from fedsynth.training.random_streams import stream_seed
from fedsynth.training.settings import TrainSettings
from fedsynth.training.site_storage import HOLDER, STATE
from tests.training.tiny import tiny_set


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, ImageSet]:
    images = tiny_set(patients=8, size=16)
    roles = np.where(images.cases["patient"].str[1:].astype(int) < 4, "member", "holdout")
    images = images.with_cases(images.cases.assign(role=roles))
    settings = TrainSettings(generator="mlp", images=Path("images"), steps=12, batch=8, sheets=0, seed=1)
    run = create_run(settings, generator="mlp", folder=tmp_path_factory.mktemp("runs") / "run")
    run_training(images, settings, run)
    return run, images


def test_a_critics_score_by_hand(trained: tuple[Run, ImageSet]) -> None:
    run, images = trained
    judge = judge_of(run)
    assert judge is not None
    batch = Holder(images).fetch(np.arange(len(images)))
    with torch.no_grad():
        critic = judge.family.nets["critic"](joined(batch), batch.get("label"), 1.0)
    found = judge(images)
    assert found == pytest.approx(-np.log1p(np.exp(-critic.double().numpy())), abs=1e-4)  # log of "this is real"
    assert len(set(found.round(6))) > 20


def test_an_image_is_judged_the_same_in_any_company(trained: tuple[Run, ImageSet]) -> None:
    run, images = trained
    judge = judge_of(run)
    assert judge is not None
    assert judge(images.rows(np.array([7, 3])))[1] == pytest.approx(judge(images)[3], abs=1e-5)


def test_the_server_judges_with_what_it_received(trained: tuple[Run, ImageSet], tmp_path: Path) -> None:
    """A federated run has no state of a single holder, but the critic that was averaged."""
    run, images = trained
    judge = judge_of(run)
    assert judge is not None
    server = Run(folder=tmp_path)
    server.checkpoints.mkdir()
    for file in run.checkpoints.glob("generator.*"):
        (server.checkpoints / file.name).write_bytes(file.read_bytes())
    assert judge_of(server) is None
    weights = {f"critic.{name}": value for name, value in judge.family.nets["critic"].state_dict().items()}
    save_file(weights, server.checkpoints / CRITIC)
    received = judge_of(server)
    assert received is not None
    assert received(images) == pytest.approx(judge(images), abs=1e-5)
    save_file({"critic.nothing": torch.zeros(3)}, server.checkpoints / CRITIC)
    with pytest.raises(FedSynthError, match="as its card describes"):
        judge_of(server)


def test_an_autoencoder_judges_by_its_bound_alone(tmp_path: Path, trained: tuple[Run, ImageSet]) -> None:
    """Not by the prior's share of it once more, which is far larger and knows less."""
    images = trained[1]
    settings = TrainSettings(generator="vae", images=Path("images"), steps=2, batch=4, sheets=0, options={"base": 4})
    run = create_run(settings, generator="vae", folder=tmp_path / "run")
    run_training(images, settings, run)
    judge = judge_of(run)
    assert judge is not None
    batch, total = Holder(images).fetch(np.arange(len(images))), torch.zeros(len(images))
    for draw in range(DRAWS):
        noise = judge.family.noise(BATCH, SeededDraws(stream_seed(0, "judge", draw)))
        noise = {name: value[: len(images)] for name, value in noise.items()}
        total -= judge.family.private_loss(judge.family.turns[0], batch, noise, 1.0).detach()
    assert judge(images) == pytest.approx((total / DRAWS).numpy(), abs=1e-4)


def test_no_networks_no_judge(tmp_path: Path) -> None:
    assert judge_of(Run(folder=tmp_path)) is None


def test_a_set_of_another_kind_is_refused(trained: tuple[Run, ImageSet]) -> None:
    run, images = trained
    judge = judge_of(run)
    assert judge is not None
    other = replace(images, header=replace(images.header, channels=("flair",)))
    with pytest.raises(FedSynthError, match="other channels"):
        judge(other)
    assert isinstance(judge, Judge)
    assert (run.site(HOLDER) / STATE).is_file()
