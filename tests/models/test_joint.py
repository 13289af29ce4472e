"""Every joint GAN family, in two and three dimensions, keeps the protocol."""

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from fedsynth.models.base import ImageShape, SeededSource
from fedsynth.models.generators.catalog import catalog, find
from fedsynth.models.joint_gan import JointGan
from tests.models.joint import NAMES, batch_for, condition_for, noise_for, tiny, train

FAMILIES = pytest.mark.parametrize("name", NAMES)
DIMENSIONS = pytest.mark.parametrize("dimensions", [2, 3])


def test_every_joint_gan_of_the_catalog_is_tested() -> None:
    joint = {name for name, entry in catalog().items() if entry.kind == "joint"}
    assert joint - {"vae"} == set(NAMES)


KINDS = [
    # three in two dimensions, two in three; the others are slow tests
    *[(2, False, 0, 0), (2, False, 3, 2), (2, True, 3, 2), (3, False, 0, 0), (3, True, 3, 2)],
    *(pytest.param(*kind, marks=pytest.mark.slow) for kind in [(2, True, 0, 0), (3, False, 3, 2), (3, True, 0, 0)]),
]


@FAMILIES
@pytest.mark.parametrize(("dimensions", "private", "n_classes", "n_labels"), KINDS)
def test_two_steps_leave_finite_weights_and_right_images(
    name: str, dimensions: int, private: bool, n_classes: int, n_labels: int
) -> None:
    size = 16 if dimensions == 2 and not n_classes else 0
    family = tiny(name, dimensions, private=private, n_classes=n_classes, n_labels=n_labels, size=size)
    train(family, 2)
    assert all(torch.isfinite(value).all() for value in family.state_dict().values())
    with torch.no_grad():
        made = family.sample(condition_for(family, 3), noise_for(family, 3))
    assert made["image"].shape == (3, 1, *family.shape.size)
    assert made["image"].abs().max() <= 1
    assert ("mask" in made) == bool(n_labels)
    if n_labels:
        assert made["mask"].shape == (3, n_labels, *family.shape.size)
        assert torch.allclose(made["mask"].sum(1), torch.ones(3, *family.shape.size), atol=1e-5)


@FAMILIES
@DIMENSIONS
def test_private_losses_are_the_same_alone_and_in_a_batch_at_every_stage(name: str, dimensions: int) -> None:
    family = tiny(name, dimensions, private=True)
    assert not family.mixes_samples
    phase, batch, noise = family.phases[0], batch_for(family, 2), noise_for(family, 2)
    net = family.nets[phase.net]
    parameters = {f"nets.{phase.net}.{key}": value.detach() for key, value in net.named_parameters()}

    for progress in family.stages():

        def loss(
            values: dict[str, Tensor], one: dict[str, Tensor], its: dict[str, Tensor], p: float = progress
        ) -> Tensor:
            alone = ({k: v[None] for k, v in one.items()}, {k: v[None] for k, v in its.items()})
            return functional_call(family, values, (phase, *alone, p)).sum()

        each = vmap(grad(loss), in_dims=(None, 0, 0), randomness="error")(parameters, batch, noise)
        alone = vmap(loss, in_dims=(None, 0, 0), randomness="error")(parameters, batch, noise)
        together = family.real_loss(phase, batch, noise, progress)
        torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)
        summed = torch.autograd.grad(together.sum(), list(net.parameters()), allow_unused=True)
        for name_, value in zip(parameters, summed, strict=True):
            expected = torch.zeros(()) if value is None else value
            largest = expected.abs().max().clamp_min(1e-3)
            assert ((each[name_].sum(0) - expected).abs() / largest).max() < 1e-3, name_


@FAMILIES
@pytest.mark.parametrize("private", [False, True])
def test_families_admit_when_samples_mix_and_private_ones_never_do(name: str, private: bool) -> None:
    family = tiny(name, private=private)
    phase, batch, noise = family.phases[0], batch_for(family), noise_for(family)
    other = {key: value.clone() for key, value in batch.items()}
    other["image"][1] = -other["image"][1] * 0.1
    mixes = False
    for progress in family.stages():
        first, second = (family.real_loss(phase, b, noise, progress)[0].item() for b in (batch, other))
        assert private is False or first == pytest.approx(second, abs=1e-6)
        mixes |= abs(first - second) > 1e-6
    assert mixes == family.mixes_samples
    assert family.mixes_samples == (not private and name in ("progan", "stylegan", "stylegan2", "stylegan3"))


@FAMILIES
def test_private_turns_read_patients_only_where_they_say_so(name: str) -> None:
    family = tiny(name, private=True)
    assert [phase.reads_patients for phase in family.phases] == [
        phase.net == "discriminator" for phase in family.phases
    ]


@FAMILIES
def test_the_discriminators_losses_send_nothing_to_the_generator(name: str) -> None:
    family = tiny(name)
    phase, noise = family.phases[0], noise_for(family)
    loss = family.fake_loss(phase, condition_for(family), noise, 1.0) + family.real_loss(
        phase, batch_for(family), noise, 1.0
    )
    assert all(
        value is None
        for value in torch.autograd.grad(loss.sum(), list(family.generator.parameters()), allow_unused=True)
    )


@FAMILIES
def test_images_follow_the_class_and_the_noise(name: str) -> None:
    family = tiny(name)
    train(family, 2, rate=0.02)
    noise = noise_for(family, 1)
    first, second = ({"label": torch.eye(3)[i : i + 1]} for i in (0, 1))
    with torch.no_grad():
        made, same, other_class, other_noise = (
            family.sample(condition, given)["image"]
            for condition, given in (
                (first, noise),
                (first, noise),
                (second, noise),
                (first, noise_for(family, 1, seed=9)),
            )
        )
    assert torch.equal(made, same)
    assert not torch.equal(made, other_class)
    assert not torch.equal(made, other_noise)


@FAMILIES
def test_a_sample_does_not_depend_on_its_company(name: str) -> None:
    family = tiny(name)
    condition, noise = condition_for(family, 3), noise_for(family, 3)
    with torch.no_grad():
        together = family.sample(condition, noise)["image"]
        alone = family.sample({"label": condition["label"][1:2]}, {key: value[1:2] for key, value in noise.items()})
    torch.testing.assert_close(together[1:2], alone["image"], rtol=1e-4, atol=1e-5)


@FAMILIES
def test_a_missing_class_is_a_label_of_zeros(name: str) -> None:
    family = tiny(name, private=True)
    batch = {**batch_for(family), "label": torch.zeros(2, 3)}
    assert torch.isfinite(family.real_loss(family.phases[0], batch, noise_for(family), 1.0)).all()


@FAMILIES
def test_private_discriminators_are_small(name: str) -> None:
    entry = find(name)
    for size in ((64, 64), (32, 32, 32)):
        shape = ImageShape(channels=2, size=size, n_classes=3, n_labels=4)
        family = entry.build(shape, private=True)
        assert isinstance(family, JointGan)
        assert sum(p.numel() for p in family.nets["discriminator"].parameters()) <= 200_000


@FAMILIES
def test_draws_decide_everything(name: str) -> None:
    family = tiny(name)
    first, second = (family.noise(2, SeededSource(3)) for _ in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) and len(first[key]) == 2 for key in first)
    phase = family.phases[1]
    losses = [
        (family.real_loss if phase.reads_patients else family.fake_loss)(phase, batch_for(family), first, 1.0)
        for _ in range(2)
    ]
    assert torch.equal(*losses)


@pytest.mark.parametrize("name", ["dcgan", "progan", "stylegan2", "r3gan"])
def test_sizes_need_not_be_squares_or_powers_of_two(name: str) -> None:
    shape = ImageShape(channels=1, size=(24, 40), n_classes=0, n_labels=0)
    family = find(name).build(shape, latent=8, base=4)
    with torch.no_grad():
        assert family.sample({}, noise_for(family))["image"].shape == (2, 1, 24, 40)
    assert torch.isfinite(family.real_loss(family.phases[0], batch_for(family), noise_for(family), 1.0)).all()


def test_impossible_sizes_are_refused_in_words() -> None:
    assert "halving" in find("dcgan").check_size((50, 50))
    assert "power of two" in find("stylegan3").check_size((48, 48))
    assert find("stylegan3").check_size((32, 32)) == ""
