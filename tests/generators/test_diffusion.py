"""Diffusion by hand: the two paths and their ends, samplers against known answers, guidance, dropped conditions."""

import math

import pytest
import torch
from torch import Tensor, nn

from fedsynth.errors import ConfigError
from fedsynth.generators.catalog import build
from fedsynth.generators.families.diffusion import SPREAD, Denoiser, Diffusion, Path
from fedsynth.generators.family import ImageShape, SeededDraws, Tensors

SHAPE = ImageShape(channels=1, size=(4, 4), n_classes=2, source_channels=1)
TARGET = 0.6


class Knowing(nn.Module):
    """A denoiser that knows the one image there is, and so says its true velocity."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: Tensor, source: Tensor, time: Tensor, label: Tensor) -> Tensor:
        time = time.reshape(-1, 1, 1, 1)
        a, b = self.path.shares(time)
        data = torch.full_like(x, TARGET)
        return self.path.velocity(data, (x - a * data) / b, time)


class Deaf(nn.Module):
    """A denoiser that says what it was told: the label's number plus ten times the mean of the source."""

    def forward(self, x: Tensor, source: Tensor, time: Tensor, label: Tensor) -> Tensor:
        told = label + 10 * source.mean((1, 2, 3))
        return told.reshape(-1, 1, 1, 1).expand_as(x)


class Linear(nn.Module):
    """The best possible denoiser of Gaussian data with deviation `spread` on the cosine path: linear in x."""

    def __init__(self, spread: float) -> None:
        super().__init__()
        self.spread = spread

    def forward(self, x: Tensor, source: Tensor, time: Tensor, label: Tensor) -> Tensor:
        angle = (time * math.pi / 2).reshape(-1, 1, 1, 1)
        a, b, s2 = torch.cos(angle), torch.sin(angle), self.spread**2
        return x * (a * b - b * a * s2) / (a**2 * s2 + b**2)  # a E[noise | x] - b E[data | x]


def a_family(
    denoiser: nn.Module, sampler: str = "ddim", *, steps: int = 5, guidance: float = 1.0, drop: float = 0.0
) -> Diffusion:
    path, ancestral = Path(sampler == "rectified-flow"), sampler == "ddpm"
    return Diffusion(SHAPE, denoiser, path, ancestral=ancestral, steps=steps, guidance=guidance, drop=drop)


def a_condition(n: int) -> Tensors:
    return {"label": torch.eye(2)[torch.arange(n) % 2], "source": torch.full((n, 1, 4, 4), 0.5)}


@pytest.mark.parametrize("straight", [False, True])
def test_the_path_leads_from_data_to_noise(straight: bool) -> None:
    path = Path(straight)
    assert [float(s) for s in path.shares(torch.tensor(0.0))] == pytest.approx([1, 0], abs=1e-6)
    assert [float(s) for s in path.shares(torch.tensor(1.0))] == pytest.approx([0, 1], abs=1e-6)
    middle = [0.5, 0.5] if straight else [math.sqrt(0.5)] * 2
    assert [float(s) for s in path.shares(torch.tensor(0.5))] == pytest.approx(middle)


@pytest.mark.parametrize("straight", [False, True])
def test_data_is_recovered_from_the_velocity_at_every_time(straight: bool) -> None:
    path, draws = Path(straight), SeededDraws(0)
    data, noise, time = draws.normal((50,)), draws.normal((50,)), draws.uniform((50,))
    a, b = path.shares(time)
    x = a * data + b * noise
    torch.testing.assert_close(path.data(x, path.velocity(data, noise, time), time), data, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("straight", [False, True])
def test_the_velocity_is_the_slope_of_the_path(straight: bool) -> None:
    path, time, step = Path(straight), torch.tensor(0.3, dtype=torch.float64), 1e-6
    (a, b), (a_later, b_later) = path.shares(time), path.shares(time + step)
    slope = ((a_later - a) * 2.0 + (b_later - b) * -0.7) / (step * (1 if straight else math.pi / 2))
    data, noise = torch.tensor(2.0, dtype=torch.float64), torch.tensor(-0.7, dtype=torch.float64)
    assert path.velocity(data, noise, time).item() == pytest.approx(slope.item(), rel=1e-4)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "rectified-flow"])
@pytest.mark.parametrize("steps", [1, 7])
def test_the_true_velocity_leads_to_the_image(sampler: str, steps: int) -> None:
    family = a_family(Knowing(Path(sampler == "rectified-flow")), sampler=sampler, steps=steps)
    made = family.sample(a_condition(3), family.noise(3, SeededDraws(0)))
    assert made["image"] == pytest.approx(torch.full((3, 1, 4, 4), TARGET), abs=1e-4)


@pytest.mark.parametrize(("sampler", "steps"), [("ddim", 200), ("ddpm", 300)])
def test_the_samplers_keep_the_spread_of_gaussian_data(sampler: str, steps: int) -> None:
    spread = 0.25
    family = a_family(Linear(spread), sampler=sampler, steps=steps)
    made = family.sample(a_condition(300), family.noise(300, SeededDraws(0)))["image"]
    assert made.std().item() == pytest.approx(spread, rel=0.05)
    assert made.mean().item() == pytest.approx(0, abs=0.01)


def test_ancestral_noise_repeats_and_matters() -> None:
    family = a_family(Linear(0.25), sampler="ddpm", steps=10)
    noise = family.noise(2, SeededDraws(0))
    first = family.sample(a_condition(2), noise)["image"]
    assert torch.equal(first, family.sample(a_condition(2), noise)["image"])
    other = family.sample(a_condition(2), noise | {"seed": noise["seed"] + 1})["image"]
    assert (first - other).abs().max() > 0.01


def test_guidance_of_one_and_zero_by_hand() -> None:
    x, time, condition = torch.zeros(2, 1, 4, 4), torch.full((2,), 0.5), a_condition(2)
    told = {g: a_family(Deaf(), guidance=g).guided(x, time, condition)[:, 0, 0, 0].tolist() for g in (0.0, 1.0, 3.0)}
    assert told[1.0] == pytest.approx([0 + 5, 1 + 5])  # class number and source
    assert told[0.0] == pytest.approx([2, 2])  # the number past the last class, and no source
    assert told[3.0] == pytest.approx([2 + 3 * (5 - 2), 2 + 3 * (6 - 2)])


def test_conditions_are_dropped_as_often_as_asked() -> None:
    family = a_family(Deaf(), drop=0.3)
    batch = a_condition(4) | {"image": torch.zeros(4, 1, 4, 4)}
    noise = family.noise(4, SeededDraws(0)) | {"drop": torch.tensor([0.0, 0.29, 0.3, 0.9]), "time": torch.zeros(4)}
    noise["image"] = torch.zeros(4, 1, 4, 4)
    loss = family.private_loss(family.turns[0], batch, noise, 1.0)  # the wanted velocity is zero: told squared is left
    assert loss.tolist() == pytest.approx([4, 4, 25, 36])


def test_the_loss_by_hand() -> None:
    class Silent(nn.Module):
        def forward(self, x: Tensor, source: Tensor, time: Tensor, label: Tensor) -> Tensor:
            return torch.zeros_like(x)

    family = a_family(Silent())
    batch = a_condition(1) | {"image": torch.full((1, 1, 4, 4), -1.0)}
    noise = {"image": torch.full((1, 1, 4, 4), 2.0), "time": torch.tensor([0.5]), "drop": torch.ones(1)}
    # v = cos(45) * 2 - sin(45) * (-1) = 3 * sqrt(1/2)
    assert family.private_loss(family.turns[0], batch, noise, 1.0).item() == pytest.approx(4.5)


def test_a_sample_without_class_takes_the_number_past_the_last() -> None:
    condition = a_condition(2) | {"label": torch.tensor([[0.0, 0.0], [0.0, 1.0]])}
    condition["source"] = torch.zeros(2, 1, 4, 4)
    told = a_family(Deaf()).guided(torch.zeros(2, 1, 4, 4), torch.full((2,), 0.5), condition)
    assert told[:, 0, 0, 0].tolist() == [2, 1]


@pytest.mark.parametrize("straight", [False, True])
def test_the_linear_guess_is_the_best_one(straight: bool) -> None:
    class Quiet(nn.Module):
        def forward(self, x: Tensor, time: Tensor, context: None, label: None) -> Tensor:
            return torch.zeros_like(x)

    path, draws, n = Path(straight), SeededDraws(0), 100_000
    data, noise, time = SPREAD * draws.normal((n, 1, 1)), draws.normal((n, 1, 1)), torch.full((n,), 0.4)
    a, b = path.shares(torch.tensor(0.4))
    x, wanted = a * data + b * noise, path.velocity(data, noise, torch.tensor(0.4))
    left = wanted - Denoiser(Quiet(), path)(x, None, time, None)
    assert (left * x).mean().item() == pytest.approx(0, abs=0.005)  # nothing linear in x remains
    assert left.std().item() == pytest.approx(SPREAD / math.sqrt((a * SPREAD) ** 2 + b**2), rel=0.01)


def test_no_layer_works_in_place_and_none_is_aliased() -> None:
    family = build("diffusion", ImageShape(channels=1, size=(16, 16)), base=8)
    assert not any(getattr(module, "inplace", False) for module in family.modules())
    assert len(list(family.named_modules(remove_duplicate=False))) == len(list(family.named_modules()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "dddim"}, r"unknown sampler \(found 'dddim'\); did you mean 'ddim'\?"),
        ({"steps": 0}, "at least one sampling step"),
        ({"drop": 1.0}, "drop below 1"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build("diffusion", ImageShape(channels=1, size=(16, 16)), **options)
