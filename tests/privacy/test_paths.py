"""Paths are chosen on made-up samples at several weights: what a gate at zero hides must not take the fast path."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fedsynth.errors import RefusedError
from fedsynth.privacy.per_patient_gradients import PatientGradients
from fedsynth.privacy.variations import VARIATIONS, Variation, varied


class Gated(nn.Module):
    """A plain discriminator and a branch behind a gate that is closed at first, and opens once its weight exceeds
    `sill`.
    """

    def __init__(self, sill=0.0):
        super().__init__()
        self.line, self.side, self.head = nn.Linear(4, 4), nn.Linear(1, 3), nn.Linear(4, 1)
        self.gate, self.sill = nn.Linear(1, 1, bias=False), sill
        self.move(0.0)

    def move(self, to):
        with torch.no_grad():
            self.gate.weight.fill_(to)

    def branch(self, x):
        return self.side(x[..., None]).tanh().sum((1, 2))

    def forward(self, x):
        opened = self.gate(torch.ones(len(x), 1))[:, 0]
        if self.sill:
            opened = F.relu(opened - self.sill)
        return self.head(torch.tanh(self.line(x)))[:, 0] + opened * self.branch(x)


class Positions(Gated):
    """The side layer sees (positions, samples, features): four rows, as many as made-up samples."""

    def branch(self, x):
        return self.side(x.T[..., None]).tanh().sum((0, 2))


class Reversed(Gated):
    """As many rows as samples, but those of others."""

    def branch(self, x):
        return self.side(x.flip(0)[..., None]).tanh().sum((1, 2)).flip(0)


class Sorted(Gated):
    """The rows of others where the samples are not sorted by their first number, as they are in the probe."""

    def branch(self, x):
        order = x[:, 0].argsort()
        return self.side(x[order][..., None]).tanh().sum((1, 2))[order.argsort()]


class Folded(Gated):
    """Positions put into the batch axis, those of all samples one after another."""

    def branch(self, x):
        return self.side(x.T.reshape(-1, 1)).tanh().sum(1).reshape(4, -1).sum(0)


def setting(net, loss=None):
    image = torch.randn(4, 4, generator=torch.Generator().manual_seed(1))
    image[:, 0] = torch.arange(4)
    loss = loss or (lambda batch, noise, progress: net(batch["image"]))
    return PatientGradients(net, loss, clip=1.0, probe=({"image": image}, {}))


def most_moved(gradients, n=9):
    """By how many clip norms the sum moves at most when one of these patients is left out."""
    images = torch.randn(n, 1, 4, generator=torch.Generator().manual_seed(2))
    images *= torch.linspace(0.1, 30, n)[:, None, None]

    def total(chosen):
        return gradients.clipped_sum(chosen, lambda indices: ({"image": images[indices]}, {}))

    everybody = torch.arange(n)
    whole, rest = total(everybody), [total(everybody[everybody != i]) for i in everybody]
    return max(math.sqrt(sum(float((whole[k] - one[k]).square().sum()) for k in whole)) for one in rest)


GUILTY = [Positions, Reversed, Sorted, Folded]


@pytest.mark.parametrize("build", GUILTY)
def test_rows_that_are_not_the_samples_are_found_behind_a_closed_gate(build):
    """Compared at the first weights alone they passed, and with the gate open one patient moved the sum by 1.39."""
    net = build()
    gradients = setting(net)
    assert not gradients.path().fast
    assert "rows" in gradients.path().reason or "more than its layers" in gradients.path().reason
    net.move(1.0)
    assert 0.9 < most_moved(gradients) <= 1 + 1e-6


@pytest.mark.parametrize("build", [Positions, Folded])
def test_how_many_rows_there_are_is_seen_whatever_the_weights(build):
    path = setting(build(sill=60.0)).path()
    assert not path.fast
    assert path.reason == "a layer's rows are not the samples"


def test_rows_that_are_the_samples_keep_the_fast_path():
    gradients = setting(Gated())
    assert gradients.path().fast
    gradients.net.move(1.0)
    assert 0.9 < most_moved(gradients) <= 1 + 1e-6


@pytest.mark.parametrize("build", [Reversed, Sorted])
def test_weights_from_elsewhere_are_looked_at_before_the_next_patient(build):
    """A gate with a sill that no variation crosses: only the weights that a server sends open it."""
    net = build(sill=60.0)
    gradients = setting(net)
    assert gradients.path().fast
    net.move(61.0)
    gradients.renew()
    assert 0.9 < most_moved(gradients) <= 1 + 1e-6
    assert not gradients.path().fast
    net.move(0.0)
    gradients.renew()
    assert gradients.path().fast, "and at weights that agree it is fast again"


def test_weights_from_elsewhere_that_mix_samples_are_refused():
    net = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))

    def loss(batch, noise, progress):
        score = net(batch["image"])
        return score + F.relu(net[0].weight.sum() - 60) * score.mean()

    gradients = setting(net, loss)
    gradients.renew()
    assert most_moved(gradients) <= 1 + 1e-6
    with torch.no_grad():
        net[0].weight.fill_(20.0)
    gradients.renew()
    with pytest.raises(RefusedError, match="mixes samples"):
        most_moved(gradients)


@pytest.mark.parametrize(("views", "memory", "parts"), [(1, 2**20, [16, 4]), (4, 2**20, [4] * 5), (4, 1, [1] * 20)])
def test_patients_come_in_chunks_that_the_memory_holds(views, memory, parts):
    """Sixteen samples at once, as many as `FULL` says, and one patient where there is room for nobody."""
    net, sizes = nn.Linear(4, 1), []

    def fetch(indices):
        sizes.append(len(indices))
        return {"image": torch.zeros(len(indices), views, 4)}, {}

    PatientGradients(
        net,
        lambda batch, noise, progress: net(batch["image"])[:, 0],
        clip=1.0,
        probe=({"image": torch.randn(4, 4)}, {}),
        slices_per_patient=views,
        memory=memory,
    ).clipped_sum(torch.arange(20), fetch)
    assert sizes == parts


def test_patients_go_one_by_one_where_a_gradient_depends_on_the_place_in_a_chunk():
    """A patient who is left out moves the others to other places: the sum would move by more than the clip norm."""
    net, sizes = nn.Linear(4, 1), []
    gradients = setting(
        net, lambda batch, noise, progress: net(batch["image"])[:, 0] * (1 + 1e-6 * torch.arange(len(batch["image"])))
    )

    def fetch(indices):
        sizes.append(len(indices))
        return {"image": torch.ones(len(indices), 1, 4)}, {}

    assert gradients.path().fast
    gradients.clipped_sum(torch.arange(3), fetch)
    assert sizes == [1, 1, 1]


def test_frozen_parameters_have_no_gradient_and_no_part_in_the_norm():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1), nn.Flatten(0))
    net[0].requires_grad_(False)
    gradients = setting(net)
    assert gradients.path().parameters == ("1.weight", "1.bias")
    assert 0.9 < most_moved(gradients) <= 1 + 1e-6


class Borrowed(nn.Module):
    """A layer's weight is used a second time, outside the layer, behind a constant of zero."""

    def __init__(self):
        super().__init__()
        self.line, self.head = nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.line(x))[:, 0] + 0.0 * F.linear(x, self.line.weight).sum(1)


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self):
        super().__init__()
        self.line, self.head, self.twin = nn.Linear(4, 4), nn.Linear(4, 1), nn.Linear(4, 4, bias=False)
        self.twin.weight = self.line.weight

    def forward(self, x):
        return self.head(self.twin(self.line(x)))[:, 0]


class Baseline(nn.Module):
    """A pass without gradients beside the one with, and a layer whose output nobody uses."""

    def __init__(self):
        super().__init__()
        self.line, self.idle = nn.Linear(4, 1), nn.Linear(4, 1)

    def forward(self, x):
        self.idle(x)
        with torch.no_grad():
            baseline = self.line(x)[:, 0].square()
        return self.line(x)[:, 0] * baseline


@pytest.mark.parametrize("build", [Borrowed, Tied])
def test_a_second_use_of_a_weight_is_seen_in_how_the_loss_is_computed(build):
    path = setting(build()).path()
    assert not path.fast
    assert path.reason == "a parameter is used outside its layer"


def test_passes_without_gradients_and_idle_layers_keep_the_fast_path():
    gradients = setting(Baseline())
    assert gradients.path().fast
    assert set(gradients.path().parameters) == {"line.weight", "line.bias"}
    assert 0.9 < most_moved(gradients) <= 1 + 1e-6


def test_variations_open_gates_and_put_everything_back():
    net = nn.Sequential(nn.Linear(4, 3), nn.GroupNorm(1, 3))
    net[0].bias.data.zero_()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    for variation in VARIATIONS[1:]:
        seen = []
        for _ in range(2):
            with varied(net, variation):
                seen.append({name: value.clone() for name, value in net.state_dict().items()})
        assert all(torch.equal(value, seen[1][name]) for name, value in seen[0].items())
        assert all((value != before[name]).all() for name, value in seen[0].items())
    assert (seen[0]["0.bias"].abs() > 0.01).all()
    with pytest.raises(ZeroDivisionError), varied(net, VARIATIONS[1]):
        raise ZeroDivisionError
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_variations_are_as_large_as_they_say():
    net = nn.Sequential(nn.Linear(100, 50), nn.GroupNorm(50, 50))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with varied(net, Variation(2.0, 0.5)):
        drawn = {name: (value / 2 - before[name]) / 0.5 for name, value in net.state_dict().items()}
    assert float(drawn["0.weight"].std()) == pytest.approx(float(before["0.weight"].std(correction=0)), rel=0.05)
    assert float(drawn["1.weight"].std()) == pytest.approx(1.0, rel=0.4), "all entries equal"
