"""Both halves of a private step by hand: a family of two lines, whose gradients can be written down."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fedsynth.errors import RefusedError
from fedsynth.models.augmentation import Augmentation
from fedsynth.models.base import ImageShape, Phase, SeededSource, Tensors
from fedsynth.privacy.accounting import Mechanism, compose
from fedsynth.privacy.mechanism import GaussianMechanism
from fedsynth.privacy.plan import PrivatePlan, PrivateSettings
from fedsynth.privacy.secure_rng import InsecureRandomness
from fedsynth.training.dp_gradients import PrivateGradients, PrivateParts, made_up_batch, private_parameters
from fedsynth.training.patient_batches import PatientBatches
from tests.training.tiny import TinyGan, tiny_set


class Grown(nn.Module):
    """Two layers of one shape, of which a stage of growth uses one."""

    def __init__(self, small: nn.Module) -> None:
        super().__init__()
        self.small, self.large, self.grown = small, copy.deepcopy(small), False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor((self.large if self.grown else self.small)(x))


class GrowingGan(TinyGan):
    """Both networks have two stages."""

    def __init__(self, shape: ImageShape) -> None:
        super().__init__(shape)
        self.nets = nn.ModuleDict({name: Grown(net) for name, net in self.nets.items()})

    def stages(self) -> tuple[float, ...]:
        return 0.0, 1.0

    def real_loss(self, phase: Phase, batch: Tensors, noise: Tensors, progress: float) -> torch.Tensor:
        self._grow(progress)
        return super().real_loss(phase, batch, noise, progress)

    def fake_loss(self, phase: Phase, condition: Tensors, noise: Tensors, progress: float) -> torch.Tensor:
        self._grow(progress)
        return super().fake_loss(phase, condition, noise, progress)

    def _grow(self, progress: float) -> None:
        for net in self.nets.values():
            net.grown = progress >= 0.5  # type: ignore[assignment]


class EarlyMixer(GrowingGan):
    """Its first stage subtracts the mean over the batch, as no private loss may."""

    def real_loss(self, phase: Phase, batch: Tensors, noise: Tensors, progress: float) -> torch.Tensor:
        losses = super().real_loss(phase, batch, noise, progress)
        return losses - losses.mean() if progress < 0.5 else losses


def guarded(family: TinyGan, dataset: PatientBatches, **declared: int) -> PrivateGradients:
    """A family's gradients under noise of a millionth of the clip norm, where everybody is drawn."""
    settings = PrivateSettings(epsilon=4.0, delta=1e-4, patients=6, batch=6, **declared)
    claim = compose([Mechanism(rate=1.0, noise=2.0, steps=1)], 1e-4)
    plan = PrivatePlan(settings=settings, steps=9, noise=1e-6, claim=claim)
    parts = PrivateParts(family, settings, augmentation=None)
    mechanism = GaussianMechanism(
        plan, parts.real, patients=dataset.patients, randomness=InsecureRandomness(1), run="r"
    )
    mechanism.charge({"discriminator": 9}, round=0)
    return PrivateGradients(parts, dataset, mechanism, class_shares=(0.5, 0.5), fakes=4)


def test_a_stage_of_growth_that_waits_is_left_alone_by_real_fake_and_free_losses() -> None:
    dataset = PatientBatches(tiny_set())
    family = GrowingGan(dataset.shape)
    gradients = guarded(family, dataset)
    for progress, waits in ((0.0, "large"), (1.0, "small")):
        for phase in family.phases:
            _, found = gradients(phase, 0, progress, SeededSource(0))
            names = [name for name, _ in family.nets[phase.net].named_parameters()]
            assert [one is None for one in found] == [name.startswith(waits) for name in names]


def test_a_family_that_mixes_samples_at_an_early_stage_is_refused() -> None:
    settings = PrivateSettings(epsilon=4.0, delta=1e-4, patients=6, batch=6)
    with pytest.raises(RefusedError, match="mixes samples"):
        PrivateParts(EarlyMixer(PatientBatches(tiny_set()).shape), settings, augmentation=None)


def test_an_augmentation_draws_beside_the_family_and_a_set_without_classes_has_no_label() -> None:
    dataset = PatientBatches(tiny_set())
    family, settings = TinyGan(dataset.shape), PrivateSettings(epsilon=4.0, delta=1e-4, patients=6, batch=6)
    parts = PrivateParts(family, settings, augmentation=Augmentation(image_channels=1))
    drawn = parts.noise(5, InsecureRandomness(1))
    own = {"z", *Augmentation(image_channels=1).noise(5, 2, InsecureRandomness(1))}
    assert {key: len(value) for key, value in drawn.items()} == dict.fromkeys(own, 5)
    gradients = guarded(TinyGan(dataset.shape), dataset)
    gradients.family.shape = replace(dataset.shape, n_classes=0)
    assert gradients._condition() == {}


def test_both_halves_of_a_private_gradient_by_hand() -> None:
    """Wasserstein losses of one line: reals pull by minus the mean of their two slices, fakes by plus theirs; each is
    clipped to one, and both are divided by what is declared."""
    dataset = PatientBatches(tiny_set())
    family = TinyGan(dataset.shape)
    gradients = guarded(family, dataset, slices_per_patient=2)
    shown: list[tuple[Tensors, Tensors]] = []
    fetch = gradients._fetch
    gradients._fetch = lambda patients: shown.append(fetch(patients)) or shown[-1]  # type: ignore[method-assign, func-returns-value]
    fakes: list[torch.Tensor] = []
    made = family.fakes
    family.fakes = lambda condition, noise: fakes.append(made(condition, noise)) or fakes[-1]  # type: ignore[method-assign, func-returns-value]
    _, (weight, bias) = gradients(family.phases[0], 0, 1.0, SeededSource(0))
    ((batch, _),) = shown
    real = -torch.cat([batch["image"], 2 * batch["mask"] - 1], 2).flatten(2).mean(1)
    fake = next(one for one in fakes[::-1] if len(one) == 4).detach().flatten(1)
    by_hand = [torch.cat([rows, torch.full((len(rows), 1), sign)], 1) for rows, sign in ((real, -1.0), (fake, 1.0))]
    mean = sum((rows / rows.norm(dim=1, keepdim=True).clamp_min(1)).mean(0) for rows in by_hand)
    assert weight is not None
    assert bias is not None
    torch.testing.assert_close(torch.cat([weight[0], bias]), mean, rtol=2e-3, atol=2e-4)


def test_every_patient_shows_slices_of_their_own_with_their_own_masks_and_classes() -> None:
    dataset = PatientBatches(tiny_set())
    gradients = guarded(TinyGan(dataset.shape), dataset, slices_per_patient=2)
    batch, noise = gradients._fetch(torch.tensor([4, 1]))
    whole = dataset.fetch(np.arange(18))
    assert {key: value.shape[:2] for key, value in {**batch, **noise}.items()} == dict.fromkeys([*batch, "z"], (2, 2))
    for place, patient in enumerate((4, 1)):
        rows = [int((whole["image"] == one).flatten(1).all(1).nonzero()) for one in batch["image"][place]]
        assert len(set(rows)) == 2
        assert set(rows) < {3 * patient, 3 * patient + 1, 3 * patient + 2}
        assert all(torch.equal(batch[key][place], whole[key][rows]) for key in batch)


def test_the_noise_falls_on_the_largest_private_network() -> None:
    """By hand: 3 x 8 x 8 inputs and a bias; as many outputs of six inputs and a bias."""
    family = TinyGan(PatientBatches(tiny_set()).shape)
    assert private_parameters(family) == 193
    family.phases = tuple(replace(phase, reads_patients=True) for phase in family.phases)
    assert private_parameters(family) == 192 * 7
    family.phases = tuple(replace(phase, reads_patients=False) for phase in family.phases)
    assert private_parameters(family) == 0


def test_made_up_samples_look_like_a_batch() -> None:
    shape = replace(PatientBatches(tiny_set()).shape, source_channels=3)
    batch = made_up_batch(shape, 9)
    assert {key: tuple(value.shape) for key, value in batch.items()} == {
        "image": (9, 1, 8, 8),
        "mask": (9, 2, 8, 8),
        "label": (9, 2),
        "source": (9, 3, 8, 8),
    }
    assert -1 <= batch["image"].min() < -0.9
    assert 0.9 < batch["image"].max() <= 1
    for key in ("mask", "label", "source"):
        torch.testing.assert_close(batch[key].sum(1), torch.ones_like(batch[key].sum(1)))
    assert set(made_up_batch(replace(shape, n_labels=0, n_classes=0, source_channels=0), 9)) == {"image"}
