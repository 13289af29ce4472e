"""The same rounds train a task network on real images: sharing the model instead of images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file

from fedsynth.data import ImageSet
from fedsynth.federation.settings import FederationSettings
from fedsynth.models.downstream.tasks import build_task
from fedsynth.runs import Run
from fedsynth.training.patient_batches import PatientBatches
from fedsynth.training.random_streams import stream_seed
from fedsynth.training.session import prepare
from fedsynth.training.settings import cpu_threads
from tests.federation.tiny import assert_same, go, killed_after, rows, simulated, start
from tests.training.tiny import tiny_set

SETTINGS = FederationSettings(generator="unet", sites=2, rounds=3, local_steps=5, batch=4, rate=5e-3)


def bright_lesions() -> ImageSet:
    """The lesion is where it is bright: a few steps learn that."""
    images = tiny_set(patients=6, size=16)
    masks = np.zeros_like(images.masks)
    masks[:, 4:9, 5:11] = 1
    pixels = np.where(masks[:, None] == 1, 220, 40).astype(np.uint8)
    return replace(images, images=pixels, masks=masks)


def dice_loss(run: Run, images: ImageSet) -> float:
    """Of the federated network, on images of both sites."""
    dataset = PatientBatches(images)
    task = build_task("unet", dataset.shape)
    state = load_file(run.checkpoints / "round-0003.safetensors")
    own = {name: torch.from_numpy(np.array(state[name])) for name in task.nets.state_dict()}
    task.nets.load_state_dict(own)
    with torch.no_grad(), cpu_threads(1):
        return float(task.loss(dataset.fetch(np.arange(len(images)))).mean())


def test_a_segmentation_network_is_federated_by_the_same_rounds(tmp_path: Path) -> None:
    images = bright_lesions()
    run = start(tmp_path, SETTINGS, "run", images=images)
    go(run, SETTINGS)
    assert len(rows(run)) == 6
    assert all(float(row["network_loss"]) > 0 for row in rows(run))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fresh = build_task("unet", PatientBatches(images).shape)
    with torch.no_grad():
        before = float(fresh.loss(PatientBatches(images).fetch(np.arange(len(images)))).mean())
    assert dice_loss(run, images) < 0.7 * before
    released = load_file(run.checkpoints / "network.safetensors")
    assert {name.split(".")[0] for name in released} == {"network"}
    broken = killed_after(tmp_path, SETTINGS, 2)
    go(broken, SETTINGS)
    assert_same(run, broken)


def test_a_task_at_one_site_is_training_alone(tmp_path: Path) -> None:
    settings = replace(SETTINGS, sites=1, rounds=2, local_steps=2)
    run = simulated(tmp_path, settings)
    with cpu_threads(1):
        alone = prepare(ImageSet.load(tmp_path / "set"), settings.training(), streams=stream_seed(0, "site", "site-0"))
        list(alone.trainer.run(4))
    found = load_file(run.checkpoints / "round-0002.safetensors")
    for name, value in alone.trainer.family.nets.state_dict().items():
        assert np.array_equal(found[name], value.numpy()), name
