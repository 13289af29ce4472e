"""Kernels that lie channels last in memory: the numbers of a run are the same wherever its state has been."""

from pathlib import Path

import pytest
import torch

from fedsynth.training import trainer as module
from fedsynth.training.checkpoint import load_state, save_state
from fedsynth.training.session import prepare
from fedsynth.training.settings import TrainSettings
from fedsynth.training.trainer import Trainer
from tests.training.tiny import tiny_set


def dcgan() -> Trainer:
    return begun("dcgan")


def begun(generator: str) -> Trainer:
    settings = TrainSettings(generator=generator, images=Path("set"), steps=6, batch=4, device="cpu")
    return prepare(tiny_set(size=16), settings).trainer


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.family.nets.state_dict().items()}


def kernels(trainer: Trainer) -> list[torch.Tensor]:
    return [one for one in trainer.family.parameters() if one.dim() == 4 and one.shape[1] > 1 < one.shape[2]]


def test_kernels_of_plain_training_lie_so_and_stay_so() -> None:
    trainer = dcgan()
    list(trainer.run(2))
    assert kernels(trainer)
    for kernel in kernels(trainer):
        assert kernel.is_contiguous(memory_format=torch.channels_last)
        assert not kernel.is_contiguous()


@pytest.mark.parametrize("generator", ["dcgan", "two-stage"])
def test_a_resumed_run_goes_on_to_the_same_bits(tmp_path: Path, generator: str) -> None:
    whole, first, second = begun(generator), begun(generator), begun(generator)
    list(whole.run(6))
    list(first.run(3))
    save_state(tmp_path / "state.safetensors", first, generator)
    load_state(tmp_path / "state.safetensors", second, generator)
    list(second.run(3))
    for name, value in weights(whole).items():
        assert torch.equal(weights(second)[name], value), name


def test_a_gradient_that_came_in_another_order_is_the_same_update() -> None:
    """As one that a server sends."""
    own, sent = dcgan(), dcgan()
    rng = torch.Generator().manual_seed(0)
    parameters = list(own.family.nets["generator"].parameters())
    gradient = [torch.randn(one.shape, generator=rng) for one in parameters]
    own.apply("generator", [module.laid_out_as(*pair) for pair in zip(parameters, gradient, strict=True)])
    sent.apply("generator", gradient)
    for name, value in weights(own).items():
        assert torch.equal(weights(sent)[name], value), name


def test_the_numbers_are_those_of_the_usual_order(monkeypatch: pytest.MonkeyPatch) -> None:
    here = dcgan()
    monkeypatch.setattr(module, "lay_channels_last", lambda family: None)
    usual = dcgan()
    assert not kernels(usual)[0].is_contiguous(memory_format=torch.channels_last)
    for one, other in zip(here.run(1), usual.run(1), strict=True):
        assert one.losses == pytest.approx(other.losses, rel=1e-5)
