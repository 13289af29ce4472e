import random
from threading import Event, Thread

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fedsynth.errors import RefusedError
from fedsynth.models.base import global_randomness
from fedsynth.privacy.sample_mixing import check_independence
from fedsynth.privacy.variations import AS_THEY_ARE, VARIATIONS


def discriminator(middle):
    return nn.Sequential(nn.Conv2d(1, 4, 4, 2, 1), nn.LeakyReLU(0.2), middle, nn.Conv2d(4, 1, 4, 2), nn.Flatten())


def probe(n=4):
    generator = torch.Generator().manual_seed(5)
    label = F.one_hot(torch.randint(0, 3, (n,), generator=generator), 3).float()
    return {"image": torch.randn(n, 1, 16, 16, generator=generator), "label": label}, {
        "u": torch.rand(n, 1, generator=generator)
    }


def check(net, loss=None, **options):
    loss = loss or (lambda batch, noise, progress: F.softplus(-net(batch["image"])).mean(1))
    check_independence(net, net, loss, probe(), **options)


class FunctionalBatchNorm(nn.Module):
    def forward(self, x):
        return F.batch_norm(x, None, None, training=True)


class MinibatchDeviation(nn.Module):
    """StyleGAN2's layer in groups; `detached` hides the coupling from gradients by the input."""

    def __init__(self, detached=False, gate=1.0):
        super().__init__()
        self.detached, self.gate = detached, nn.Parameter(torch.tensor(gate))

    def forward(self, x):
        groups = x.detach() if self.detached else x
        spread = groups.std(0, correction=0, keepdim=True).mean()
        return x + self.gate * spread


class GateSquared(MinibatchDeviation):
    """Starts at zero with a slope of zero: invisible in losses and gradients until the weights have moved."""

    def __init__(self):
        super().__init__(gate=0.0)

    def forward(self, x):
        return x + self.gate**2 * x.std(0, correction=0).mean()


class GateToTheEighth(GateSquared):
    """Small jitter of the weights leaves it closed; it is open once the weights are really others."""

    def forward(self, x):
        return x + self.gate**8 * x.std(0, correction=0).mean()


class OnlyInGradients(nn.Module):
    """Adds nothing to the value, and a batch statistic to the slope."""

    def forward(self, x):
        spread = x.std(0, correction=0).mean()
        return x + spread - spread.detach()


class Attention(nn.Module):
    """Across samples instead of positions: the transposition everybody makes once."""

    def forward(self, x):
        tokens = x.flatten(1)
        return (torch.softmax(tokens @ tokens.T / 30, 1) @ tokens).reshape(x.shape)


class Remembers(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = 0.0

    def forward(self, x):
        result = x + self.last
        self.last = float(x.detach().mean())
        return result


class Statistics(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x):
        self.mean.mul_(0.9).add_(0.1 * x.detach().mean())
        return x


class Silent(nn.Module):
    """Uses up random numbers without showing it, as a noise input of strength zero does at the start."""

    def __init__(self):
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return x + 0 * self.strength * torch.randn_like(x)


GUILTY = [
    ("mixes samples", nn.BatchNorm2d(4)),
    ("mixes samples", nn.BatchNorm2d(4, affine=False, track_running_stats=False)),
    ("mixes samples", FunctionalBatchNorm()),
    ("mixes samples", MinibatchDeviation()),
    ("mixes samples", MinibatchDeviation(detached=True)),
    ("mixes samples", MinibatchDeviation(gate=0.0)),
    ("mixes samples", GateSquared()),
    ("mixes samples", GateToTheEighth()),
    ("changes the gradient of another", OnlyInGradients()),
    ("mixes samples", Attention()),
    ("keeps statistics|remembers", nn.InstanceNorm2d(4, affine=True, track_running_stats=True)),
    ("keeps statistics", Statistics()),
    ("mixes|remembers", Remembers()),
    ("random numbers", nn.Dropout(0.3)),
    ("random numbers", Silent()),
]


@pytest.mark.parametrize(
    ("reason", "middle"), GUILTY, ids=[f"{type(middle).__name__}-{i}" for i, (_, middle) in enumerate(GUILTY)]
)
def test_what_couples_samples_is_refused(reason, middle):
    with pytest.raises(RefusedError, match=reason):
        check(discriminator(middle))


INNOCENT = [
    nn.GroupNorm(2, 4),
    nn.InstanceNorm2d(4, affine=True),
    nn.Identity(),
    nn.LayerNorm(8),
    nn.utils.spectral_norm(nn.Conv2d(4, 4, 3, padding=1)),
    nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 4, 3, padding=1)),
]


@pytest.mark.parametrize("middle", INNOCENT, ids=lambda middle: type(middle).__name__)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_looks_at_one_sample_only_is_accepted(middle):
    check(discriminator(middle))


LOSSES = {
    "relativistic average": lambda net, b: F.softplus(-(net(b["image"]).mean(1) - net(b["image"]).mean())),
    "divided by the number drawn": lambda net, b: net(b["image"]).mean(1) / len(b["image"]),
    "paired with the next": lambda net, b: net(b["image"] - b["image"].roll(1, 0)).mean(1),
    "class balance of the batch": lambda net, b: net(b["image"]).mean(1) * (b["label"] / b["label"].sum(0)).nansum(1),
    "one value for all": lambda net, b: net(b["image"]).mean(),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_that_couple_are_refused(name):
    net = discriminator(nn.Identity())
    with pytest.raises(RefusedError, match="cannot be private"):
        check(net, lambda batch, noise, progress: LOSSES[name](net, batch))


def test_a_loss_near_zero_is_not_taken_for_one_that_depends_on_the_others():
    """Kernels round otherwise for one sample; beside a loss that nearly vanishes this is a large share of it."""
    net = discriminator(nn.Identity())
    first = net(probe()[0]["image"]).mean(1)[0].detach()

    def loss(batch, noise, progress):
        return net(batch["image"]).mean(1) - first + 1e-7 * (len(batch["image"]) == 1)

    check(net, loss, variations=[AS_THEY_ARE])


@pytest.mark.parametrize("variation", [AS_THEY_ARE, VARIATIONS[-1]])
def test_a_loss_that_is_not_finite_is_refused_at_the_weights_as_they_are_alone(variation):
    net = discriminator(nn.Identity())

    def loss(batch, noise, progress):
        return torch.log(net(batch["image"]).mean(1) - 1e6)

    if variation == AS_THEY_ARE:
        with pytest.raises(RefusedError, match="not finite"):
            check(net, loss, variations=[variation])
    else:
        check(net, loss, variations=[variation])


class Growing(nn.Module):
    """Innocent while small; the second stage brings the minibatch statistic."""

    def __init__(self):
        super().__init__()
        self.line, self.late = nn.Linear(256, 4), MinibatchDeviation()

    def forward(self, x, progress):
        h = self.line(x.flatten(1))
        return self.late(h) if progress > 0.5 else h


def test_every_stage_of_growth_is_examined():
    net = Growing()

    def loss(batch, noise, progress):
        return net(batch["image"], progress).mean(1)

    check(net, loss, stages=(0.1, 0.4))
    with pytest.raises(RefusedError, match=r"at progress 0\.9"):
        check(net, loss, stages=(0.1, 0.9))


def test_one_module_under_two_names_is_refused():
    net = discriminator(nn.Identity())
    net.add_module("alias", net[0])
    net.forward = lambda x: nn.Sequential(*list(net)[:5])(x)
    with pytest.raises(RefusedError, match="0 and alias are one module under two names"):
        check(net)


@pytest.mark.parametrize("middle", [nn.GroupNorm(2, 4), nn.BatchNorm2d(4), nn.Dropout(0.5), Statistics()])
def test_the_check_leaves_weights_buffers_modes_gradients_and_random_streams_as_they_were(middle):
    net = discriminator(middle)
    net[0].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    torch.manual_seed(3)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    try:
        check(net)
    except RefusedError:
        assert not isinstance(middle, nn.GroupNorm)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert [module.training for module in net.modules()] == modes
    assert all(parameter.grad is None and parameter.requires_grad for parameter in net.parameters())
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert states[2] == random.getstate()


def test_hospitals_that_make_their_networks_meanwhile_disturb_nobody():
    """Hospitals train in threads: one drew its first weights while another was examined, and that one was refused."""
    done = Event()

    def make_networks():
        while not done.is_set():
            with global_randomness(1):
                made.append(nn.Linear(64, 64).weight.detach()[0, 0].item())

    made, examined = [], discriminator(nn.LeakyReLU(0.2))
    other = Thread(target=make_networks)
    other.start()
    try:
        for _ in range(20):
            check(examined)
    finally:
        done.set()
        other.join()
    assert len(set(made)) == 1
