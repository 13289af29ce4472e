"""A suite as a TOML file: which data, which settings hold for every cell, and what is varied between cells.

Keys are spelled as the options of `fedsynth simulate` and of the benchmarks: a cell is a list of commands that a
person could type.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fedsynth.config import load_toml
from fedsynth.errors import ConfigError, nearest
from fedsynth.federation.settings import PRIVATE_KEYS, run_config_keys

POOLED = "pooled"
NOT_FOR_CELLS = ("run", "sites", "insecure-seed")
BENCHMARKS = ("memorization", "membership", "segmentation", "classification", "fidelity")


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A grid of cells. Either `images` names an image set with roles, or `phantom` holds options of `fedsynth phantom`.

    `settings` hold for all cells, `private` goes over them in those with an epsilon; `grid` maps a setting to the
    values that it takes: an epsilon of 0 is a plain cell, the federation `pooled` one holder of all images.
    `benchmarks` maps each benchmark to its options.
    """

    name: str
    about: str = ""
    images: Path | None = None
    phantom: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    private: dict[str, Any] = field(default_factory=dict)
    grid: dict[str, Any] = field(default_factory=dict)
    benchmarks: dict[str, Any] = field(default_factory=dict)
    published: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = [key for key in (*run_config_keys(), "partition") if key not in NOT_FOR_CELLS]
        for where, table in (("settings", self.settings), ("grid", self.grid), ("private", self.private)):
            for key in table:
                if key not in known:
                    raise ConfigError(f"unknown key {where + '.' + key!r}", remedy=nearest(key, known))
        for name in self.benchmarks:
            if name not in BENCHMARKS:
                raise ConfigError("there is no such benchmark", value=name, remedy=nearest(name, BENCHMARKS))
            if not isinstance(self.benchmarks[name], dict):
                raise ConfigError(f"'benchmarks.{name}' is a table of options", value=self.benchmarks[name])
        for key, values in self.grid.items():
            if not isinstance(values, list) or not values:
                raise ConfigError(f"'grid.{key}' has no value", value=values, remedy="give a list")
        if self.images is not None and self.phantom:
            raise ConfigError("'images' and 'phantom' exclude each other")
        epsilons = self.grid.get("epsilon", [self.settings.get("epsilon", 0)])
        if any(epsilons) and "patients" not in self.private and "patients" not in self.settings:
            remedy = "give [private] patients = N, the declared number at each hospital"
            raise ConfigError("a private cell needs the declared number of patients", remedy=remedy)

    def cells(self) -> Iterator["Cell"]:
        """Every combination, the last key of the grid varying fastest."""
        for values in itertools.product(*self.grid.values()):
            varied = dict(zip(self.grid, values, strict=True))
            yield Cell(name=_name(varied), settings=self._settings(varied), benchmarks=self.benchmarks)

    def _settings(self, varied: Mapping[str, Any]) -> dict[str, Any]:
        settings = {**self.settings, **varied}
        if settings.get("epsilon"):
            return {**settings, **self.private}
        settings.pop("epsilon", None)
        return settings


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One way of sharing: what it is called, its settings, and how it is measured."""

    name: str
    settings: Mapping[str, Any]
    benchmarks: Mapping[str, Mapping[str, Any]]

    @property
    def epsilon(self) -> float:
        """The budget that it spends; 0 for a plain one."""
        return float(self.settings.get("epsilon", 0))

    def commands(self, data: Path, run: Path) -> dict[str, list[str]]:
        """What a person would type, by the file that each leaves behind, in order."""
        if self.settings.get("federation") == POOLED:
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
        steps = int(self.settings.get("rounds", 40)) * int(self.settings.get("local-steps", 50))
        train = ["train", str(data), "--run", str(run), "--steps", str(steps), *options(left)]
        count, out = str(self.settings.get("count", 400)), str(run / "synthetic")
        return {
            "checkpoints/generator.toml": train,
            "synthetic/imageset.toml": ["synthesize", str(run), "--count", count, "--out", out],
        }


POOLED_KEYS = ("generator", "batch", "rate", "pairing", "seed", "device", "options", *PRIVATE_KEYS)


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


def load_suite(path: Path) -> Suite:
    """The suite in a file; paths in it are relative to the file."""
    suite = load_toml(Suite, path)
    if suite.images is None or suite.images.is_absolute():
        return suite
    return replace(suite, images=(path.parent / suite.images).resolve())


def _name(varied: Mapping[str, Any]) -> str:
    parts = []
    for key, value in varied.items():
        plain = key == "epsilon" and not value
        parts.append("plain" if plain else str(value) if isinstance(value, str) else f"{key}-{value}")
    return "_".join(parts).replace("/", "-").replace(":", "-") or "cell"
