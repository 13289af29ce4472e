"""Variational autoencoder (Kingma and Welling 2014) of image and mask together, conditional on the class.

The prior is a learnt mixture of Gaussians: a fixed one leaves holes between the codes of real images, and what is drawn
from a hole is no brain. Everything learns from patients, so everything is private when the run is. The prior takes its
own phases: clipped together with a decoder that has a hundred times as many numbers, what it learns would be lost.
"""

import math
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedsynth.models.base import Family, ImageShape, Phase, RandomSource, Tensors, joined
from fedsynth.models.generators.catalog import PRIVATE, PRIVATE_STARTED, Entry, Recipe, register
from fedsynth.models.image_to_image import ResidualBlock
from fedsynth.models.layers import CONVOLUTION, double, halve, halving_problem, halvings, spread, widths, with_label

NET, PRIOR = "autoencoder", "prior"
CODER = Phase(net=NET, reads_patients=True)


class Prior(nn.Module):
    """A mixture of Gaussians over the latent; each class has its own shares of the components."""

    def __init__(self, shape: ImageShape, latent: int, components: int) -> None:
        super().__init__()
        self.means = nn.Parameter(torch.randn(components, latent) / 10)
        self.log_variances = nn.Parameter(torch.zeros(components, latent))
        self.logits = nn.Parameter(torch.zeros(max(1, shape.n_classes), components))

    def log_shares(self, like: Tensor, condition: Tensors) -> Tensor:
        """The logarithm of each component's share (n, components); an image without a class has the classes' mean."""
        if "label" not in condition:
            return functional.log_softmax(self.logits.mean(0), 0).expand(len(like), -1)
        label = condition["label"].to(like.dtype)
        logits = label @ self.logits + (1 - label.sum(1, keepdim=True)) * self.logits.mean(0)
        return functional.log_softmax(logits, 1)

    def log_density(self, latent: Tensor, condition: Tensors) -> Tensor:
        """The log-density of latents (n, latent), without the constant that the posterior's has as well."""
        apart = (latent[:, None] - self.means).square() * torch.exp(-self.log_variances) + self.log_variances
        return torch.logsumexp(self.log_shares(latent, condition) - apart.sum(2) / 2, 1)

    def draw(self, normal: Tensor, chance: Tensor, condition: Tensors) -> Tensor:
        """Latents from standard normal values (n, latent) and a uniform one each (n,)."""
        reached = self.log_shares(normal, condition).exp().cumsum(1) < chance[:, None]
        component = reached.sum(1).clamp(max=len(self.means) - 1)
        return self.means[component] + torch.exp(self.log_variances[component] / 2) * normal


class Autoencoder(nn.Module):
    """From image, mask and class to the mean and log-variance of the latent, and back."""

    def __init__(self, shape: ImageShape, latent: int, base: int) -> None:
        super().__init__()
        conv, grids = CONVOLUTION[shape.dimensions], halvings(shape.size)
        channels = widths(len(grids), base, 8 * base)
        self.shape, self.start = shape, (channels[0], *grids[0])
        pairs = list(pairwise(channels))
        flat = math.prod(self.start)
        self.read = conv(shape.joint_channels + shape.n_classes, channels[-1], 3, padding=1)
        self.down = nn.ModuleList(ResidualBlock(shape.dimensions, fine, coarse) for coarse, fine in reversed(pairs))
        self.to_latent = nn.Linear(flat, 2 * latent)
        self.from_latent = nn.Linear(latent + shape.n_classes, flat)
        self.up = nn.ModuleList(ResidualBlock(shape.dimensions, coarse, fine) for coarse, fine in pairs)
        self.last = nn.GroupNorm(4, channels[-1])
        self.write = conv(channels[-1], shape.joint_channels, 3, padding=1)

    def encode(self, batch: Tensors) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latent, each (n, latent)."""
        seen = joined(batch)
        if "label" in batch:
            label = spread(batch["label"], seen).expand(-1, -1, *self.shape.size)
            seen = torch.cat([seen, label], 1)
        inner = self.read(seen)
        for block in self.down:
            inner = halve(block(inner))
        mean, log_variance = self.to_latent(inner.flatten(1)).chunk(2, 1)
        return mean, log_variance.clamp(-10, 10)

    def decode(self, latent: Tensor, condition: Tensors) -> tuple[Tensor, Tensor]:
        """The image in [-1, 1] and the logits of the labels (no channels where the set has no masks)."""
        inner = self.from_latent(with_label(latent, condition.get("label"))).reshape(-1, *self.start)
        for block in self.up:
            inner = block(double(inner))
        made = self.write(functional.silu(self.last(inner)))
        return torch.tanh(made[:, : self.shape.channels]), made[:, self.shape.channels :]


class Vae(Family):
    """The evidence lower bound in nats per voxel: squared error over `sigma`, cross-entropy of labels, divergence.

    The cross-entropy counts `emphasis` times: tumours are few voxels, and a code that forgets them costs little else.
    """

    phases: tuple[Phase, ...] = (CODER, Phase(net=PRIOR, reads_patients=True, scores_images=False))
    shared = (NET, PRIOR)
    sampler = (NET, PRIOR)

    def __init__(
        self, shape: ImageShape, *, latent: int, base: int, components: int, sigma: float, emphasis: float
    ) -> None:
        super().__init__(shape, {NET: Autoencoder(shape, latent, base), PRIOR: Prior(shape, latent, components)})
        self.latent, self.sigma, self.emphasis = latent, sigma, emphasis

    @property
    def autoencoder(self) -> Autoencoder:
        """Encoder and decoder."""
        net = self.nets[NET]
        assert isinstance(net, Autoencoder)
        return net

    @property
    def prior(self) -> Prior:
        """What codes are drawn from."""
        net = self.nets[PRIOR]
        assert isinstance(net, Prior)
        return net

    def noise(self, n: int, rng: RandomSource) -> Tensors:
        """What turns the posterior (in training) or a component of the prior (in sampling) into a latent."""
        return {"latent": rng.normal((n, self.latent)), "component": rng.uniform((n,))}

    def real_loss(self, phase: Phase, batch: Tensors, noise: Tensors, progress: float) -> Tensor:
        """The negative bound; of the prior, the part that it has a say in.

        The divergence fades in over the first tenth, so that the latent is used at all.
        """
        mean, log_variance = self.autoencoder.encode(batch)
        latent = mean + torch.exp(log_variance / 2) * noise["latent"]
        if phase.net == PRIOR:
            return -self.prior.log_density(latent.detach(), batch)
        image, logits = self.autoencoder.decode(latent, batch)
        misfit = (image - batch["image"]).square().flatten(1).sum(1) / (2 * self.sigma**2)
        if self.shape.n_labels:
            likelihood = (batch["mask"] * functional.log_softmax(logits, 1)).flatten(1).sum(1)
            misfit = misfit - self.emphasis * likelihood
        posterior = -(noise["latent"].square() + log_variance).sum(1) / 2
        divergence = posterior - self.prior.log_density(latent, batch)
        return (misfit + min(1.0, 10 * progress) * divergence) / math.prod(self.shape.size)

    def fake_loss(self, phase: Phase, condition: Tensors, noise: Tensors, progress: float) -> Tensor:
        """Nothing is learnt without patients."""
        return torch.zeros_like(noise["component"])

    def sample(self, condition: Tensors, noise: Tensors) -> Tensors:
        """Images decoded from the prior, without the pixel noise that the bound assumes."""
        latent = self.prior.draw(noise["latent"], noise["component"], condition)
        image, logits = self.autoencoder.decode(latent, condition)
        return {"image": image, "mask": logits.softmax(1)} if self.shape.n_labels else {"image": image}


def build(
    shape: ImageShape,
    *,
    private: bool = False,
    latent: int | None = None,
    base: int | None = None,
    components: int = 32,
    sigma: float = 0.4,
    emphasis: float = 5.0,
) -> Vae:
    """A new one. `latent` and `base` are 32 and 16, or 16 and 4 when private, for noise grows with the number of
    parameters; then the prior moves at every second step, because each of its phases is paid for."""
    family = Vae(
        shape,
        latent=(16 if private else 32) if latent is None else latent,
        base=(4 if private else 16) if base is None else base,
        components=components,
        sigma=sigma,
        emphasis=emphasis,
    )
    family.phases = (CODER, replace(family.phases[1], interval=2 if private else 1))
    return family


register(
    Entry(
        name="vae",
        summary="variational autoencoder: fast and steady, but soft pictures",
        kind="joint",
        private="autoencoder: fast path, prior: vmap(grad)",
        build=build,
        recipe=Recipe(rate=1e-3, rates={PRIOR: 5e-3}, betas=(0.9, 0.99), augment=False),
        private_recipe=replace(PRIVATE, rates={NET: 3e-3, PRIOR: 2e-2}, betas=(0.9, 0.99)),
        private_started_recipe=replace(PRIVATE_STARTED, rates={NET: 5e-4, PRIOR: 5e-3}, betas=(0.9, 0.99)),
        check_size=halving_problem,
    )
)
