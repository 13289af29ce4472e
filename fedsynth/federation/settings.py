"""What a federation is told, resolved; the same values as TOML and as Flower's run config, with nothing lost.

Everything that changes the result stands here. Where and how fast it runs (engine, workers) does not.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from fedsynth import config
from fedsynth.errors import ConfigError
from fedsynth.federation.averaging import make_averaging, proximal_strength
from fedsynth.federation.faults import Faults
from fedsynth.generators.catalog import find
from fedsynth.training.preparing import recipe_of
from fedsynth.training.settings import Device, Privacy, TrainSettings

Share = Literal["all", "generator"]
Way = Literal["average", "none", "central-generator", "one-shot"]
Scalar = bool | int | float | str
RUN, NODES, TABLES = "run", "nodes", ("options", "strategy-options")
PRIVATE_KEYS = tuple(entry.name.replace("_", "-") for entry in fields(Privacy))


@dataclass(frozen=True, kw_only=True)
class FederationSettings:
    """One run of several hospitals. `sites` is how many are expected, `min_sites` how many must answer in a round.

    `deadline` is in seconds, for one round. `weighting` is `auto` (by patients in plain runs, uniform in private ones),
    `uniform`, `patients` or `declared:NAME=N,...`, the sites' public sizes. What is None takes the family's recipe.
    """

    generator: str = "dcgan"
    sites: int = 4
    rounds: int = 40
    local_steps: int = 50
    strategy: str = "fedavg"
    strategy_options: dict[str, float] = field(default_factory=dict)
    share: Share = "all"
    federation: Way = "average"
    weighting: str = "auto"
    min_sites: int | None = None
    deadline: float | None = None
    inject: str = ""
    count: int = 400
    batch: int | None = None
    rate: float | None = None
    pairing: str = ""
    seed: int = 0
    device: Device = "cpu"
    options: dict[str, Any] = field(default_factory=dict)
    privacy: Privacy | None = None

    def __post_init__(self) -> None:
        for name in ("sites", "rounds", "local_steps", "count"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least 1", value=getattr(self, name))
        if self.min_sites is not None and not 1 <= self.min_sites <= self.sites:
            remedy = f"take 1 to {self.sites}"
            raise ConfigError("--min-sites must lie within the number of sites", value=self.min_sites, remedy=remedy)
        if self.deadline is not None and not self.deadline > 0:
            raise ConfigError("--deadline must be a positive number of seconds", value=self.deadline)
        make_averaging(self.strategy, self.strategy_options)
        Faults.parse(self.inject)
        _ = self.declared
        if self.weighting == "patients" and self.privacy is not None:
            remedy = "take uniform, or declared:NAME=N,..."
            raise ConfigError("a private run never weights by patients: their number would leave", remedy=remedy)
        if self.federation == "central-generator" and self.strategy != "fedavg":
            problem = "a generator at the server takes steps along the sites' gradients and has no strategy"
            raise ConfigError(problem, value=self.strategy, remedy="leave --strategy away")
        self.training()  # checks what belongs to the sites

    def training(self) -> TrainSettings:
        """What each site is told: the whole run, so that budgets and schedules know its length."""
        return TrainSettings(
            generator=self.generator,
            images=Path(),
            steps=self.total_steps,
            batch=self.batch,
            rate=self.rate,
            pairing=self.pairing,
            seed=self.seed,
            device=self.device,
            sheets=0,
            options=self.options,
            privacy=self.privacy,
        )

    @property
    def total_steps(self) -> int:
        """Steps of each site over all rounds."""
        return self.rounds * self.local_steps

    @property
    def exchange_steps(self) -> int:
        """Steps between two messages: a generator at the server needs an answer after every one."""
        return 1 if self.federation == "central-generator" else self.local_steps

    @property
    def quorum(self) -> int:
        """How many sites must answer: most of them where nothing is said."""
        return self.sites // 2 + 1 if self.min_sites is None else self.min_sites

    @property
    def half_life(self) -> float:
        """Of the moving average of the released sampler, in steps, by the family's recipe."""
        return recipe_of(self.training()).ema

    @property
    def pull(self) -> float:
        """How strongly FedProx pulls towards the received weights; 0 for other strategies."""
        return proximal_strength(self.strategy_options) if self.strategy == "fedprox" else 0.0

    @cached_property
    def declared(self) -> dict[str, float]:
        """Public sizes by site, where they were declared."""
        kind, _, listed = self.weighting.partition(":")
        if kind not in ("auto", "uniform", "patients", "declared") or bool(listed) != (kind == "declared"):
            remedy = "auto, uniform, patients or declared:NAME=N,..."
            raise ConfigError("unknown --weighting", value=self.weighting, remedy=remedy)
        return dict(_size(part) for part in listed.split(",")) if listed else {}

    def patients_of(self, site: str) -> int:
        """The declared public number of a site's patients in a private run."""
        assert self.privacy is not None
        return int(self.declared.get(site, self.privacy.patients))

    @property
    def by_patients(self) -> bool:
        """Whether a reply weighs as much as its site has patients: then it must say how many these are."""
        return not self.declared and self.privacy is None and self.weighting in ("auto", "patients")

    def weight(self, site: str, metrics: Mapping[str, float]) -> float:
        """The weight of a site's reply: public in private runs."""
        if self.declared:
            if site not in self.declared:
                raise ConfigError("--weighting declares no size of a site", value=site)
            return self.declared[site]
        return float(metrics["patients"]) if self.by_patients else 1.0

    @property
    def training_exchanges(self) -> int:
        """Messages to each site until training ends; those that fit what is not trained come after."""
        return self.rounds * (self.local_steps // self.exchange_steps)

    def leaving(self, shared: tuple[str, ...], sampler: tuple[str, ...]) -> tuple[str, ...]:
        """The networks that leave a site, of those that a family shares."""
        if self.federation == "none":
            return ()
        if self.federation == "one-shot":
            return sampler
        return (
            shared
            if self.share == "all" and self.federation == "average"
            else tuple(net for net in shared if net in sampler)
        )

    def to_run_config(self, run: Path, *, nodes: Path | None = None) -> dict[str, Scalar]:
        """As Flower's scalars: every key is always there, a text of no letters stands for None.

        `nodes` is the server's list of which node is which hospital, where there is one.
        """
        table: dict[str, Any] = dict.fromkeys(run_config_keys(), "")
        own = config.as_table(self)
        table |= own.pop("privacy", {})
        table |= own | {key: json.dumps(own[key], sort_keys=True) for key in TABLES}
        return table | {RUN: str(run), NODES: "" if nodes is None else str(nodes)}


def from_run_config(given: Mapping[str, Any]) -> tuple[FederationSettings, Path]:
    """The inverse of `to_run_config`: settings and the run directory."""
    table = {key: value for key, value in given.items() if value != ""}
    folder, _ = table.pop(RUN, None), table.pop(NODES, None)
    if folder is None:
        raise ConfigError("the run config says no run directory", remedy=f"give {RUN}=DIR")
    for key in TABLES:
        table[key] = json.loads(table.get(key, "{}"))
    privacy = {key: table.pop(key) for key in PRIVATE_KEYS if key in table}
    if "epsilon" in privacy:
        table["privacy"] = privacy
    return config.read_table(FederationSettings, table), Path(str(folder))


def run_config_keys() -> tuple[str, ...]:
    """Every key of the run config, spelled as the option of the command line."""
    own = [entry.name.replace("_", "-") for entry in fields(FederationSettings) if entry.name != "privacy"]
    return (*own, *PRIVATE_KEYS, RUN, NODES)


def default_run_config() -> dict[str, Scalar]:
    """What `[tool.flwr.app.config]` must hold: Flower takes no key that does not stand there."""
    return FederationSettings().to_run_config(Path("run")) | {RUN: ""}


def check_family(settings: FederationSettings) -> None:
    """Refuse an unknown family, and one that learns nothing."""
    entry = find(settings.generator)
    if entry.kind == "training-free":
        raise ConfigError(f"{entry.name} is not trained: there is nothing to federate", remedy="use `fedsynth train`")


def _size(part: str) -> tuple[str, float]:
    name, _, size = part.partition("=")
    try:
        value = float(size)
    except ValueError:
        value = 0.0
    if not name or not 0 < value < float("inf"):
        raise ConfigError("--weighting declared: needs NAME=N,...", value=part)
    return name, value
