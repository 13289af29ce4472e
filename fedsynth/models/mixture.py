"""Samplers that several sites trained apart, drawn from by shares: what a one-shot federation releases."""

from collections.abc import Sequence
from typing import Any

import torch

from fedsynth.models.base import Family, Phase, RandomSource, Tensors


class SiteMixture(Family):
    """Networks are named `<number>-<network>`; it takes no step."""

    phases: tuple[Phase, ...] = ()
    shared: tuple[str, ...] = ()

    def __init__(self, families: Sequence[Family], shares: Sequence[float]) -> None:
        nets = {f"{number}-{name}": net for number, one in enumerate(families) for name, net in one.nets.items()}
        super().__init__(families[0].shape, nets)
        self.families = tuple(families)
        self._edges = torch.tensor(shares, dtype=torch.float64).cumsum(0)
        self.sampler = tuple(f"{number}-{name}" for number, one in enumerate(families) for name in one.sampler)

    def consists_of(self) -> dict[str, Any]:
        """See `Family`: all sites have the same public images."""
        return self.families[0].consists_of()

    def noise(self, n: int, rng: RandomSource) -> Tensors:
        """Whose sampler is taken, and the noise of any of them."""
        return {"member": rng.uniform((n,))} | self.families[0].noise(n, rng)

    def sample(self, condition: Tensors, noise: Tensors) -> Tensors:
        """Each image by the sampler of one site."""
        chosen = (noise["member"].cpu()[:, None] * self._edges[-1] >= self._edges).sum(1)
        made: Tensors = {}
        for number, family in enumerate(self.families):
            rows = (chosen == number).nonzero()[:, 0].to(noise["member"].device)
            if not len(rows):
                continue
            own = family.sample(*({name: value[rows] for name, value in part.items()} for part in (condition, noise)))
            for name, value in own.items():
                made.setdefault(name, value.new_empty(len(chosen), *value.shape[1:]))[rows] = value
        return made
