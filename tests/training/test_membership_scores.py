"""Networks as judges: by hand on a small discriminator, the same in every batch, from one site and from a server."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedsynth.data import ImageSet
from fedsynth.errors import FedSynthError
from fedsynth.models.base import SeededSource, joined
from fedsynth.runs import Run, create_run
from fedsynth.training.centralised import run_training
from fedsynth.training.checkpoint import save_tensors
from fedsynth.training.membership_scores import BATCH, DISCRIMINATOR, DRAWS, MembershipScorer, membership_scorer
from fedsynth.training.patient_batches import PatientBatches
from fedsynth.training.random_streams import stream_seed
from fedsynth.training.settings import TrainSettings
from fedsynth.training.site_storage import CENTRALISED, STATE
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


def test_a_discriminators_score_by_hand(trained: tuple[Run, ImageSet]) -> None:
    run, images = trained
    scorer = membership_scorer(run)
    assert scorer is not None
    batch = PatientBatches(images).fetch(np.arange(len(images)))
    with torch.no_grad():
        discriminator = scorer.family.nets["discriminator"](joined(batch), batch.get("label"), 1.0)
    found = scorer(images)
    assert found == pytest.approx(-np.log1p(np.exp(-discriminator.double().numpy())), abs=1e-4)  # log of "this is real"
    assert len(set(found.round(6))) > 20


def test_an_image_is_judged_the_same_in_any_company(trained: tuple[Run, ImageSet]) -> None:
    run, images = trained
    scorer = membership_scorer(run)
    assert scorer is not None
    assert scorer(images.rows(np.array([7, 3])))[1] == pytest.approx(scorer(images)[3], abs=1e-5)


def test_the_server_judges_with_what_it_received(trained: tuple[Run, ImageSet], tmp_path: Path) -> None:
    """A federated run has no state of a single site, but the discriminator that was averaged."""
    run, images = trained
    scorer = membership_scorer(run)
    assert scorer is not None
    server = Run(folder=tmp_path)
    server.checkpoints.mkdir()
    for file in run.checkpoints.glob("generator.*"):
        (server.checkpoints / file.name).write_bytes(file.read_bytes())
    assert membership_scorer(server) is None
    weights = {
        f"discriminator.{name}": value for name, value in scorer.family.nets["discriminator"].state_dict().items()
    }
    save_tensors(server.checkpoints / DISCRIMINATOR, weights, {})
    received = membership_scorer(server)
    assert received is not None
    assert received(images) == pytest.approx(scorer(images), abs=1e-5)
    save_tensors(server.checkpoints / DISCRIMINATOR, {"discriminator.nothing": torch.zeros(3)}, {})
    with pytest.raises(FedSynthError, match="as its card describes"):
        membership_scorer(server)


def test_an_autoencoder_judges_by_its_bound_alone(tmp_path: Path, trained: tuple[Run, ImageSet]) -> None:
    """Not by the prior's share of it once more, which is far larger and knows less."""
    images = trained[1]
    settings = TrainSettings(generator="vae", images=Path("images"), steps=2, batch=4, sheets=0, options={"base": 4})
    run = create_run(settings, generator="vae", folder=tmp_path / "run")
    run_training(images, settings, run)
    scorer = membership_scorer(run)
    assert scorer is not None
    batch, total = PatientBatches(images).fetch(np.arange(len(images))), torch.zeros(len(images))
    for draw in range(DRAWS):
        noise = scorer.family.noise(BATCH, SeededSource(stream_seed(0, "judge", draw)))
        noise = {name: value[: len(images)] for name, value in noise.items()}
        total -= scorer.family.real_loss(scorer.family.phases[0], batch, noise, 1.0).detach()
    assert scorer(images) == pytest.approx((total / DRAWS).numpy(), abs=1e-4)


def test_no_networks_no_judge(tmp_path: Path) -> None:
    assert membership_scorer(Run(folder=tmp_path)) is None


def test_a_set_of_another_kind_is_refused(trained: tuple[Run, ImageSet]) -> None:
    run, images = trained
    scorer = membership_scorer(run)
    assert scorer is not None
    other = replace(images, header=replace(images.header, channels=("flair",)))
    with pytest.raises(FedSynthError, match="other channels"):
        scorer(other)
    assert isinstance(scorer, MembershipScorer)
    assert (run.site(CENTRALISED) / STATE).is_file()
