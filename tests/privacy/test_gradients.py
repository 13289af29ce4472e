"""The fast path against vmap(grad), vmap(grad) against one backward pass per patient, and the rules of clipping."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fedsynth.errors import RefusedError
from fedsynth.privacy.engines import SLACK, Chunk, MappedEngine
from fedsynth.privacy.gradients import PatientGradients

CLIP = 0.7


def critic(norm=None, channels=2, width=6):
    layers = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(width, 2 * width, 4, 2, 1)]
    layers += [norm(2 * width)] if norm else []
    return nn.Sequential(*layers, nn.LeakyReLU(0.2), nn.Conv2d(2 * width, 1, 4), nn.Flatten(0))


class Volume(nn.Module):
    """A 3-D critic with a residual, a dilated and a strided convolution, group norm, layer norm and a linear head."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv3d(1, 4, 3, padding=1, dilation=1)
        self.norm = nn.GroupNorm(2, 4)
        self.second = nn.Conv3d(4, 4, (3, 2, 3), stride=(2, 1, 2), padding=(2, 1, 1), dilation=(2, 1, 1), bias=False)
        self.line = nn.Linear(4, 5)
        self.layer_norm = nn.LayerNorm(5)
        self.head = nn.Linear(5, 1)

    def forward(self, x):
        h = F.silu(self.norm(self.first(x)))
        h = self.second(h) + F.avg_pool3d(F.pad(h, (0, 0, 1, 0)), (2, 1, 2), (2, 1, 2))[..., :7, :]
        tokens = self.layer_norm(self.line(h.flatten(2).transpose(1, 2)))
        return self.head(torch.tanh(tokens)).mean((1, 2))


class Signal(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 3, 3, stride=2)
        self.norm = nn.InstanceNorm1d(3, affine=True)
        self.head = nn.Linear(9, 1)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).tanh().flatten(1)).flatten()


def setting(net, shape, *, views=1, clip=CLIP, loss=None, **options):
    torch.manual_seed(1)
    loss = loss or (lambda batch, noise, progress: F.softplus(-3 * net(batch["image"])))
    probe = ({"image": torch.randn(4, *shape)}, {})
    return PatientGradients(net, loss, clip=clip, probe=probe, views=views, **options)


def patients(n, shape, *, views=1):
    torch.manual_seed(2)
    images = torch.randn(n, views, *shape) * torch.linspace(0.05, 3, max(n, 1))[:n].reshape(-1, 1, *[1] * len(shape))
    return torch.arange(n), lambda indices: ({"image": images[indices]}, {})


def one_by_one(gradients, indices, fetch, clip=CLIP):
    """Slow oracle: one backward pass per patient."""
    parameters = dict(gradients.net.named_parameters())
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for index in indices:
        batch, noise = fetch(index[None])
        loss = gradients.loss({k: v[0] for k, v in batch.items()}, {k: v[0] for k, v in noise.items()}, 1.0).mean()
        found = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
        norm = math.sqrt(sum(float(g.detach().square().sum()) for g in found.values()))
        for name, g in found.items():
            total[name] += g * SLACK * min(1.0, clip / norm)
    return total


def length(sums):
    return math.sqrt(sum(float(value.detach().double().square().sum()) for value in sums.values()))


def apart(first, second):
    return length({name: first[name] - second[name] for name in first})


NETS = [
    ("convolutions", lambda: critic(), (2, 16, 16)),
    ("group norm", lambda: critic(lambda c: nn.GroupNorm(3, c)), (2, 16, 16)),
    ("instance norm", lambda: critic(lambda c: nn.InstanceNorm2d(c, affine=True)), (2, 16, 16)),
    ("wide, so that ghost norms are used", lambda: critic(width=32), (2, 16, 16)),
    (
        "eight patients at a time",
        lambda: nn.Sequential(nn.Conv2d(16, 16, 3, 2, 1), nn.Flatten(), nn.Linear(256, 1), nn.Flatten(0)),
        (16, 8, 8),
    ),
    ("volumes", Volume, (1, 6, 6, 6)),
    ("signals", Signal, (2, 8)),
    ("lines", lambda: nn.Sequential(nn.Flatten(), nn.Linear(18, 7), nn.Tanh(), nn.Linear(7, 1), nn.Flatten(0)), (2, 9)),
]


@pytest.mark.parametrize(("name", "build", "shape"), NETS, ids=[name for name, _, _ in NETS])
@pytest.mark.parametrize("views", [1, 3])
def test_the_fast_path_is_exact_against_vmap_and_against_one_pass_per_patient(name, build, shape, views):
    gradients = setting(build(), shape, views=views, memory=200_000)  # several chunks
    assert gradients.path().fast, gradients.path().reason
    indices, fetch = patients(9, shape, views=views)
    gradients.clip = clip = float(gradients.norms(indices, fetch).median())  # so that some are clipped and some not
    ours = gradients.clipped_sum(indices, fetch)
    slow = one_by_one(gradients, indices, fetch, clip)
    mapped = MappedEngine(gradients.net, gradients.loss, tuple(slow))
    batch, noise = fetch(indices)
    theirs = mapped.clipped(Chunk(batch=batch, noise=noise), 1.0, clip).sums
    assert apart(ours, slow) < 1e-4 * length(slow)
    assert apart(theirs, slow) < 1e-4 * length(slow)
    norms = mapped.norms(Chunk(batch=batch, noise=noise), 1.0)
    torch.testing.assert_close(gradients.norms(indices, fetch), norms, rtol=1e-4, atol=1e-6)
    assert norms.min() < clip * 0.99 < clip * 1.01 < norms.max()


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(6, 6)
        self.head = nn.Linear(6, 1)

    def forward(self, x):
        return self.head(self.line(torch.tanh(self.line(x)))).flatten()


def penalised(net):
    def loss(batch, noise, progress):
        def score(x):
            return net(x).sum()

        slope = torch.func.grad(score)(batch["image"])
        return F.softplus(-net(batch["image"])) + slope.flatten(1).square().sum(1)

    return loss


def with_slope_of_one_pass(net):
    def loss(batch, noise, progress):
        image = batch["image"].detach().requires_grad_()
        score = net(image)
        (slope,) = torch.autograd.grad(score.sum(), image, create_graph=True)
        return F.softplus(-score) + slope.flatten(1).square().sum(1)

    return loss


SLOW = [
    ("called twice", Shared, None, (6,)),
    ("called twice", lambda: critic(), penalised, (2, 16, 16)),
    ("in place", lambda: nn.Sequential(nn.Linear(6, 4), nn.LeakyReLU(0.2, inplace=True), nn.Linear(4, 1)), None, (6,)),
    ("special padding", lambda: nn.Sequential(nn.Conv1d(1, 2, 3, padding="same"), nn.Flatten()), None, (1, 6)),
    ("has no rule", lambda: nn.Sequential(nn.ConvTranspose1d(1, 2, 3), nn.Flatten()), None, (1, 6)),
]


@pytest.mark.parametrize(
    ("reason", "build", "wrap", "shape"), SLOW, ids=[row[0] + str(i) for i, row in enumerate(SLOW)]
)
def test_what_the_fast_path_cannot_follow_takes_vmap_and_says_why(reason, build, wrap, shape):
    net = build()
    loss = wrap(net) if wrap else lambda batch, noise, progress: net(batch["image"]).flatten(1).tanh().sum(1)
    if isinstance(net, Shared):
        loss = lambda batch, noise, progress: net(batch["image"])  # noqa: E731
    gradients = setting(net, shape, loss=loss)
    assert not gradients.path().fast
    assert reason in gradients.path().reason
    indices, fetch = patients(5, shape)
    ours, slow = gradients.clipped_sum(indices, fetch), one_by_one(gradients, indices, fetch)
    assert apart(ours, slow) < 1e-4 * length(slow)


def test_a_penalty_hidden_in_one_pass_is_found_on_the_probe():
    net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1), nn.Flatten(0))
    torch.manual_seed(1)
    with pytest.raises(RuntimeError):  # autograd.grad does not run under vmap: such a loss cannot be private, loudly
        setting(net, (6,), loss=with_slope_of_one_pass(net)).path()


@pytest.mark.parametrize("views", [1, 4])
@pytest.mark.parametrize("wrap", [None, penalised])
def test_removing_one_patient_changes_the_sum_by_at_most_the_clip_norm(views, wrap):
    net = critic(channels=1)
    gradients = setting(net, (1, 16, 16), views=views, loss=wrap(net) if wrap else None)
    assert gradients.path().fast == (wrap is None)
    indices, fetch = patients(8, (1, 16, 16), views=views)
    whole = gradients.clipped_sum(indices, fetch)
    changes = [apart(whole, gradients.clipped_sum(indices[indices != i], fetch)) for i in range(8)]
    assert max(changes) <= CLIP * (1 + 1e-5)
    assert max(changes) > CLIP * 0.99, "somebody must have been clipped, or the test shows nothing"


def test_ghost_norms_are_never_too_small_where_large_terms_cancel():
    """Views of opposite sign: the gradient nearly vanishes while every term is huge; float32 must not hide the rest."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 1, bias=False), nn.Flatten(0))
    gradients = setting(net, (64,), views=2, loss=lambda b, n, p: net(b["image"]))
    torch.manual_seed(3)
    big, small = torch.randn(20, 64) * 1e4, torch.randn(20, 64)
    images = torch.stack([big, -big + small], 1)
    for i in range(20):
        alone = gradients.clipped_sum(torch.tensor([i]), lambda indices: ({"image": images[indices]}, {}))
        assert length(alone) <= CLIP * (1 + 1e-5)


@pytest.mark.parametrize("bad", [math.inf, math.nan, 1e38])
@pytest.mark.parametrize("wrap", [None, penalised])
def test_an_infinite_pixel_harms_nothing(bad, wrap):
    net = critic(channels=1)
    gradients = setting(net, (1, 16, 16), loss=wrap(net) if wrap else None)
    indices, fetch = patients(6, (1, 16, 16))
    images = fetch(indices)[0]["image"].clone()
    images[2, 0, 0, 3, 3] = bad
    with_bad = gradients.clipped_sum(indices, lambda i: ({"image": images[i]}, {}))
    assert all(value.isfinite().all() for value in with_bad.values())
    assert apart(with_bad, gradients.clipped_sum(indices[indices != 2], fetch)) <= CLIP * (1 + 1e-5)
    only_bad = gradients.clipped_sum(torch.tensor([2]), lambda i: ({"image": images[i]}, {}))
    assert all(value.isfinite().all() for value in only_bad.values())


@pytest.mark.parametrize("line", [nn.Linear, type("Foreign", (nn.Linear,), {})])
def test_an_infinite_slice_silences_its_own_patient_alone_and_everybody_has_noise_of_their_own(line):
    """Three slices each, whose noise is multiplied onto them; the others are added as if nothing had been."""
    net = nn.Sequential(line(6, 3), nn.Tanh(), nn.Linear(3, 1), nn.Flatten(0))
    torch.manual_seed(1)
    probe = {"image": torch.randn(4, 6)}, {"u": torch.rand(4, 1)}
    loss = lambda batch, noise, progress: net(batch["image"] * noise["u"])  # noqa: E731
    gradients = PatientGradients(net, loss, clip=CLIP, probe=probe, views=3)
    assert gradients.path().fast == (line is nn.Linear)
    images, noise = 9 * torch.randn(5, 3, 6), torch.rand(5, 3, 1)
    fetch = lambda indices: ({"image": images[indices]}, {"u": noise[indices]})  # noqa: E731
    others = torch.tensor([0, 1, 3, 4])
    found = gradients.clipped_sum(others, fetch)
    slow = one_by_one(gradients, others, fetch)
    assert apart(found, slow) < 1e-4 * length(slow)
    images[2, 1, 0] = math.inf
    assert apart(gradients.clipped_sum(torch.arange(5), fetch), found) < 1e-12


@pytest.mark.parametrize("wrap", [None, penalised])
def test_nobody_drawn_gives_zeros_of_the_right_shapes_and_fetches_nothing(wrap):
    net = critic(channels=1)
    gradients = setting(net, (1, 16, 16), loss=wrap(net) if wrap else None)

    def fetch(indices):
        raise AssertionError("there is nobody to fetch")

    sums = gradients.clipped_sum(torch.arange(0), fetch)
    assert {name: value.shape for name, value in sums.items()} == {n: p.shape for n, p in net.named_parameters()}
    assert length(sums) == 0


def test_the_sum_does_not_depend_on_how_it_is_cut_into_chunks():
    net = critic()
    indices, fetch = patients(9, (2, 16, 16))
    whole = setting(net, (2, 16, 16)).clipped_sum(indices, fetch)
    cut = setting(net, (2, 16, 16), memory=1)
    assert cut.path().samples == 1
    assert apart(whole, cut.clipped_sum(indices, fetch)) < 1e-5 * length(whole)


def test_views_are_averaged_before_clipping_not_clipped_one_by_one():
    net = nn.Sequential(nn.Linear(4, 1, bias=False), nn.Flatten(0))
    gradients = setting(net, (4,), views=2, clip=1.0, loss=lambda b, n, p: net(b["image"]))
    images = torch.tensor([[[10.0, 0, 0, 0], [-10.0, 0, 0, 0.5]]])  # by hand: mean (0, 0, 0, .25), under the clip norm
    found = gradients.clipped_sum(torch.tensor([0]), lambda i: ({"image": images[i]}, {}))
    torch.testing.assert_close(found["0.weight"].float(), torch.tensor([[0.0, 0, 0, 0.25]]), atol=1e-2, rtol=0)


def test_the_free_half_is_clipped_sample_by_sample_and_averaged():
    net = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Flatten(0))
    gradients = setting(net, (2,), clip=1.0, loss=lambda b, n, p: net(n["z"] if n else b["image"]))
    gradients._probe = Chunk(batch={}, noise={"z": torch.randn(4, 1, 2)})
    loss, mean = gradients.clipped_mean({}, {"z": torch.tensor([[8.0, 0.0], [0.0, 0.5]])})
    torch.testing.assert_close(mean["0.weight"], SLACK * torch.tensor([[0.5, 0.25]]), atol=1e-5, rtol=0)
    weight = net[0].weight[0].detach()
    torch.testing.assert_close(loss, (8 * weight[0] + 0.5 * weight[1]) / 2)


@pytest.mark.parametrize("wrap", [None, penalised])
@pytest.mark.parametrize("memory", [1, 512 * 2**20])
def test_the_shown_loss_of_the_free_half_is_its_plain_mean_and_is_not_finite_where_one_is_not(wrap, memory):
    """It comes out of the pass that takes the gradients, one sample at a time or all together."""
    net = critic()
    gradients = setting(net, (2, 16, 16), loss=wrap(net) if wrap else None, memory=memory)
    images = torch.randn(5, 2, 16, 16)
    shown, _ = gradients.clipped_mean({"image": images}, {})
    assert not shown.requires_grad
    torch.testing.assert_close(shown, gradients.loss({"image": images}, {}, 1.0).mean().detach())
    images[3, 0, 2, 2] = math.nan
    shown, mean = gradients.clipped_mean({"image": images}, {})
    assert not shown.isfinite(), "the watch for diverged runs must see it"
    assert all(value.isfinite().all() for value in mean.values())


class Growing(nn.Module):
    def __init__(self):
        super().__init__()
        self.small, self.large = nn.Linear(4, 1), nn.Linear(4, 1)

    def forward(self, x, progress):
        return (self.small(x) if progress < 0.5 else self.large(x)).flatten()


def test_parameters_of_a_stage_that_is_not_reached_are_not_in_the_sum():
    """They get no noise either: a growth stage that waits stays still."""
    net = Growing()
    gradients = setting(net, (4,), loss=lambda b, n, p: net(b["image"], p), growing=True)
    indices, fetch = patients(3, (4,))
    assert set(gradients.clipped_sum(indices, fetch, 0.2)) == {"small.weight", "small.bias"}
    assert set(gradients.clipped_sum(indices, fetch, 0.8)) == {"large.weight", "large.bias"}
    assert set(gradients.clipped_sum(torch.arange(0), fetch, 0.2)) == {"small.weight", "small.bias"}


def test_a_loss_that_uses_no_parameter_gives_an_empty_sum():
    """The free half of a paired family's generator, for example."""
    net = critic()
    gradients = setting(net, (2, 16, 16), loss=lambda b, n, p: torch.zeros(len(b["image"])))
    assert gradients.path().parameters == ()
    assert gradients.clipped_sum(*patients(3, (2, 16, 16))) == {}
    shown, mean = gradients.clipped_mean({"image": torch.zeros(3, 2, 16, 16)}, {})
    assert (float(shown), mean) == (0.0, {})


def test_losses_and_steps_leave_requires_grad_and_grad_alone():
    net = critic()
    gradients = setting(net, (2, 16, 16))
    gradients.clipped_sum(*patients(3, (2, 16, 16)))
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert not net[0]._forward_hooks


@pytest.mark.parametrize("clip", [0.0, -1.0, math.inf, math.nan])
def test_a_clip_norm_that_bounds_nothing_is_refused(clip):
    with pytest.raises(RefusedError, match="clip norm"):
        setting(critic(), (2, 16, 16), clip=clip)


def test_fetch_must_bring_the_declared_number_of_views():
    gradients = setting(critic(), (2, 16, 16), views=2)
    with pytest.raises(ValueError, match="1 views per patient where 2"):
        gradients.clipped_sum(*patients(3, (2, 16, 16), views=1))


def test_the_sum_does_not_drift_with_the_number_of_chunks():
    """One float32 rounding per chunk would let a patient move the sum by more than the clip norm."""
    net = nn.Linear(1, 1, bias=False)

    def loss(batch, noise, progress):
        return net(batch["image"])[:, 0]

    probe = {"image": torch.randn(4, 1)}, {}
    ours = PatientGradients(net, loss, clip=1.0, probe=probe, memory=64)
    values = torch.linspace(0.1, 0.9, 5000)[:, None, None]
    found = ours.clipped_sum(torch.arange(5000), lambda indices: ({"image": values[indices]}, {}))["weight"]
    exact = float(values.double().sum()) * SLACK
    assert abs(float(found) - exact) <= 2e-7 * exact


def test_rounding_lets_nobody_move_the_sum_beyond_the_clip_norm():
    """Many patients who pull alike, in one chunk: the sum is large and float32 rounds it coarsely."""
    net = critic()
    ours = setting(net, (2, 16, 16), clip=0.01)
    torch.manual_seed(3)
    images = torch.randn(1, 1, 2, 16, 16) + 1e-4 * torch.randn(601, 1, 2, 16, 16)
    fetch = lambda indices: ({"image": images[indices]}, {})  # noqa: E731
    everyone, others = (ours.clipped_sum(torch.arange(n), fetch) for n in (601, 600))
    moved = math.sqrt(sum(float((everyone[k].double() - others[k].double()).square().sum()) for k in everyone))
    assert 0.99 * 0.01 < moved <= 0.01


def test_memory_counts_every_network_that_a_loss_runs():
    """A small private network behind a large one: chunks are bounded by what both keep alive."""
    large, small = nn.Conv2d(2, 16, 3, padding=1), nn.Linear(16, 1)

    def loss(batch, noise, progress):
        return small(torch.tanh(large(batch["image"])).mean((2, 3)))[:, 0]

    activations = 16 * 32 * 32 * 4
    ours = setting(small, (2, 32, 32), loss=loss, whole=nn.ModuleList([large, small]), memory=20 * activations)
    assert 1 <= ours.path().samples <= 10
