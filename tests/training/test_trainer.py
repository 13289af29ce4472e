"""The loop: right gradients, bit-identical repeats, resume, and a stop with a reason."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fedsynth.errors import FedSynthError
from fedsynth.models.augmentation import Augmentation
from fedsynth.models.base import Family, SeededSource
from fedsynth.models.generators.catalog import Recipe
from fedsynth.training.checkpoint import load_state, save_state
from fedsynth.training.divergence_check import DivergedError
from fedsynth.training.patient_batches import PatientBatches
from fedsynth.training.random_streams import batch_rows, stream_seed
from fedsynth.training.trainer import PlainGradients, Trainer, draw_labels
from tests.training.tiny import TinyGan, tiny_set

RECIPE = Recipe(batch=4, rate=1e-3, ema=4.0)


def make_trainer(
    seed: int = 0, *, augment: bool = True, total: int = 8, dataset: PatientBatches | None = None
) -> Trainer:
    dataset = dataset or PatientBatches(tiny_set())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        family = TinyGan(dataset.shape)
    augmentation = Augmentation(image_channels=1) if augment else None
    gradients = PlainGradients(family, dataset, seed=seed, batch=RECIPE.batch, augmentation=augmentation)
    return Trainer(family, RECIPE, seed=seed, total_steps=total, gradients=gradients, device=torch.device("cpu"))


def weights(family: Family) -> torch.Tensor:
    return torch.cat([value.flatten() for value in family.nets.state_dict().values()])


def test_the_discriminators_gradient_is_mean_fake_minus_mean_real() -> None:
    trainer = make_trainer(augment=False)
    dataset, family = PatientBatches(tiny_set()), trainer.family
    rng = SeededSource(1)
    loss, gradient = trainer.gradients(family.phases[0], 0, 0.0, rng)
    again = SeededSource(1)
    noise = family.noise(4, again)
    label = draw_labels(dataset.class_shares, 4, again)
    real = dataset.fetch(batch_rows(0, 0, 4, 18))
    shown = torch.cat([real["image"], real["mask"] * 2 - 1], 1).flatten(1)
    fakes = family.fakes({"label": label}, noise).flatten(1).detach()
    torch.testing.assert_close(gradient[0][0], fakes.mean(0) - shown.mean(0))
    torch.testing.assert_close(gradient[1], torch.zeros(1))
    assert torch.isfinite(loss)


def test_one_seed_gives_the_same_weights_to_the_bit_and_another_does_not() -> None:
    first, same, other = make_trainer(3), make_trainer(3), make_trainer(4)
    for trainer in (first, same, other):
        list(trainer.run(8))
    assert torch.equal(weights(first.family), weights(same.family))
    assert not torch.equal(weights(first.family), weights(other.family))


def test_a_turn_moves_its_own_network_only_and_in_its_own_steps() -> None:
    trainer = make_trainer()
    before = {name: net.weight.clone() for name, net in trainer.family.nets.items()}
    report = next(trainer.run(1))
    assert set(report.losses) == {"discriminator", "generator"}
    middle = trainer.family.nets["generator"].weight.clone()
    assert not torch.equal(before["generator"], middle)
    assert set(next(trainer.run(1)).losses) == {"discriminator"}
    assert torch.equal(trainer.family.nets["generator"].weight, middle)


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    whole = make_trainer()
    list(whole.run(8))
    half = make_trainer()
    list(half.run(4))
    save_state(tmp_path / "state.safetensors", half, "tiny")
    resumed = make_trainer()
    load_state(tmp_path / "state.safetensors", resumed, "tiny")
    list(resumed.run(4))
    assert torch.equal(weights(resumed.family), weights(whole.family))
    for name, value in whole.ema.values.items():
        assert torch.equal(resumed.ema.values[name], value)


def test_a_state_of_another_family_or_length_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    trainer = make_trainer()
    file = tmp_path / "state.safetensors"
    save_state(file, trainer, "tiny")
    before = weights(trainer.family)
    with pytest.raises(FedSynthError, match="holds networks of tiny, not of dcgan"):
        load_state(file, trainer, "dcgan")
    with pytest.raises(FedSynthError, match="a run of 8 steps, not 9"):
        load_state(file, make_trainer(total=9), "tiny")
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(FedSynthError, match="is damaged"):
        load_state(file, trainer, "tiny")
    other = make_trainer(dataset=PatientBatches(tiny_set(size=4)))
    save_state(file, other, "tiny")
    with pytest.raises(FedSynthError, match=r"the network differs at discriminator\.weight"):
        load_state(file, trainer, "tiny")
    assert torch.equal(weights(trainer.family), before)


def test_a_diverged_run_stops_with_a_reason_and_before_the_update() -> None:
    trainer = make_trainer()
    list(trainer.run(2))
    with torch.no_grad():
        trainer.family.nets["discriminator"].bias.fill_(float("nan"))
    generator = trainer.family.nets["generator"].weight.clone()
    with pytest.raises(DivergedError, match="diverged at step 2: the loss of the discriminator is nan"):
        list(trainer.run(1))
    assert torch.equal(trainer.family.nets["generator"].weight, generator)


def test_the_average_has_the_stated_half_life() -> None:
    trainer = make_trainer(total=4000)
    trainer.step = 1000
    net = trainer.family.nets["generator"]
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(1.0)
        for value in trainer.ema.values.values():
            value.zero_()
    for step in range(1000, 1004):
        trainer.ema.update(trainer.family, step)
    torch.testing.assert_close(trainer.ema.values["generator.weight"], torch.full_like(net.weight, 0.5))


def test_the_rate_falls_to_zero_over_the_last_quarter_and_follows_from_the_step() -> None:
    trainer = make_trainer(total=100)
    rates = {}
    for step in (0, 74, 75, 90, 99):
        trainer.step = step
        list(trainer.run(1))
        rates[step] = trainer.optimisers["discriminator"].param_groups[0]["lr"]
    assert [round(rates[step] / 1e-3, 6) for step in rates] == [1, 1, 1, 0.4, 0.04]


def test_every_epoch_shows_every_image_once() -> None:
    rows = np.concatenate([batch_rows(5, step, 4, 10) for step in range(5)])
    assert sorted(rows[:10]) == list(range(10)) == sorted(rows[10:])
    assert not np.array_equal(rows[:10], rows[10:])


def test_streams_of_different_purposes_differ() -> None:
    seeds = {stream_seed(0, *names) for names in [("step", 0, 0), ("step", 0, 1), ("step", 1, 0), ("epoch", 0), ("x",)]}
    assert len(seeds) == 5
    assert stream_seed(0, "epoch", 1) != stream_seed(1, "epoch", 1)
    assert stream_seed(0, "site", "hospital-1") != stream_seed(0, "site", "hospital-2")


def test_labels_follow_the_shares() -> None:
    label = draw_labels(np.array([0.0, 0.75, 0.25]), 4000, SeededSource(0))
    assert label.sum(1).eq(1).all()
    assert label[:, 0].sum() == 0
    assert abs(float(label[:, 1].mean()) - 0.75) < 0.03


def test_an_image_without_a_class_has_no_label() -> None:
    batch = PatientBatches(tiny_set()).fetch(np.array([0, 3, 6]))
    assert batch["label"].tolist() == [[1, 0], [0, 1], [0, 0]]
    assert batch["image"].min() >= -1
    assert batch["image"].max() <= 1
    assert batch["mask"].sum(1).eq(1).all()


def test_training_without_images_is_an_error() -> None:
    with pytest.raises(FedSynthError, match="no images to train on"):
        PatientBatches(tiny_set().rows(np.array([], int)))
