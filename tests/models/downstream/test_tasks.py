"""Task networks: right losses by hand, every network at odd sizes, samples that do not mix, views that fit masks."""

import math

import pytest
import torch

from fedsynth.errors import ConfigError
from fedsynth.evaluation.settings import ClassificationSettings
from fedsynth.models.base import ImageShape, SeededSource
from fedsynth.models.downstream.tasks import (
    LIGHT,
    NETWORKS,
    SCALE,
    SHIFT,
    TURN,
    Classification,
    Segmentation,
    Views,
    build_task,
)

SIZES = [(32, 32), (20, 28), (12, 16, 10)]


def shape_of(size, channels=2):
    return ImageShape(channels=channels, size=size, n_classes=3, n_labels=4)


def batch_of(shape, n=3):
    rng = SeededSource(0)
    mask = torch.eye(shape.n_labels)[rng.integers(shape.n_labels, (n, *shape.size))].movedim(-1, 1)
    label = torch.eye(shape.n_classes)[rng.integers(shape.n_classes, (n,))]
    return {"image": rng.uniform((n, shape.channels, *shape.size)) * 2 - 1, "mask": mask, "label": label}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("network", sorted(NETWORKS))
def test_every_network_learns_at_odd_sizes_and_mixes_no_samples(network, size):
    shape = shape_of(size)
    torch.manual_seed(0)
    task, batch = build_task(network, shape, augment=True), batch_of(shape)
    noise = task.noise(3, SeededSource(1))
    loss = task.real_loss(task.phases[0], batch, noise, 0.0)
    assert loss.shape == (3,)
    assert torch.isfinite(loss).all()
    loss.mean().backward()
    assert all(value.grad is not None for value in task.parameters() if value.requires_grad)
    task.eval()
    with torch.no_grad():
        together, alone = task.predict(batch["image"]), task.predict(batch["image"][:1])
    assert together.shape == ((3, 4, *size) if NETWORKS[network] == "segmentation" else (3, 3))
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together.sum(1), torch.ones_like(together.sum(1)))


class Fixed(torch.nn.Module):
    def __init__(self, scores):
        super().__init__()
        self.scores = torch.nn.Parameter(scores)

    def forward(self, image):
        return self.scores.expand(len(image), *self.scores.shape)


def test_the_segmentation_loss_by_hand():
    """Two labels, four pixels, even scores: entropy log 2; Dice (2 * 0.5 * 1 + 1) / (4 * 0.5 + 1 + 1)."""
    task = Segmentation(ImageShape(channels=1, size=(2, 2), n_labels=2), Fixed(torch.zeros(2, 2, 2)))
    mask = torch.tensor([[1.0, 1], [1, 0]])
    batch = {"image": torch.zeros(1, 1, 2, 2), "mask": torch.stack([mask, 1 - mask])[None]}
    torch.testing.assert_close(task.loss(batch), torch.tensor([math.log(2) + 1 - 2 / 4]))


def test_the_classification_loss_by_hand_and_an_image_without_class_teaches_nothing():
    task = Classification(ImageShape(channels=1, size=(2, 2), n_classes=2), Fixed(torch.tensor([0.0, math.log(3)])))
    batch = {"image": torch.zeros(3, 1, 2, 2), "label": torch.tensor([[1.0, 0], [0, 1], [0, 0]])}
    torch.testing.assert_close(task.loss(batch), torch.tensor([math.log(4), math.log(4 / 3), 0.0]))


@pytest.mark.parametrize("size", [(9, 9), (9, 9, 9)])
def test_the_view_in_the_middle_of_its_range_changes_nothing(size):
    shape, views = shape_of(size), Views()
    batch = batch_of(shape)
    middle = {name: torch.full_like(value, 0.5) for name, value in views.noise(3, len(size), SeededSource(0)).items()}
    seen = views(batch, middle)
    for name in batch:
        torch.testing.assert_close(seen[name], batch[name], atol=1e-4, rtol=1e-4)


def test_a_turn_by_a_quarter_turns_image_and_mask_alike():
    shape, views = shape_of((8, 8), channels=1), Views(turn=90.0, scale=0.0, shift=0.0, light=0.0)
    batch = batch_of(shape)
    batch["mask"] = torch.stack([batch["image"][:, 0] <= 0, batch["image"][:, 0] > 0], 1).float()
    noise = {TURN: torch.ones(3, 1), SCALE: torch.zeros(3), SHIFT: torch.zeros(3, 2), LIGHT: torch.full((3, 2), 0.5)}
    seen = views(batch, noise)
    torch.testing.assert_close(seen["image"], torch.rot90(batch["image"], 1, (2, 3)), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(seen["mask"][:, 1:], (seen["image"] > 0).float())


def test_what_comes_in_from_outside_is_background():
    shape, views = shape_of((8, 8)), Views(shift=0.5)
    seen = views(batch_of(shape), views.noise(3, 2, SeededSource(3)))
    torch.testing.assert_close(seen["mask"].sum(1), torch.ones(3, 8, 8))
    assert seen["image"].min() >= -1
    assert seen["image"].max() <= 1


def test_unknown_names_and_sets_without_targets_are_refused():
    with pytest.raises(ConfigError, match="unet"):
        build_task("unett", shape_of((8, 8)))
    with pytest.raises(ConfigError, match="masks"):
        build_task("unet", ImageShape(channels=1, size=(8, 8), n_classes=2))
    with pytest.raises(ConfigError, match="classes"):
        build_task("vit", ImageShape(channels=1, size=(8, 8), n_labels=2, n_classes=1))


def rims(rng, n):
    """Noise, half of it with the bright edge of a square of 4 x 4 at a random place: 1 in 20 of the pixels."""
    image, label = rng.normal((n, 1, 16, 16)) * 0.3 - 0.5, torch.arange(n) % 2
    for number, (row, column) in enumerate(rng.integers(12, (n, 2)).tolist()):
        seen = image[number, 0, row : row + 4, column : column + 4]
        inside = seen[1:3, 1:3].clone()
        seen += 0.8 * label[number]
        seen[1:3, 1:3] = inside
    return {"image": image, "label": torch.eye(2)[label]}


def test_the_default_classifier_soon_sees_what_few_pixels_tell():
    torch.manual_seed(0)
    shape, rng = ImageShape(channels=1, size=(16, 16), n_classes=2), SeededSource(0)
    task = build_task(ClassificationSettings().network, shape)
    optimiser = torch.optim.Adam(task.parameters(), 2e-3)
    for _ in range(60):
        optimiser.zero_grad()
        task.loss(rims(rng, 16)).mean().backward()
        optimiser.step()
    others = rims(SeededSource(99), 200)
    with torch.no_grad():
        found = task.predict(others["image"]).argmax(1)
    assert (found == others["label"].argmax(1)).float().mean() > 0.95
