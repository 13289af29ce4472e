"""A suite as a TOML file: which data, which settings hold for every cell, and what is varied between cells.

Keys are spelled as the options of `fedsynth simulate` and of the benchmarks.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from fedsynth.config import key_of, load_toml
from fedsynth.data.phantoms.settings import PhantomSettings
from fedsynth.errors import ConfigError, nearest
from fedsynth.evaluation.settings import (
    ClassificationSettings,
    FidelitySettings,
    MembershipSettings,
    MemorizationSettings,
    SegmentationSettings,
)
from fedsynth.experiments.suite_steps import BENCHMARK, Step
from fedsynth.federation.settings import (
    LOCAL_STEPS,
    PRIVATE_KEYS,
    PRIVATE_STEPS,
    ROUNDS,
    FederationSettings,
    length_of,
    run_config_keys,
)

CENTRALISED, IMAGES = "centralised", "synthetic/imageset.toml"
SOURCE, PHANTOMS = "source", "phantoms"
"""What a generator of one site that turns label maps into images starts from: a set, or phantoms of their own."""

SHARING = ("partition", "sites")
"""How the set is shared out: one site with all images does not."""

STARTING = ("start", "start-steps")
POOLED_KEYS = ("generator", "batch", "rate", "pairing", *STARTING, "seed", "device", "options", *PRIVATE_KEYS)


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
        """One site has all images."""
        return self.settings.get("federation") == CENTRALISED

    @property
    def steps(self) -> int:
        """Steps of each hospital over the whole run."""
        few = PRIVATE_STEPS if self.epsilon and not self.pooled else LOCAL_STEPS
        of_family = length_of(str(self.settings.get("generator", "")))
        said = {"rounds": ROUNDS, "local-steps": few, **of_family, **self.settings}
        return int(said["rounds"]) * int(said["local-steps"])

    def work(self, data: Path, run: Path) -> dict[str, Step]:
        """The steps by the file that each leaves behind in `run`, in order."""
        if self.pooled:
            made = self._pooled(data, run)
        else:
            made = {IMAGES: Step(verb="simulate", settings={"data": str(data), "run": str(run), **self.settings})}
        for name, given in self.benchmarks.items():
            made[f"benchmarks/{name}.json"] = Step(verb=BENCHMARK + name, arguments=(run,), settings=given)
        return made

    def _pooled(self, data: Path, run: Path) -> dict[str, Step]:
        """One site trains as many steps as each hospital would."""
        left = {key: value for key, value in self.settings.items() if key in POOLED_KEYS}
        training = {"run": str(run), "steps": self.steps, **left}
        drawing = {"count": self.settings.get("count", FederationSettings.count), "out": str(run / "synthetic")}
        if source := self.settings.get(SOURCE):
            drawing[SOURCE] = str(data.with_name(SOURCE) if source == PHANTOMS else Path(source).resolve())
        return {
            "checkpoints/generator.toml": Step(verb="train", arguments=(data,), settings=training),
            IMAGES: Step(verb="synthesize", arguments=(run,), settings=drawing),
        }


def cell_name(varied: Mapping[str, Any]) -> str:
    """What differs from other cells, fit for the name of a folder."""
    parts = []
    for key, value in varied.items():
        plain = key == "epsilon" and not value
        parts.append("plain" if plain else str(value) if isinstance(value, str) else f"{key}-{value}")
    return "_".join(parts).replace("/", "-").replace(":", "-") or "cell"


NOT_FOR_CELLS = ("run", "insecure-seed", "public-start", "trackers")
MEMBERS, MEASURED_BY, NAME = "members", "measured-by", "name"
BENCHMARKS: dict[str, tuple[type, tuple[str, ...]]] = {
    "memorization": (MemorizationSettings, ()),
    "membership": (MembershipSettings, ("reference",)),
    "segmentation": (SegmentationSettings, ("public", "placebo")),
    "classification": (ClassificationSettings, ("public", "placebo")),
    "fidelity": (FidelitySettings, ()),
}
"""Each benchmark with its settings, and the further sets that it takes."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One published number: what it is, its text, and where ours stands: `benchmark.score` in cells named as `cells`.

    `cells` is a pattern, as in `stylegan*`. Without `ours` there is nothing here to put beside it.
    """

    what: str
    value: str
    ours: str = ""
    cells: str = "*"
    source: str = ""

    def __post_init__(self) -> None:
        benchmark, dot, _ = self.ours.partition(".")
        if self.ours and (not dot or benchmark not in BENCHMARKS):
            remedy = "write benchmark.score, as in segmentation.dice/synthetic"
            raise ConfigError("'ours' names no score of a benchmark", value=self.ours, remedy=remedy)


@dataclass(frozen=True, kw_only=True)
class Published:
    """What others reported, from which source, and what is different here, in sentences."""

    source: str = ""
    figures: tuple[Figure, ...] = ()
    differs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Grids of cells. Either `images` names an image set with roles, or `phantom` holds options of `fedsynth phantom`.

    `settings` hold for all cells; over them go those of `by_generator`, what the grid varies, and in cells with an
    epsilon those of `private`. `grid` maps a setting to the values that it takes: an epsilon of 0 is a plain cell,
    the federation `centralised` one site with all images, and `members` how many member patients are trained on
    (holdout and reference stay as they are). `source` is what a centralised generator that turns label maps into images
    starts from: an image set, or `phantoms` who are nobody else's. A grid's `measured-by` names the benchmarks of its
    cells; without it all are run. Its `name` is what its cell is called in tables; of several cells it is followed by
    what differs. `benchmarks` maps each benchmark to its options.
    """

    name: str
    about: str = ""
    images: Path | None = None
    phantom: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    private: dict[str, Any] = field(default_factory=dict)
    by_generator: dict[str, dict[str, Any]] = field(default_factory=dict)
    grid: dict[str, Any] | tuple[dict[str, Any], ...] = field(default_factory=dict)
    benchmarks: dict[str, Any] = field(default_factory=dict)
    published: Published = field(default_factory=Published)

    def __post_init__(self) -> None:
        known = [key for key in (*run_config_keys(), "partition", SOURCE) if key not in NOT_FOR_CELLS]
        of_families = {f"by-generator.{name}": table for name, table in self.by_generator.items()}
        for where, table in {"settings": self.settings, "private": self.private, **of_families}.items():
            _refuse_unknown(where, table, known)
        for name in self.benchmarks:
            if name not in BENCHMARKS:
                raise ConfigError("there is no such benchmark", value=name, remedy=nearest(name, BENCHMARKS))
            if not isinstance(self.benchmarks[name], dict):
                raise ConfigError(f"'benchmarks.{name}' is a table of options", value=self.benchmarks[name])
            kind, sets = BENCHMARKS[name]
            _refuse_unknown(f"benchmarks.{name}", self.benchmarks[name], [*_keys(kind), *sets])
        _refuse_unknown(
            "phantom", self.phantom, [*(key for key in _keys(PhantomSettings) if key != "shares"), "workers"]
        )
        for grid in self.grids:
            _refuse_unknown("grid", grid, [*known, MEMBERS, MEASURED_BY, NAME])
            _check_name(grid.get(NAME, "cell"))
            for key, values in grid.items():
                if key != NAME and not (isinstance(values, list) and values):
                    raise ConfigError(f"'grid.{key}' has no value", value=values, remedy="give a list")
            _refuse_unknown(f"grid.{MEASURED_BY}", dict.fromkeys(grid.get(MEASURED_BY, [])), list(self.benchmarks))
        if self.images is not None and self.phantom:
            raise ConfigError("'images' and 'phantom' exclude each other")
        self._check_cells()

    def _check_cells(self) -> None:
        cells = list(self.cells())
        names = [cell.name for cell in cells]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ConfigError("two cells are alike", value=twice[0], remedy="vary something else, or leave one out")
        if any(cell.epsilon and "patients" not in cell.settings for cell in cells):
            remedy = "give [private] patients = N, the declared number at each hospital"
            raise ConfigError("a private cell needs the declared number of patients", remedy=remedy)
        for cell in cells:
            way = str(cell.settings.get("partition", "natural"))
            if way != "natural" and "sites" not in cell.settings and not cell.pooled:
                remedy = "give [settings] sites = N"
                raise ConfigError("a partition needs the number of hospitals", value=way, remedy=remedy)
            if (start := cell.settings.get("start", PHANTOMS)) != PHANTOMS:
                raise ConfigError("a cell goes on from no other run", value=start, remedy=f'give start = "{PHANTOMS}"')
            if source := cell.settings.get(SOURCE):
                if not cell.pooled:
                    problem = "a source is for the generator of one site"
                    raise ConfigError(problem, value=source, remedy='give federation = "centralised"')
                if source == PHANTOMS and self.images is not None:
                    raise ConfigError("the source 'phantoms' is for suites of phantoms", remedy="name an image set")
        families = {cell.settings.get("generator") for cell in cells}
        for name in self.by_generator:
            if name not in families:
                remedy = nearest(name, map(str, families))
                raise ConfigError(f"[by-generator.{name}] is of a generator that no cell has", remedy=remedy)

    def cells(self) -> Iterator[Cell]:
        """Every combination of every grid, the last key of a grid varying fastest."""
        for grid in self.grids:
            asked = grid.get(MEASURED_BY, self.benchmarks)
            measured = {name: given for name, given in self.benchmarks.items() if name in asked}
            axes = {key: values for key, values in grid.items() if key not in (MEASURED_BY, NAME)}
            several = {key for key, values in axes.items() if NAME not in grid or len(values) > 1}
            for values in itertools.product(*axes.values()):
                varied = dict(zip(axes, values, strict=True))
                differs = {key: value for key, value in varied.items() if key in several}
                parts = [grid[NAME]] if NAME in grid else []
                parts += [cell_name(differs)] if differs or not parts else []
                name, members = ", ".join(parts), varied.pop(MEMBERS, None)
                yield Cell(name=name, settings=self._settings(varied), benchmarks=measured, members=members)

    @property
    def grids(self) -> tuple[dict[str, Any], ...]:
        """The grids; no varied key at all is one cell."""
        return (self.grid,) if isinstance(self.grid, dict) else self.grid

    def _settings(self, varied: Mapping[str, Any]) -> dict[str, Any]:
        family = str({**self.settings, **varied}.get("generator", ""))
        settings = {**self.settings, **self.by_generator.get(family, {}), **varied}
        if settings.get("partition", "natural") == "natural" or settings.get("federation") == CENTRALISED:
            settings = {key: value for key, value in settings.items() if key not in SHARING}
        if settings.get("epsilon"):
            return {**settings, **self.private}
        settings.pop("epsilon", None)
        return settings


def load_suite(path: Path) -> Suite:
    """The suite in a file; paths in it are relative to the file."""
    suite = load_toml(Suite, path)
    if suite.images is None or suite.images.is_absolute():
        return suite
    return replace(suite, images=(path.parent / suite.images).resolve())


def _check_name(name: Any) -> None:
    """It becomes the name of a folder."""
    if not isinstance(name, str) or not name or "/" in name or name.startswith("."):
        raise ConfigError("'grid.name' is no name of a folder", value=name, remedy="give a text without a slash")


def _keys(kind: type, *, leave_out: tuple[str, ...] = ()) -> list[str]:
    return [key_of(one.name) for one in fields(kind) if one.name not in leave_out]


def _refuse_unknown(where: str, table: Mapping[str, Any], known: list[str]) -> None:
    for key in table:
        if key not in known:
            raise ConfigError(f"unknown key {where + '.' + key!r}", remedy=nearest(key, known))
