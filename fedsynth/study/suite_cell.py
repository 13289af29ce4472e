"""A cell of a suite: one way of sharing as the commands that a person could type, in order. It runs none of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsynth.federation.settings import PRIVATE_KEYS

POOLED = "pooled"
SOURCE, PHANTOMS = "source", "phantoms"
"""What a generator of one holder that turns label maps into images starts from: a set, or phantoms of their own."""

SHARING = ("partition", "sites")
"""How the set is shared out: one holder of all images does not."""

POOLED_KEYS = ("generator", "batch", "rate", "pairing", "seed", "device", "options", *PRIVATE_KEYS)
ROUNDS, LOCAL_STEPS, PRIVATE_STEPS, COUNT = 40, 50, 10, 400  # what `fedsynth simulate` takes for what is not said


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What it is called, its settings, how it is measured, and how many members it trains on; None stands for all."""

    name: str
    settings: Mapping[str, Any]
    benchmarks: Mapping[str, Mapping[str, Any]]
    members: int | None = None

    @property
    def epsilon(self) -> float:
        """The budget that it spends; 0 for a plain one."""
        return float(self.settings.get("epsilon", 0))

    @property
    def pooled(self) -> bool:
        """One holder has all images."""
        return self.settings.get("federation") == POOLED

    @property
    def steps(self) -> int:
        """Steps of each hospital over the whole run."""
        few = PRIVATE_STEPS if self.epsilon and not self.pooled else LOCAL_STEPS
        return int(self.settings.get("rounds", ROUNDS)) * int(self.settings.get("local-steps", few))

    def commands(self, data: Path, run: Path) -> dict[str, list[str]]:
        """What a person would type, by the file that each leaves behind in `run`, in order."""
        if self.pooled:
            made = self._pooled(data, run)
        else:
            simulate = ["simulate", "--data", str(data), "--run", str(run), *options(self.settings)]
            made = {"synthetic/imageset.toml": simulate}
        for name, given in self.benchmarks.items():
            made[f"benchmarks/{name}.json"] = ["benchmark", name, str(run), *options(given)]
        return made

    def _pooled(self, data: Path, run: Path) -> dict[str, list[str]]:
        """One holder trains as many steps as each hospital would."""
        left = {key: value for key, value in self.settings.items() if key in POOLED_KEYS}
        train = ["train", str(data), "--run", str(run), "--steps", str(self.steps), *options(left)]
        count, out = str(self.settings.get("count", COUNT)), str(run / "synthetic")
        draw = ["synthesize", str(run), "--count", count, "--out", out]
        if source := self.settings.get(SOURCE):
            draw += ["--source", str(data.with_name(SOURCE) if source == PHANTOMS else Path(source).resolve())]
        return {"checkpoints/generator.toml": train, "synthetic/imageset.toml": draw}


def options(settings: Mapping[str, Any]) -> list[str]:
    """Settings as command line options."""
    given: list[str] = []
    for key, value in settings.items():
        if key == "options":
            given += [part for name, one in value.items() for part in ("--option", f"{name}={one}")]
        elif isinstance(value, bool):
            given += [f"--{key}"] if value else []
        elif isinstance(value, list):
            given += [f"--{key}", ",".join(map(str, value))]
        elif value is not None:
            given += [f"--{key}", str(value)]
    return given


def cell_name(varied: Mapping[str, Any]) -> str:
    """What differs from other cells, fit for the name of a folder."""
    parts = []
    for key, value in varied.items():
        plain = key == "epsilon" and not value
        parts.append("plain" if plain else str(value) if isinstance(value, str) else f"{key}-{value}")
    return "_".join(parts).replace("/", "-").replace(":", "-") or "cell"
