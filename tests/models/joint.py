"""Tiny members of every joint GAN family, and batches and noise for them."""

from typing import Any

import torch
from torch import Tensor

from fedsynth.models.base import ImageShape, Phase, SeededSource, Tensors
from fedsynth.models.generators.catalog import build
from fedsynth.models.joint_gan import JointGan

TINY: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": (8, 16), "discriminator_hidden": (16, 8)},
    "dcgan": {"base": 8},
    "lsgan": {"base": 8},
    "wgan": {"base": 8},
    "wgan-gp": {"base": 8},
    "progan": {"base": 4},
    "stylegan": {"base": 4, "depth": 2},
    "stylegan2": {"base": 4, "depth": 2},
    "stylegan3": {"base": 4, "layers": 3, "margin": 2},
    "r3gan": {"base": 4},
}
NAMES = list(TINY)

SIZES = {2: (32, 32), 3: (16, 16, 16)}


def tiny(
    name: str,
    dimensions: int = 2,
    *,
    private: bool = False,
    n_classes: int = 3,
    n_labels: int = 2,
    size: int = 0,
    **options: Any,
) -> JointGan:
    """A family of that name for one channel, its weights from a fixed seed."""
    sides = (size,) * dimensions if size else SIZES[dimensions]
    shape = ImageShape(channels=1, size=sides, n_classes=n_classes, n_labels=n_labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        family = build(name, shape, private=private, latent=8, **{**TINY[name], **options})
    assert isinstance(family, JointGan)
    return family


def batch_for(family: JointGan, n: int = 2, seed: int = 1) -> Tensors:
    """Random images, masks and classes."""
    rng, shape = SeededSource(seed), family.shape
    batch = {"image": rng.uniform((n, shape.channels, *shape.size)) * 2 - 1}
    if shape.n_labels:
        batch["mask"] = torch.eye(shape.n_labels)[rng.integers(shape.n_labels, (n, *shape.size))].movedim(-1, 1)
    return {**batch, **condition_for(family, n)}


def condition_for(family: JointGan, n: int = 2) -> Tensors:
    """Classes in turn."""
    k = family.shape.n_classes
    return {"label": torch.eye(k)[torch.arange(n) % k]} if k else {}


def noise_for(family: JointGan, n: int = 2, seed: int = 2) -> Tensors:
    """Noise from a seed."""
    return family.noise(n, SeededSource(seed))


def loss_of(family: JointGan, phase: Phase, n: int, step: int, progress: float) -> Tensor:
    """The whole plain loss of a turn, as the trainer adds it up."""
    noise = noise_for(family, n, seed=10 + step)
    loss = family.fake_loss(phase, condition_for(family, n), noise, progress)
    assert loss.shape == (n,)
    if phase.reads_patients:
        real = family.real_loss(phase, batch_for(family, n), noise, progress)
        assert real.shape == (n,)
        loss = loss + real
    return loss.mean()


def train(family: JointGan, steps: int, *, rate: float = 1e-3, n: int = 2, progress: float | None = None) -> None:
    """A few steps of plain Adam through the protocol."""
    optimisers = {phase.net: torch.optim.Adam(family.nets[phase.net].parameters(), rate) for phase in family.phases}
    for step in range(steps):
        for phase in family.phases:
            loss = loss_of(family, phase, n, step, step / steps if progress is None else progress)
            assert torch.isfinite(loss)
            parameters = list(family.nets[phase.net].parameters())
            for parameter, value in zip(
                parameters, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True
            ):
                parameter.grad = value
            optimisers[phase.net].step()
            family.after_update(phase.net)
