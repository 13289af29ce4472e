"""How a family is trained when the user says nothing. Loads no network library: settings are read before torch is."""

from dataclasses import dataclass, field, replace
from typing import Literal

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Steps, images per step and the optimiser's settings.

    Learning rates by network, falling to zero over the last `decay` of the run; `ema` is a half-life in steps.
    `precision` is what a plain run computes in where the CPU or GPU has it.
    """

    steps: int = 3000
    batch: int = 16
    rate: float = 2e-4
    rates: dict[str, float] = field(default_factory=dict)
    betas: tuple[float, float] = (0.5, 0.99)
    ema: float = 50.0
    decay: float = 0.25
    augment: bool = True
    precision: Precision = "float32"

    def slower(self, factor: float) -> "Recipe":
        """The same with all learning rates times a factor."""
        return replace(self, rate=factor * self.rate, rates={net: factor * rate for net, rate in self.rates.items()})


PRIVATE = Recipe(
    steps=400, batch=128, rates={"discriminator": 2e-3, "generator": 4e-4}, betas=(0.5, 0.99), ema=50.0, augment=False
)
"""Few large steps: noise falls with the patients drawn in a step, and every step is paid for."""

PRIVATE_STARTED = replace(PRIVATE, steps=200, rates={"discriminator": 2e-4, "generator": 1e-4})
"""From networks that know brains already: a few small steps. Longer or faster ones lead away again, measured."""
