"""What a site allows, in its own file `policy.toml`, read before any image and binding against every message.

Knows what is asked and what is allowed; the ledger knows what is spent. No message tells how many patients there are.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fedsynth.config import key_of, load_toml
from fedsynth.errors import ConfigError
from fedsynth.federation.error_codes import ErrorCode, PolicyRefusedError
from fedsynth.privacy.accounting import LARGEST_DELTA, LARGEST_EPSILON, Budget, check_delta

CAPS = (
    *("max_rounds", "max_local_steps", "max_batch", "max_parameters"),
    *("runs_kept", "minutes_a_day", "megabytes_a_day"),
)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a run wants of a site. `private` is False for runs with a repeatable seed too: they protect nobody.

    `patients` is the declared number of a private run; `networks` names what would leave, `metrics` the numbers that
    the run cannot do without. The promise of a `secure_sum` holds only against a server with few accomplices. What a
    `released_alone` run releases may be the sampler of this site alone, or nearly. `batch` is the number of images that
    a step computes with, real or synthetic, whichever is larger.
    """

    generator: str
    private: bool
    epsilon: float | None = None
    delta: float | None = None
    patients: int | None = None
    networks: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    secure_sum: bool = False
    released_alone: bool = False
    rounds: int = 0
    local_steps: int = 0
    batch: int = 0


@dataclass(frozen=True, kw_only=True)
class Policy:
    """`policy.toml`. A list that is left out allows any name; an empty one allows none.

    `max-epsilon` is per patient, over all runs of all times, at `delta`; 0 forbids private training too. Training
    without privacy is allowed only where `allow-plain` says so. A number that `metrics` does not name is left out of
    every reply; a run that needs it is refused. Answers of private runs leave every `answer-every` seconds; 0: at once.
    `secure-sum` allows promises that hold only while the server colludes with no more sites than the run says.
    `allow-one-shot` allows a sampler that was trained on this site's patients alone, or nearly, to be released, by a
    one-shot federation or by an average of too few. It says nothing of what the server receives: of an average that
    is the weights of each site after every round.

    What is left out of `max_rounds` to `megabytes_a_day` is not capped. Days are those of UTC. `approved` names the
    list of plans that a person here has approved: the site takes part in no other. `health_page` is for
    `fedsynth site health`.
    """

    max_epsilon: float | None = None
    delta: float = 1e-5
    allow_plain: bool = False
    min_patients: int = 1
    generators: tuple[str, ...] | None = None
    networks: tuple[str, ...] | None = None
    metrics: tuple[str, ...] | None = None
    answer_every: float = 10.0
    secure_sum: bool = False
    allow_one_shot: bool = False
    max_rounds: int | None = None
    max_local_steps: int | None = None
    max_batch: int | None = None
    max_parameters: int | None = None
    runs_kept: int | None = None
    minutes_a_day: float | None = None
    megabytes_a_day: float | None = None
    approved: Path | None = None
    health_page: bool = True

    def __post_init__(self) -> None:
        check_delta(self.delta)
        if self.max_epsilon is not None and not 0 <= self.max_epsilon <= LARGEST_EPSILON:
            problem = f"'max-epsilon' must be at least 0 and at most {LARGEST_EPSILON:g}"
            raise ConfigError(problem, value=self.max_epsilon, remedy="leave it out to set no cap")
        if self.max_epsilon is not None and self.allow_plain:
            remedy = "training without privacy has no epsilon: decide for one"
            raise ConfigError("'max-epsilon' and 'allow-plain = true' exclude each other", remedy=remedy)
        if self.min_patients < 1:
            raise ConfigError("'min-patients' must be at least 1", value=self.min_patients)
        if not 0 <= self.answer_every <= 3600:
            raise ConfigError("'answer-every' must be 0 to 3600 seconds", value=self.answer_every)
        for name in CAPS:
            cap = getattr(self, name)
            if cap is not None and not 0 < cap < math.inf:
                remedy = "leave it out to set no cap"
                raise ConfigError(f"{key_of(name)!r} must be a positive number", value=cap, remedy=remedy)

    @property
    def cap(self) -> Budget | None:
        """What the ledger must never let a patient exceed, over all runs."""
        return Budget(epsilon=self.max_epsilon, delta=self.delta) if self.max_epsilon else None

    def check(self, asked: Asked) -> None:
        """Refuse what the policy forbids. Reads no image and no ledger."""
        if asked.private:
            self._check_promise(asked)
        elif not self.allow_plain:
            raise PolicyRefusedError("training without privacy", ErrorCode.POLICY_PLAIN)
        if asked.secure_sum and not self.secure_sum:
            problem = "a promise that holds only against a server with few accomplices (secure-sum)"
            raise PolicyRefusedError(problem, ErrorCode.POLICY_SECURE_SUM)
        if asked.released_alone and not self.allow_one_shot:
            problem = "a run that may release a sampler of this site alone (allow-one-shot)"
            raise PolicyRefusedError(problem, ErrorCode.POLICY_ONE_SHOT)
        _check_name("generator", asked.generator, self.generators, ErrorCode.POLICY_GENERATORS)
        for name in asked.networks:
            _check_name("network leaving", name, self.networks, ErrorCode.POLICY_NETWORKS)
        for name in asked.metrics:
            _check_name("metric that the run needs", name, self.metrics, ErrorCode.POLICY_METRICS)
        _check_cap("max-rounds", asked.rounds, self.max_rounds, ErrorCode.POLICY_ROUNDS)
        _check_cap("max-local-steps", asked.local_steps, self.max_local_steps, ErrorCode.POLICY_LOCAL_STEPS)
        _check_cap("max-batch", asked.batch, self.max_batch, ErrorCode.POLICY_BATCH)

    def check_parameters(self, parameters: int) -> None:
        """Refuse networks with more weights than the site allows."""
        _check_cap("max-parameters", parameters, self.max_parameters, ErrorCode.POLICY_PARAMETERS)

    def telling(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Those of the numbers that may leave."""
        return {name: value for name, value in metrics.items() if self.metrics is None or name in self.metrics}

    def check_patients(self, patients: int) -> None:
        """Refuse where the site has fewer members than it demands; neither log nor server learns how many."""
        if patients < self.min_patients:
            raise PolicyRefusedError(f"fewer patients than min-patients = {self.min_patients}", ErrorCode.POLICY)

    def forbids_everything(self) -> str:
        """Why no run at all could pass, or an empty text."""
        if self.max_epsilon == 0:
            return "'max-epsilon = 0' forbids private training and 'allow-plain' does not allow any other"
        empty = [key for key in ("generators", "networks") if getattr(self, key) == ()]
        return f"'{empty[0]} = []' allows none" if empty else ""

    def _check_promise(self, asked: Asked) -> None:
        if self.max_epsilon is not None and (asked.epsilon is None or asked.epsilon > self.max_epsilon):
            problem = f"epsilon {_text(asked.epsilon)} is above max-epsilon {self.max_epsilon:g}"
            raise PolicyRefusedError(problem, ErrorCode.POLICY_EPSILON)
        if asked.delta is None or asked.delta > self.delta:
            problem = f"delta {_text(asked.delta)} is above {self.delta:g}"
            raise PolicyRefusedError(problem, ErrorCode.POLICY_DELTA)
        if asked.patients is not None and asked.patients < self.min_patients:
            problem = f"{asked.patients} declared patients are fewer than min-patients = {self.min_patients}"
            raise PolicyRefusedError(problem, ErrorCode.POLICY_PATIENTS)


OPEN = Policy(allow_plain=True, delta=LARGEST_DELTA, secure_sum=True, allow_one_shot=True)
"""Where a site has no policy: simulated hospitals."""


def load_policy(path: Path | None) -> Policy:
    """Read a policy; no path means no policy, as in simulations. A path without a file is an error, never a yes.

    The list of approved plans is named from the policy's own folder.
    """
    if path is None:
        return OPEN
    policy = load_toml(Policy, path)
    if policy.approved is None:
        return policy
    return replace(policy, approved=(path.resolve().parent / policy.approved.expanduser()).resolve())


def _check_name(what: str, name: str, allowed: tuple[str, ...] | None, code: ErrorCode) -> None:
    if allowed is not None and name not in allowed:
        listed = ", ".join(allowed) or "none"
        raise PolicyRefusedError(f"{what} {name!r} is not among those allowed ({listed})", code)


def _check_cap(key: str, asked: int, most: int | None, code: ErrorCode) -> None:
    if most is not None and asked > most:
        raise PolicyRefusedError(f"{asked} is above {key} = {most}", code)


def _text(value: float | None) -> str:
    return "(not said)" if value is None else f"{value:g}"
