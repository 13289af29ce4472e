"""The bound by hand, the learnt prior against torch's own mixtures, and that what is drawn follows it."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from fedsynth.models.base import ImageShape, SeededSource, Tensors
from fedsynth.models.generators.catalog import build
from fedsynth.models.generators.vae import Prior, Vae
from fedsynth.models.pairing import one_hot

CLASSES = ImageShape(channels=1, size=(16, 16), n_classes=2)


def a_prior(shape: ImageShape = CLASSES) -> tuple[Prior, Tensors]:
    torch.manual_seed(0)
    prior = Prior(shape, 3, 4)
    with torch.no_grad():
        prior.log_variances.normal_()
        prior.logits.normal_()
    return prior, {"label": torch.tensor([[0.0, 1.0]])}


def as_torch(prior: Prior, condition: Tensors) -> MixtureSameFamily:
    parts = Independent(Normal(prior.means.detach(), (prior.log_variances / 2).exp().detach()), 1)
    return MixtureSameFamily(Categorical(logits=prior.log_shares(torch.zeros(1, 3), condition)[0].detach()), parts)


def test_the_priors_density_is_that_of_a_mixture() -> None:
    prior, condition = a_prior()
    latent = torch.randn(50, 3)
    label = {"label": condition["label"].expand(50, -1)}
    constant = 1.5 * math.log(2 * math.pi)
    torch.testing.assert_close(
        prior.log_density(latent, label).detach() - constant, as_torch(prior, condition).log_prob(latent)
    )


def test_what_is_drawn_follows_the_density() -> None:
    prior, condition = a_prior()
    rng, n = SeededSource(0), 40_000
    with torch.no_grad():
        drawn = prior.draw(rng.normal((n, 3)), rng.uniform((n,)), {"label": condition["label"].expand(n, -1)})
    mixture = as_torch(prior, condition)
    assert drawn.mean(0) == pytest.approx(mixture.mean, abs=0.05)
    assert drawn.var(0) == pytest.approx(mixture.variance, rel=0.06)


def test_classes_share_components_differently() -> None:
    prior, _ = a_prior()
    shares = prior.log_shares(torch.zeros(2, 3), {"label": torch.eye(2)}).exp().detach()
    assert shares.sum(1) == pytest.approx(1)
    assert (shares[0] - shares[1]).abs().max() > 0.1
    nobody = prior.log_shares(torch.zeros(1, 3), {"label": torch.zeros(1, 2)}).exp().detach()
    assert nobody.sum() == pytest.approx(1)
    assert prior.log_shares(torch.zeros(1, 3), {}).exp().detach() == pytest.approx(nobody)


def test_the_bound_by_hand() -> None:
    shape = ImageShape(channels=1, size=(16, 16), n_labels=2)
    torch.manual_seed(0)
    family = build("vae", shape, base=8, latent=4, components=1, sigma=0.5, emphasis=3.0)
    assert isinstance(family, Vae)
    net = family.autoencoder
    with torch.no_grad():
        for parameter in (
            net.write.weight,
            net.write.bias,
            family.prior.means,
            net.to_latent.weight,
            net.to_latent.bias,
        ):
            parameter.zero_()
        net.to_latent.bias[:4] = 2.0  # posterior N(2, 1), prior N(0, 1): divergence 2 per latent
    batch = {"image": torch.full((1, 1, 16, 16), 0.5), "mask": one_hot(torch.zeros(1, 16, 16, dtype=torch.int64), 2)}
    phase, noise = family.phases[0], {"latent": torch.zeros(1, 4), "component": torch.zeros(1)}

    def bound(noise: Tensors, progress: float) -> float:
        return family.real_loss(phase, batch, noise, progress).item()

    misfit = 0.5**2 / (2 * 0.5**2) + 3 * math.log(2)
    assert bound(noise, 0.0) == pytest.approx(misfit, rel=1e-5)
    assert bound(noise, 1.0) == pytest.approx(misfit + 4 * 2 / 256, rel=1e-5)
    assert bound(noise, 0.05) == pytest.approx(misfit + 4 / 256, rel=1e-5)  # half-way through the fading in
    many = family.noise(4000, SeededSource(0))
    estimates = [bound({k: v[i : i + 1] for k, v in many.items()}, 1.0) for i in range(400)]
    assert sum(estimates) / 400 == pytest.approx(misfit + 4 * 2 / 256, rel=0.005)


def test_the_prior_learns_in_its_own_turn_where_codes_lie() -> None:
    torch.manual_seed(0)
    family = build("vae", ImageShape(channels=1, size=(16, 16)), private=True, latent=3, components=2)
    assert isinstance(family, Vae)
    coder, prior = family.phases
    assert (coder.net, coder.interval, prior.net, prior.interval) == ("autoencoder", 1, "prior", 2)
    batch = {"image": torch.rand(6, 1, 16, 16) * 2 - 1}
    noise = family.noise(6, SeededSource(0))
    mean, log_variance = family.autoencoder.encode(batch)
    latent = (mean + torch.exp(log_variance / 2) * noise["latent"]).detach()
    loss = family.real_loss(prior, batch, noise, 1.0)
    torch.testing.assert_close(loss, -family.prior.log_density(latent, batch))
    found = torch.autograd.grad(loss.sum(), list(family.autoencoder.parameters()), allow_unused=True)
    assert all(gradient is None for gradient in found)
    assert torch.autograd.grad(family.real_loss(prior, batch, noise, 1.0).sum(), family.prior.means)[0].norm() > 0


def test_reconstruction_improves_in_a_few_steps() -> None:
    shape = ImageShape(channels=1, size=(16, 16))
    torch.manual_seed(0)
    family = build("vae", shape, base=8)
    grid = torch.linspace(-1, 1, 16)
    batch = {"image": torch.stack([grid.expand(16, 16), -grid.expand(16, 16)])[:, None]}
    optimiser = torch.optim.Adam(family.parameters(), 1e-2)
    losses: list[float] = []
    for step in range(60):
        loss: Tensor = family.real_loss(family.phases[0], batch, family.noise(2, SeededSource(step)), 1.0).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.55 * losses[0]
