"""Diffusion by hand: the two paths and their ends, samplers against known answers, guidance, dropped conditions."""

import math

import pytest
import torch
from torch import Tensor, nn

from fedsynth.errors import ConfigError
from fedsynth.models.base import ImageShape, SeededSource, Tensors
from fedsynth.models.generators.catalog import build
from fedsynth.models.generators.diffusion import Denoiser, Diffusion, shares

SHAPE = ImageShape(channels=1, size=(4, 4), n_classes=2, source_channels=1)
TARGET = 0.6


class Knowing(nn.Module):
    """A denoiser that knows the one image there is."""

    def forward(self, x: Tensor, source: Tensor, time: Tensor, label: Tensor) -> Tensor:
        return torch.full_like(x, TARGET)


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
        return x * a * s2 / (a**2 * s2 + b**2)  # the expected data given x


def a_family(
    denoiser: nn.Module, sampler: str = "ddim", *, steps: int = 5, guidance: float = 1.0, drop: float = 0.0
) -> Diffusion:
    straight, ancestral = sampler == "rectified-flow", sampler == "ddpm"
    return Diffusion(SHAPE, denoiser, straight=straight, ancestral=ancestral, steps=steps, guidance=guidance, drop=drop)


def a_condition(n: int) -> Tensors:
    return {"label": torch.eye(2)[torch.arange(n) % 2], "source": torch.full((n, 1, 4, 4), 0.5)}


@pytest.mark.parametrize("straight", [False, True])
def test_the_path_leads_from_data_to_noise(straight: bool) -> None:
    ends = [torch.stack(shares(torch.tensor(time), straight=straight)).tolist() for time in (0.0, 0.5, 1.0)]
    assert ends[0] == pytest.approx([1, 0], abs=1e-6)
    assert ends[1] == pytest.approx([0.5, 0.5] if straight else [math.sqrt(0.5)] * 2)
    assert ends[2] == pytest.approx([0, 1], abs=1e-6)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "rectified-flow"])
@pytest.mark.parametrize("steps", [1, 7])
def test_who_knows_the_image_gets_it(sampler: str, steps: int) -> None:
    family = a_family(Knowing(), sampler=sampler, steps=steps)
    made = family.sample(a_condition(3), family.noise(3, SeededSource(0)))
    assert made["image"] == pytest.approx(torch.full((3, 1, 4, 4), TARGET), abs=1e-4)


@pytest.mark.parametrize(("sampler", "steps"), [("ddim", 200), ("ddpm", 300)])
def test_the_samplers_keep_the_spread_of_gaussian_data(sampler: str, steps: int) -> None:
    spread = 0.25
    family = a_family(Linear(spread), sampler=sampler, steps=steps)
    made = family.sample(a_condition(300), family.noise(300, SeededSource(0)))["image"]
    assert made.std().item() == pytest.approx(spread, rel=0.05)
    assert made.mean().item() == pytest.approx(0, abs=0.01)


def test_ancestral_noise_repeats_and_matters() -> None:
    family = a_family(Linear(0.25), sampler="ddpm", steps=10)
    noise = family.noise(2, SeededSource(0))
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
    noise = family.noise(4, SeededSource(0)) | {"drop": torch.tensor([0.0, 0.29, 0.3, 0.9]), "time": torch.zeros(4)}
    noise["image"] = torch.zeros(4, 1, 4, 4)
    loss = family.real_loss(family.phases[0], batch, noise, 1.0)  # the data are zero: told squared over least noise
    assert loss.tolist() == pytest.approx([40, 40, 250, 360])


def test_the_loss_by_hand() -> None:
    class Silent(nn.Module):
        def forward(self, x: Tensor, source: Tensor, time: Tensor, label: Tensor) -> Tensor:
            return torch.zeros_like(x)

    family = a_family(Silent())
    batch = a_condition(1) | {"image": torch.full((1, 1, 4, 4), -1.0)}
    noise = {"image": torch.full((1, 1, 4, 4), 2.0), "time": torch.tensor([0.5]), "drop": torch.ones(1)}
    # the guess is 0, the data -1, the share of noise sin(45)
    assert family.real_loss(family.phases[0], batch, noise, 1.0).item() == pytest.approx(math.sqrt(2))


def test_a_sample_without_class_takes_the_number_past_the_last() -> None:
    condition = a_condition(2) | {"label": torch.tensor([[0.0, 0.0], [0.0, 1.0]])}
    condition["source"] = torch.zeros(2, 1, 4, 4)
    told = a_family(Deaf()).guided(torch.zeros(2, 1, 4, 4), torch.full((2,), 0.5), condition)
    assert told[:, 0, 0, 0].tolist() == [2, 1]


@pytest.mark.parametrize("straight", [False, True])
def test_the_denoiser_starts_from_the_point_where_there_is_little_noise(straight: bool) -> None:
    class Quiet(nn.Module):
        def forward(self, x: Tensor, time: Tensor, context: None, label: None) -> Tensor:
            return torch.zeros_like(x)

    x = torch.tensor([[[-0.5, 0.2]], [[-0.5, 0.2]]])
    found = Denoiser(Quiet(), straight=straight)(x, None, torch.tensor([0.0, 1.0]), None)
    torch.testing.assert_close(found[0], x[0])
    torch.testing.assert_close(found[1], torch.zeros(1, 2), atol=1e-6, rtol=0)


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
