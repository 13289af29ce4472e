"""Every family beside the joint GANs, images and volumes: shapes, ranges, and losses that see one sample at a time."""

from dataclasses import replace

import pytest
import torch

from fedsynth.errors import ConfigError
from fedsynth.models.augmentation import Augmentation
from fedsynth.models.base import Family, ImageShape, Phase, SeededSource, Tensors
from fedsynth.models.generators.catalog import build, find
from fedsynth.models.pairing import one_hot

SIZES = {2: (16, 16), 3: (16, 16, 16)}
SMALLER = (8, 8, 8)  # for families without a discriminator of patches
JOINT = ImageShape(channels=2, size=(32, 32), n_classes=3, n_labels=4)
LABEL_TO_IMAGE = ImageShape(channels=2, size=(32, 32), n_classes=3, source_channels=4)
IMAGE_TO_LABEL = ImageShape(channels=0, size=(32, 32), n_labels=4, source_channels=2)
IMAGE_ALONE = ImageShape(channels=1, size=(32, 32))
DIFFER = ("pix2pix", "spade")  # the others are the same, private or not
CASES = [
    ("vae", JOINT),
    ("vae", IMAGE_ALONE),
    ("diffusion", JOINT),
    ("diffusion", IMAGE_ALONE),
    ("diffusion", LABEL_TO_IMAGE),
    ("diffusion", IMAGE_TO_LABEL),
    ("pix2pix", LABEL_TO_IMAGE),
    ("pix2pix", IMAGE_TO_LABEL),
    ("spade", LABEL_TO_IMAGE),
    ("spade", IMAGE_TO_LABEL),
    ("label-gmm", LABEL_TO_IMAGE),
]
SIZED = [
    (name, replace(shape, size=SMALLER if len(size) == 3 and name not in DIFFER else size))
    for name, shape in CASES
    for size in SIZES.values()
]


def case(name: str, shape: ImageShape, *private: bool) -> object:
    """A volume of each family with masks as source or beside the image; the other volumes are slow tests."""
    slow = shape.dimensions == 3 and not (shape.channels and (shape.n_labels or shape.source_channels))
    kind = f"{name}-{shape.dimensions}d-{shape.channels}-{shape.source_channels}{'-private' * any(private)}"
    return pytest.param(name, shape, *private, marks=[pytest.mark.slow] * slow, id=kind)


ALL = pytest.mark.parametrize(("name", "shape"), [case(*one) for one in SIZED])
PLAIN_AND_PRIVATE = pytest.mark.parametrize(
    ("name", "shape", "private"),
    [case(*one, private) for one in SIZED for private in ((False, True) if one[0] in DIFFER else (False,))],
)


def make(name: str, shape: ImageShape, private: bool = False) -> Family:
    torch.manual_seed(0)
    options = {} if name == "label-gmm" else {"base": 8}
    return build(name, shape, private=private, **options, **({"steps": 3} if name == "diffusion" else {}))


def a_batch(shape: ImageShape, n: int = 3) -> Tensors:
    generator = torch.Generator().manual_seed(1)
    batch = {"image": torch.rand((n, shape.channels, *shape.size), generator=generator) * 2 - 1}
    if shape.n_labels:
        batch["mask"] = one_hot(torch.randint(0, shape.n_labels, (n, *shape.size), generator=generator), shape.n_labels)
    if shape.n_classes:
        batch["label"] = torch.eye(shape.n_classes)[torch.arange(n) % shape.n_classes]
    if shape.source_channels:
        batch["source"] = one_hot(
            torch.randint(0, shape.source_channels, (n, *shape.size), generator=generator), shape.source_channels
        )
    return batch


def condition(batch: Tensors) -> Tensors:
    return {name: value for name, value in batch.items() if name in ("label", "source")}


def augmented_noise(family: Family, n: int, seed: int) -> Tensors:
    """The noise of a step in which the discriminator, if there is one, sees augmented images."""
    noise = family.noise(n, SeededSource(seed))
    if "discriminator" in family.nets:
        family.augment = Augmentation(image_channels=family.shape.channels)
        noise |= family.augment.noise(n, family.shape.dimensions, SeededSource(seed + 1))
    return noise


def per_sample(family: Family, phase: Phase, batch: Tensors, noise: Tensors) -> tuple[Tensors, torch.Tensor]:
    """Gradients and losses sample by sample; no layer may draw a random number."""
    own = {name: p.detach() for name, p in family.named_parameters() if name.startswith(f"nets.{phase.net}.")}

    def one(parameters: Tensors, sample: Tensors, its_noise: Tensors) -> torch.Tensor:
        sample, its_noise = ({k: v[None] for k, v in part.items()} for part in (sample, its_noise))
        loss: torch.Tensor = torch.func.functional_call(family, parameters, (phase, sample, its_noise, 1.0))
        return loss.sum()

    mapped = torch.func.vmap(torch.func.grad_and_value(one), in_dims=(None, 0, 0), randomness="error")
    return mapped(own, batch, noise)


def step_gradient(family: Family, phase: Phase, loss: torch.Tensor) -> Tensors:
    parameters = {f"nets.{phase.net}.{name}": p for name, p in family.nets[phase.net].named_parameters()}
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {name: g for name, g in zip(parameters, gradients, strict=True) if g is not None}


@PLAIN_AND_PRIVATE
def test_samples_have_shape_and_range(name: str, shape: ImageShape, private: bool) -> None:
    family, batch = make(name, shape, private), a_batch(shape)
    with torch.no_grad():
        made = family.sample(condition(batch), family.noise(3, SeededSource(0)))
    assert made["image"].shape == (3, shape.channels, *shape.size)
    assert ("mask" in made) == (shape.n_labels > 0)
    for value in made.values():
        assert torch.isfinite(value).all()
    if shape.channels:
        assert made["image"].abs().max() <= 1
    if shape.n_labels:
        assert made["mask"].shape == (3, shape.n_labels, *shape.size)
        assert made["mask"].sum(1) == pytest.approx(1, abs=1e-4)
        assert made["mask"].min() >= 0


@ALL
def test_a_sample_depends_on_its_own_noise_and_condition_alone(name: str, shape: ImageShape) -> None:
    family, batch = make(name, shape).eval(), a_batch(shape)
    noise = family.noise(3, SeededSource(0))
    with torch.no_grad():
        together = family.sample(condition(batch), noise)
        alone = family.sample({k: v[1:2] for k, v in condition(batch).items()}, {k: v[1:2] for k, v in noise.items()})
        other = family.sample(condition(batch), family.noise(3, SeededSource(1)))
    for key, value in together.items():
        torch.testing.assert_close(alone[key], value[1:2], rtol=1e-4, atol=1e-4)
    key = "image" if shape.channels else "mask"
    assert (together[key] - other[key]).abs().max() > 1e-4


@PLAIN_AND_PRIVATE
def test_losses_are_per_sample_and_equal_under_vmap(name: str, shape: ImageShape, private: bool) -> None:
    family, batch = make(name, shape, private), a_batch(shape)
    noise = augmented_noise(family, 3, 5)
    for phase in family.phases:
        if not phase.reads_patients:
            continue
        loss = family.real_loss(phase, batch, noise, 1.0)
        assert loss.shape == (3,)
        assert torch.isfinite(loss).all()
        gradients, losses = per_sample(family, phase, batch, noise)
        torch.testing.assert_close(losses, loss.detach(), rtol=1e-4, atol=1e-4)
        expected = step_gradient(family, phase, loss.sum())
        scale = max(float(g.abs().max()) for g in expected.values())
        assert scale > 0
        for key, value in expected.items():
            torch.testing.assert_close(gradients[key].sum(0) / scale, value / scale, rtol=0, atol=1e-4)


@PLAIN_AND_PRIVATE
def test_no_sample_sees_another(name: str, shape: ImageShape, private: bool) -> None:
    family, batch = make(name, shape, private), a_batch(shape)
    noise = augmented_noise(family, 3, 5)
    changed = {key: torch.cat([value[:2], value[:1].flip(-1)]) for key, value in batch.items()}
    for phase in family.phases:
        before = family.real_loss(phase, batch, noise, 1.0)[0] if phase.reads_patients else None
        if before is None:
            continue
        after = family.real_loss(phase, changed, noise, 1.0)[0]
        first, second = (step_gradient(family, phase, loss) for loss in (before, after))
        assert before.item() == pytest.approx(after.item(), rel=1e-5)
        scale = max(float(g.abs().max()) for g in first.values())
        for key, value in first.items():
            torch.testing.assert_close(value / scale, second[key] / scale, rtol=0, atol=1e-5)


@PLAIN_AND_PRIVATE
def test_the_fake_loss_needs_no_patient_and_turns_train_all(name: str, shape: ImageShape, private: bool) -> None:
    family, batch = make(name, shape, private), a_batch(shape)
    trained = set()
    for phase in family.phases:
        noise = augmented_noise(family, 3, 7)
        loss = family.fake_loss(phase, condition(batch), noise, 1.0)
        assert loss.shape == (3,)
        if phase.reads_patients:
            loss = loss + family.real_loss(phase, batch, noise, 1.0)
        trained |= set(step_gradient(family, phase, loss.mean()))
    assert trained == {name for name, _ in family.named_parameters()}


@ALL
def test_two_steps_of_training_stay_finite(name: str, shape: ImageShape) -> None:
    family, batch = make(name, shape), a_batch(shape)
    for step in range(2):
        for phase in family.phases:
            noise = family.noise(3, SeededSource(step))
            loss = family.real_loss(phase, batch, noise, step / 2).mean()
            with torch.no_grad():
                for key, gradient in step_gradient(family, phase, loss).items():
                    family.get_parameter(key).sub_(1e-3 * gradient)
    assert all(torch.isfinite(p).all() for p in family.parameters())


def test_an_image_without_a_class_is_welcome() -> None:
    for name in ("vae", "diffusion"):
        family, batch = make(name, JOINT), a_batch(JOINT)
        batch["label"][0] = 0
        loss = family.real_loss(family.phases[0], batch, family.noise(3, SeededSource(0)), 1.0)
        assert torch.isfinite(loss).all()


@pytest.mark.parametrize("name", ["pix2pix", "spade", "label-gmm"])
def test_paired_families_need_pairs(name: str) -> None:
    with pytest.raises(ConfigError, match="needs pairs; give --pairing"):
        build(name, JOINT)


def test_a_joint_family_takes_no_pairs() -> None:
    with pytest.raises(ConfigError, match="takes no pairs"):
        build("vae", LABEL_TO_IMAGE)


@pytest.mark.parametrize("name", ["vae", "diffusion", "pix2pix", "spade", "label-gmm"])
def test_a_size_that_cannot_be_made_is_refused(name: str) -> None:
    assert find(name).check_size((64, 64)) == ""
    assert find(name).check_size((32, 32, 32)) == ""
    with pytest.raises(ConfigError, match=f"{name} cannot make images of this size"):
        build(name, replace(JOINT, size=(7, 7), source_channels=0 if name == "vae" else 4))
