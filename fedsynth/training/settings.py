"""What a training run is told, resolved: the user's words over the family's recipe."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from fedsynth.errors import ConfigError
from fedsynth.generators.catalog import Precision, Recipe
from fedsynth.privacy.plan import PrivateSettings

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, kw_only=True)
class Privacy:
    """What a private run declares in public, before it sees a patient. `patients` is a round number near the truth.

    `draw` is the expected number of patients in a step. `insecure_seed` makes the run repeatable, and NOT PRIVATE.
    """

    epsilon: float
    patients: int
    delta: float = 1e-5
    draw: int | None = None
    clip: float = 1.0
    views: int = 1
    fakes: int = 128
    insecure_seed: int | None = None
    store: Path | None = None

    def settings(self) -> PrivateSettings:
        """As the door wants it; a quarter of the patients are drawn where nothing else is said."""
        draw = max(1, round(self.patients / 4)) if self.draw is None else self.draw
        return PrivateSettings(
            epsilon=self.epsilon,
            delta=self.delta,
            patients=self.patients,
            batch=draw,
            clip=self.clip,
            views=self.views,
        )


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """One run of one data holder. What is None takes the family's recipe; `options` goes to the family as it is,
    `pairing` says what a paired family turns into what. `start` is a run whose networks this one goes on from,
    `public_start` declares that its images were public. `private_networks` gives a plain run the networks of a private
    one, which can then go on from it. One CPU thread repeats to the bit, and more are seldom faster for networks of
    this size, never on a busy machine."""

    generator: str
    images: Path
    steps: int | None = None
    batch: int | None = None
    rate: float | None = None
    pairing: str = ""
    start: Path | None = None
    public_start: bool = False
    private_networks: bool = False
    seed: int = 0
    device: Device = "auto"
    precision: Precision | None = None
    threads: int = 1
    sheets: int = 5
    options: dict[str, Any] = field(default_factory=dict)
    privacy: Privacy | None = None

    def __post_init__(self) -> None:
        for name, value in (("steps", self.steps), ("batch", self.batch), ("threads", self.threads)):
            if value is not None and value < 1:
                raise ConfigError(f"--{name} must be at least 1", value=value)
        if self.privacy is not None:
            self.privacy.settings()  # checks the declared numbers before anything is opened
            if self.batch is not None:
                raise ConfigError("--batch is for plain runs", remedy="give --draw, the expected patients per step")
            if self.pairing:
                remedy = "train a joint family privately, or the pairing without --epsilon"
                raise ConfigError(
                    "paired families read patients as sources too and are not trained privately", remedy=remedy
                )
        if self.private_networks and self.pairing:
            raise ConfigError("paired families have no private networks", remedy="leave out --private-networks")
        if self.rate is not None and not 0 < self.rate < 1:
            raise ConfigError("--rate must lie between 0 and 1", value=self.rate)

    def over(self, recipe: Recipe) -> Recipe:
        """The recipe with what was said put in its place; a given rate holds for every network."""
        changed = replace(recipe, steps=self.steps or recipe.steps, batch=self.batch or recipe.batch)
        return changed if self.rate is None else replace(changed, rate=self.rate, rates={})


def open_device(wanted: Device) -> torch.device:
    """The device of that name; asking for CUDA where there is none is an error, not a slow surprise."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("CUDA was asked for and there is none", remedy="give --device cpu, or leave --device away")
    name = "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"
    return torch.device(name)


def computes_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 numbers itself; elsewhere they are slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """torch computes with so many threads during the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
