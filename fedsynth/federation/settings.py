"""What a federation is told, resolved; the same values as TOML and as Flower's run config, with nothing lost.

Everything that changes the result stands here. Where and how fast it runs (engine, workers) does not.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from fedsynth import config
from fedsynth.config import setting
from fedsynth.errors import ConfigError
from fedsynth.models.facts import is_fitted, known_family, stated_facts
from fedsynth.privacy.noise_shares import NoiseShares
from fedsynth.training.settings import (
    ENOUGH,
    PRIVACY,
    SIMULATED,
    TRACKED,
    Device,
    Privacy,
    Tracker,
    TrainSettings,
    refuse_trackers,
    started_options,
)

Strategy = Literal["fedavg", "fedprox", "fedavgm", "fedadam", "fedmedian", "trimmed-mean"]
Share = Literal["all", "generator"]
Way = Literal["average", "one-shot", "none", "central-generator"]
ROUNDS, LOCAL_STEPS, PRIVATE_STEPS = 40, 50, 10
TWO_STAGE = {"rounds": 20, "local-steps": 25}  # its steps cost more than those of a joint family, and it needs fewer
LENGTHS = {"two-stage": TWO_STAGE, "fitted": {"rounds": 1, "local-steps": 1}}  # by the kind of the family
FAILURES, ENGINE = "Failures", "Engine"  # panels of the help page
Scalar = bool | int | float | str
RUN, NODES, TABLES, LISTS = "run", "nodes", ("options", "strategy-options"), ("trackers",)
PRIVATE_KEYS = tuple(entry.name.replace("_", "-") for entry in fields(Privacy))


@dataclass(frozen=True, kw_only=True)
class FederationSettings:
    """One run of several hospitals. `sites` is how many are expected. What is None takes the family's recipe."""

    generator: str = setting(
        "dcgan", "Family, as in `list generators`; two-stage where there are masks, if not given.", short="-g"
    )
    sites: int = setting(4, "How many hospitals.")
    rounds: int = setting(
        ROUNDS, f"How often the hospitals' networks are averaged; {TWO_STAGE['rounds']} for two-stage."
    )
    local_steps: int = setting(
        None,
        f"Steps of each hospital in a round; {LOCAL_STEPS} if not given, {PRIVATE_STEPS} in private runs, "
        f"{TWO_STAGE['local-steps']} for two-stage.",
    )
    strategy: Strategy = setting("fedavg", "How the networks of the hospitals become one")
    strategy_options: dict[str, float] = setting(
        {}, "A setting of the strategy, as in mu=0.1 of fedprox.", flag="strategy-option"
    )
    share: Share = setting("all", "Which networks leave a hospital; with `generator` the discriminators stay")
    federation: Way = setting("average", "What the hospitals do together")
    weighting: str = setting(
        "auto", "auto (by patients; uniform in private runs), uniform, patients or declared:NAME=N,...: public sizes."
    )
    secure_sum: bool = setting(
        False, "A release: the server sees the sum over all hospitals alone, and each adds less noise.", panel=PRIVACY
    )
    colluding: int | None = setting(
        None,
        "How many hospitals may help the server against a secure sum; a quarter, and at least one, if not given.",
        panel=PRIVACY,
        metavar="N",
    )
    min_sites: int | None = setting(
        None, "How many must answer in a round; more than half if not given, all of a secure sum.", panel=FAILURES
    )
    deadline: float | None = setting(
        None, "Who takes longer for a round is left out.", metavar="SECONDS", panel=FAILURES
    )
    inject: str = setting("", "Failures on purpose: dropout=0.2,straggler=0.1,nan=0.05.", panel=FAILURES)
    count: int = setting(ENOUGH, "How many synthetic images; a declared number.")
    batch: int | None = setting(None, "Images per step (plain runs).")
    rate: float | None = setting(None, "Learning rate of every network.")
    pairing: str = setting("", "What a paired family turns into what: label-to-image, ...")
    start: Path | None = setting(
        None,
        "Go on from another run's networks, whose cost to patients counts too; or, with `phantoms`, from networks "
        "trained on simulated heads, which show nobody.",
        also="from",
        metavar="RUN",
        word=str(SIMULATED),
    )
    start_steps: int | None = setting(
        None, "Steps on simulated heads before --start phantoms; the family's own number if not given."
    )
    public_start: bool = setting(False, "Declare that the images behind --from are public; every statement says so.")
    seed: int = setting(0, "One seed gives one plain result, to the bit.")
    device: Device = setting("cpu", "Where networks are computed", panel=ENGINE)
    options: dict[str, Any] = setting({}, "A setting of the family itself.", flag="option")
    trackers: tuple[Tracker, ...] = setting((), TRACKED, flag="tracker", repeated="NAME")
    privacy: Privacy | None = None

    def __post_init__(self) -> None:
        if self.local_steps is None:  # private steps are charged: fewer and larger ones
            object.__setattr__(self, "local_steps", LOCAL_STEPS if self.privacy is None else PRIVATE_STEPS)
        refuse_trackers(self.trackers, self.privacy)
        _check_said(self.options, "options")
        _check_said(self.strategy_options, "strategy-options")
        object.__setattr__(self, "options", started_options(self.generator, self.start, self.options))
        for name in ("sites", "rounds", "local_steps", "count"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least 1", value=getattr(self, name))
        if self.min_sites is not None and not 1 <= self.min_sites <= self.sites:
            remedy = f"take 1 to {self.sites}"
            raise ConfigError("--min-sites must lie within the number of sites", value=self.min_sites, remedy=remedy)
        if self.deadline is not None and not self.deadline > 0:
            raise ConfigError("--deadline must be a positive number of seconds", value=self.deadline)
        from fedsynth.federation.fault_injection import Faults
        from fedsynth.federation.strategies import make_strategy

        make_strategy(self.strategy, self.strategy_options)
        Faults.parse(self.inject)
        _ = self.declared
        if self.weighting == "patients" and self.privacy is not None:
            remedy = "take uniform, or declared:NAME=N,..."
            raise ConfigError("a private run never weights by patients: their number would leave", remedy=remedy)
        if self.federation == "central-generator" and self.strategy != "fedavg":
            problem = "a generator at the server takes steps along the sites' gradients and has no strategy"
            raise ConfigError(problem, value=self.strategy, remedy="leave --strategy away")
        if self.start is not None and self.federation == "none":
            problem = "sites that train each alone receive no networks, so the run cannot go on from another"
            raise ConfigError(problem, remedy="leave --from away, or take --federation average")
        if self.federation == "none" and is_fitted(self.generator):
            remedy = "take --federation one-shot, in which each hospital fits its own, or `fedsynth train` at each"
            raise ConfigError("a fitted family has nothing to train apart", value=self.generator, remedy=remedy)
        self._check_secure_sum()
        self.training()  # checks what belongs to the sites

    def _check_secure_sum(self) -> None:
        """Refuse a secure sum of what is no release, and a number of colluding sites without one."""
        if not self.secure_sum:
            if self.colluding is not None:
                problem = "--colluding is for a secure sum"
                raise ConfigError(problem, value=self.colluding, remedy="give --secure-sum too")
            return
        if self.privacy is None or not is_fitted(self.generator) or self.federation != "average":
            problem = "--secure-sum is for one noised sum per hospital: a private run of a fitted family"
            remedy = "give --public phantoms or SET with --epsilon and --patients, and --federation average"
            raise ConfigError(problem, value=self.generator, remedy=remedy)
        _ = self.shares

    def training(self) -> TrainSettings:
        """What each site is told: the whole run, so that budgets and schedules know its length."""
        return TrainSettings(
            generator=self.generator,
            images=Path(),
            steps=self.total_steps or None,
            batch=self.batch,
            rate=self.rate,
            pairing=self.pairing,
            start=self.start,
            start_steps=self.start_steps,
            public_start=self.public_start,
            seed=self.seed,
            device=self.device,
            sheets=0,
            options=self.options,
            privacy=self.privacy,
        )

    @property
    def total_steps(self) -> int:
        """Steps of each site over all rounds; none where sums alone fit the family."""
        return self.rounds_of_training * self.local_steps

    @cached_property
    def rounds_of_training(self) -> int:
        """Rounds before the exchanges that fit what is not trained."""
        return 0 if is_fitted(self.generator) else self.rounds

    @property
    def exchange_steps(self) -> int:
        """Steps between two messages: a generator at the server needs an answer after every one."""
        return 1 if self.federation == "central-generator" else self.local_steps

    @property
    def quorum(self) -> int:
        """How many sites must answer: most of them where nothing is said, and all of those whose noise is shared."""
        if self.min_sites is not None:
            return self.min_sites
        return self.sites if self.secure_sum else self.sites // 2 + 1

    @property
    def shares(self) -> NoiseShares | None:
        """How the noise of a secure sum is shared; None where every site adds all of it.

        The more may collude, the more noise. With a quarter of the sites it is 15 % more than one trusted curator would
        add, whatever their number. It is at least one, for a site knows its own noise and can subtract it.
        """
        if not self.secure_sum:
            return None
        colluding = max(1, self.sites // 4) if self.colluding is None else self.colluding
        return NoiseShares(sites=self.sites, fewest=self.quorum, colluding=colluding)

    @property
    def half_life(self) -> float:
        """Of the moving average of the released sampler, in steps, by the family's recipe."""
        from fedsynth.training.session import recipe_of

        return recipe_of(self.training()).ema

    @property
    def pull(self) -> float:
        """How strongly FedProx pulls towards the received weights; 0 for other strategies."""
        from fedsynth.federation.strategies import proximal_mu

        return proximal_mu(self.strategy_options) if self.strategy == "fedprox" else 0.0

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
        return self.rounds_of_training * (self.local_steps // self.exchange_steps)

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
        table |= {key: ",".join(own[key]) for key in LISTS}
        return table | {RUN: str(run), NODES: "" if nodes is None else str(nodes)}


def from_run_config(given: Mapping[str, Any]) -> tuple[FederationSettings, Path]:
    """The inverse of `to_run_config`: settings and the run directory."""
    table = {key: value for key, value in given.items() if value != ""}
    folder, _ = table.pop(RUN, None), table.pop(NODES, None)
    if folder is None:
        raise ConfigError("the run config says no run directory", remedy=f"give {RUN}=DIR")
    for key in TABLES:
        table[key] = json.loads(table.get(key, "{}"))
    table |= {key: table[key].split(",") for key in LISTS if key in table}
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


def length_of(generator: str) -> dict[str, int]:
    """Rounds and local steps of a run where nobody says anything and the family wants others than most."""
    return dict(LENGTHS.get(_kind(generator), {}))


def _kind(generator: str) -> str:
    facts = stated_facts().get(generator)
    return "" if facts is None else facts.kind


def check_family(settings: FederationSettings) -> None:
    """Refuse an unknown family, and one that learns nothing."""
    entry = known_family(settings.generator)
    if entry.kind == "training-free":
        raise ConfigError(f"{entry.name} is not trained: there is nothing to federate", remedy="use `fedsynth train`")


def _check_said(value: Any, key: str) -> None:
    """Refuse what JSON can say and TOML cannot keep: two plans would be written, and approved, as one."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            _check_said(str(name), key)
            _check_said(item, f"{key}.{name!s}")
    elif isinstance(value, list | tuple):
        for item in value:
            _check_said(item, key)
    elif value is None or (isinstance(value, float) and not math.isfinite(value)):
        raise ConfigError(f"{key!r} needs a value", value=value, remedy="leave it out to take the default")
    elif isinstance(value, str) and any("\ud800" <= one <= "\udfff" for one in value):
        raise ConfigError(f"{key!r} holds half a letter", value=ascii(value))


def _size(part: str) -> tuple[str, float]:
    name, _, size = part.partition("=")
    try:
        value = float(size)
    except ValueError:
        value = 0.0
    if not name or not 0 < value < float("inf"):
        raise ConfigError("--weighting declared: needs NAME=N,...", value=part)
    return name, value
