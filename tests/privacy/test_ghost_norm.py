"""A layer's share against a float64 oracle: no norm too small, no weighted sum too large, whatever goes through it."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedsynth.privacy.clipping_engines import SLACK
from fedsynth.privacy.ghost_norm import SPREAD, exact_bytes, share, unsupported
from fedsynth.privacy.paths import FULL

CLIP = 1.0
KINDS = {
    "linear, rank one": (lambda: nn.Linear(33, 3), (33,)),
    "linear, wide": (lambda: nn.Linear(4096, 2, bias=False), (4096,)),
    "linear, sequence by norm": (lambda: nn.Linear(256, 16), (4, 256)),
    "linear, sequence held": (lambda: nn.Linear(3, 2), (9, 3)),
    "conv1d, ghost": (lambda: nn.Conv1d(32, 32, 4, 4, bias=False), (32, 12)),
    "conv1d, held": (lambda: nn.Conv1d(2, 3, 3, 1, 1), (2, 16)),
    "conv2d, ghost": (lambda: nn.Conv2d(64, 32, 4, 2, 1, bias=False), (64, 6, 6)),
    "conv2d, rank one": (lambda: nn.Conv2d(256, 1, 4, bias=False), (256, 4, 4)),
    "conv2d, held one by one": (lambda: nn.Conv2d(1, 4, 3, padding=1), (1, 8, 8)),
    "conv2d, held as groups": (lambda: nn.Conv2d(16, 16, 3, padding=1, bias=False), (16, 8, 8)),
    "conv3d, ghost": (lambda: nn.Conv3d(32, 32, 3, 2, 1, bias=False), (32, 4, 4, 4)),
    "conv3d, held": (lambda: nn.Conv3d(1, 2, (3, 2, 1), dilation=(1, 2, 1)), (1, 4, 4, 4)),
    "group norm": (lambda: nn.GroupNorm(2, 4), (4, 5, 5)),
    "layer norm": (lambda: nn.LayerNorm(12), (3, 12)),
    "layer norm of everything": (lambda: nn.LayerNorm((2, 6)), (2, 6)),
    "instance norm": (lambda: nn.InstanceNorm2d(3, affine=True), (3, 5, 5)),
    "layer norm, wide of zero": (lambda: nn.LayerNorm(12, eps=0.5), (3, 12)),
    "instance norm, wide of zero": (lambda: nn.InstanceNorm1d(3, eps=0.5, affine=True), (3, 7)),
    "group norm without scale": (lambda: nn.GroupNorm(1, 4), (4,)),
}
PATTERNS = ["noise", "flat", "cancelling", "nearly cancelling", "one pixel", "huge", "tiny", "huge beside tiny"]


def patients(pattern, shape, slices_per_patient, amplitude=1.0, offset=0.0):
    """Three patients who show one pattern, (3 * views, ...)."""
    rng = torch.Generator().manual_seed(4)
    noise = torch.randn((3, slices_per_patient, *shape), generator=rng)
    sign = torch.tensor([(-1.0) ** view for view in range(slices_per_patient)]).reshape(
        1, slices_per_patient, *[1] * len(shape)
    )
    made = {
        "noise": noise,
        "flat": torch.ones_like(noise),
        "cancelling": sign * torch.ones_like(noise),
        "nearly cancelling": sign * (1 + offset * (sign > 0)) * torch.ones_like(noise) + 1e-7 * noise,
        "one pixel": (torch.arange(noise[0, 0].numel()).reshape(shape) == 1).expand_as(noise) * sign,
        "huge": 1e15 * noise,
        "tiny": 1e-30 * noise,
        "huge beside tiny": torch.where(noise > 0, 1e12, 1e-12) * sign,
    }[pattern]
    return (amplitude * made).flatten(0, 1)


def exact(module, given, back, slices_per_patient):
    """Each patient's gradient in float64 by autograd, flat."""
    double = copy.deepcopy(module).double()
    rows = []
    for x, g in zip(given.double().split(slices_per_patient), back.double().split(slices_per_patient), strict=True):
        found = torch.autograd.grad((double(x) * g).sum(), list(double.parameters()))
        rows.append(torch.cat([one.flatten() for one in found]))
    return torch.stack(rows)


def flat(module, sums):
    return torch.cat([sums[name].flatten() for name, _ in module.named_parameters()])


def check(kind, module, x, g, slices_per_patient):
    """What each patient adds is under the clip norm; so is the oracle where nothing is held in float32."""
    found, true = share(module, x, g, len(x) // slices_per_patient), exact(module, x, g, slices_per_patient)
    norms = found.squared.sqrt()
    weights = CLIP / norms.clamp_min(CLIP)
    total = flat(module, found.weighted(weights))
    for i in range(len(norms)):
        alone = torch.zeros_like(weights)
        alone[i] = weights[i]
        assert flat(module, found.weighted(alone)).norm() <= CLIP * (1 + 1e-9)
        assert (total - flat(module, found.weighted(weights - alone))).norm() <= CLIP * (1 + 1e-6)
    if "held" not in kind and "norm" not in kind:
        assert (true.norm(dim=1) * weights).max() <= CLIP * (1 + 1e-9)
    return norms, true


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("slices_per_patient", [1, 2, 5])
def test_nobody_adds_more_than_the_clip_norm(kind, slices_per_patient):
    build, shape = KINDS[kind]
    module = build()
    assert not unsupported(module)
    for number, pattern in enumerate(PATTERNS):
        x = patients(pattern, shape, slices_per_patient, amplitude=3.0, offset=3e-6)
        g = module(x).detach()
        backs = (torch.ones_like(g) * 7, torch.randn_like(g) * 1e4, g.sign())
        for back in backs if slices_per_patient == 1 else backs[number % 3 :][:1]:
            check(kind, module, x, back, slices_per_patient)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("slices_per_patient", [1, 3])
def test_norms_and_sums_are_those_of_the_oracle(kind, slices_per_patient):
    build, shape = KINDS[kind]
    module = build()
    x = patients("noise", shape, slices_per_patient)
    norms, true = check(kind, module, x, torch.randn_like(module(x)), slices_per_patient)
    torch.testing.assert_close(norms, true.norm(dim=1), rtol=1e-5, atol=0)
    found = share(module, x, torch.ones_like(module(x)).detach(), 3)
    weights = torch.tensor([0.5, 0.0, 2.0], dtype=torch.float64)
    oracle = weights @ exact(module, x, torch.ones_like(module(x)), slices_per_patient)
    assert (flat(module, found.weighted(weights)) - oracle).norm() <= 1e-5 * oracle.norm()


@settings(max_examples=60, deadline=None)
@given(
    fan_in=st.sampled_from([16, 512, 2051, 16384]),
    slices_per_patient=st.integers(1, 8),
    amplitude=st.floats(-12, 12),
    offset=st.floats(-7, 0),
    slope=st.floats(-12, 12),
)
def test_flat_slices_that_cancel_are_not_too_small(fan_in, slices_per_patient, amplitude, offset, slope):
    """Dot products of many equal values err all to one side in float32: norms came out up to 5.3 times too small."""
    module = nn.Linear(fan_in, 1)
    x = patients("nearly cancelling", (fan_in,), slices_per_patient, amplitude=10**amplitude, offset=10**offset)
    norms, true = check("linear", module, x, torch.full((3 * slices_per_patient, 1), 10**slope), slices_per_patient)
    assert (norms >= true.norm(dim=1) * (1 - 1e-12)).all()


def test_ordinary_norms_are_hardly_overstated():
    for module, shape in ((nn.Linear(4096, 4), (8, 4096)), (nn.Linear(64, 256), (16, 64))):
        x = torch.randn(4, *shape)
        norms, true = check("linear", module, x, torch.randn(4, shape[0], module.out_features), 1)
        assert (norms <= true.norm(dim=1) * 1.0001).all()


def test_what_is_kept_in_reserve_covers_the_rounding_of_the_sums():
    """The figures that the module states: 2 n c T u / sqrt(SPREAD) for two million patients, and 2 gamma < SPREAD."""
    n, full, positions, rounding = 2_000_000, FULL["cpu"], 64, 2.0**-53
    assert 2 * n * full * positions * rounding / math.sqrt(SPREAD) <= 1 - SLACK
    assert 2 * 2**30 * rounding <= SPREAD
    assert 1 - SLACK <= 1e-3, "and patients lose no more than a thousandth to it"


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["given", "back"])
def test_what_is_not_finite_has_no_finite_norm(kind, bad, side):
    """Also where it meets a zero on the other side."""
    build, shape = KINDS[kind]
    module = build()
    x = patients("noise", shape, 2)
    g = torch.zeros_like(module(x).detach())
    values = x if side == "given" else g
    values[2].flatten()[1 % values[2].numel()] = bad
    if side == "given":
        g[2] = 1.0
    norms = share(module, x, g, 3).squared.sqrt()
    assert norms.isfinite().tolist() == [True, False, True]


def frozen(module):
    module.weight.requires_grad_(False)
    return module


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (lambda: nn.Conv2d(2, 2, 3, padding_mode="circular"), "Conv2d with groups or special padding"),
        (lambda: nn.Conv2d(2, 2, 3, groups=2), "Conv2d with groups or special padding"),
        (lambda: nn.Conv1d(2, 2, 3, padding="same"), "Conv1d with groups or special padding"),
        (lambda: nn.InstanceNorm2d(2, track_running_stats=True), "InstanceNorm2d with running statistics"),
        (lambda: nn.ConvTranspose2d(2, 2, 3), "ConvTranspose2d has no rule"),
        (lambda: frozen(nn.Linear(2, 2)), "Linear is partly frozen"),
    ],
)
def test_layers_whose_share_would_be_wrong_have_no_rule(build, why):
    assert unsupported(build()) == why


def test_the_bytes_of_float64_copies_by_hand():
    """Two images, three positions, fan-in 32 x 4 and fan-out 32; nothing where gradients are held, nor for lines."""
    module = nn.Conv1d(32, 32, 4, 4)
    assert exact_bytes(module, module(torch.randn(2, 32, 12))) == 2 * 3 * (128 + 32) * 8
    module = nn.Conv1d(2, 3, 3)
    assert exact_bytes(module, module(torch.randn(2, 2, 18))) == 0
    assert exact_bytes(nn.Linear(3, 3), torch.randn(2, 3)) == 0


def test_a_small_ghost_norm_is_its_own_size():
    """By hand: positions (1, 0) and (0, 1), each with a gradient of 0.1: the norm is 0.1 sqrt(2), and not one."""
    x, g = torch.eye(2)[None].repeat(1, 1, 64), torch.full((1, 2, 1), 0.1)
    squared = share(nn.Linear(128, 1, bias=False), x, g, 1).squared
    assert float(squared) == pytest.approx(2 * 64 * 0.01, rel=1e-5)
