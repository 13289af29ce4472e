"""Where a run's weights came from, from the root to the run itself, and what all of it together promises each patient.

Knows mechanisms, and of patients only the keyed digests of their groups. Never sees an image.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from fedsynth.errors import ConfigError
from fedsynth.privacy.accounting import Mechanism, compose, rounded_up, said_beside

Training = Literal["private", "plain", "insecure", "untrained", "unknown"]
PLAIN = "none: trained without differential privacy"
INSECURE = "NOT PRIVATE: the run's randomness can be repeated (--insecure-seed)"
UNTRAINED = "nothing was learnt from patients; images depend on the label maps they are drawn from"
UNKNOWN = "none: the run does not say how it was trained"
SAID = {"plain": PLAIN, "insecure": INSECURE, "untrained": UNTRAINED, "unknown": UNKNOWN}
PHANTOMS, DECLARED = "phantoms", "--public-start"
MOST_COMPOSED = 32  # beyond so many combinations of groups epsilons are added: quicker, and never too small


@dataclass(frozen=True, kw_only=True)
class PatientGroup:
    """The patients of one site that one run read, and what that run alone promised each of them.

    `digest` is the group's keyed name in the site's store, empty where there is none. `disjoint_from` are the digests
    of groups of earlier runs that have no patient in common with it, as the store knows. `assumption` says against whom
    the promise holds, where not against everybody.
    """

    site: str
    digest: str = ""
    disjoint_from: tuple[str, ...] = ()
    mechanisms: tuple[Mechanism, ...] = ()
    epsilon: float = math.inf
    replace_one: float = math.inf
    renyi: float = math.inf
    delta: float = 0.0
    assumption: str = ""


@dataclass(frozen=True, kw_only=True)
class LineageRun:
    """One run of a lineage. `public` says on whose word its images show nobody who needs protection, if on anybody's:
    "phantoms" is their own provenance, anything else a user's declaration."""

    run: str
    generator: str
    images: str
    steps: int
    training: Training
    public: str = ""
    patients: tuple[PatientGroup, ...] = ()

    def __post_init__(self) -> None:
        if self.training == "private" and not self.patients:
            raise ConfigError("a private run of a lineage promises nobody anything", value=self.run)

    def __str__(self) -> str:
        made = f"{self.run or 'this run'}: {self.generator}, {self.steps} steps on {self.images}"
        if self.training != "private":
            return f"{made}, {SAID[self.training]}"
        worst = max(self.patients, key=lambda group: group.epsilon)
        return f"{made}, epsilon {rounded_up(worst.epsilon, 3):g} at delta {worst.delta:g}"


Groups = tuple[tuple[int, PatientGroup], ...]
"""Groups that one patient may have been in, each with the number of its run."""


@dataclass(frozen=True, kw_only=True)
class Guarantee:
    """What is promised per patient; no epsilon where there is nothing, and `why`."""

    epsilon: float | None
    replace_one: float = math.inf
    renyi: float = math.inf
    delta: float = 0.0
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """Every run that the weights went through, the root first and the run itself last."""

    runs: tuple[LineageRun, ...] = ()

    @property
    def public(self) -> bool:
        """No patient was ever read, by the images' own word: a user's declaration is not enough."""
        return bool(self.runs) and all(run.public == PHANTOMS for run in self.runs)

    @property
    def declared(self) -> tuple[LineageRun, ...]:
        """The runs whose images are public on a user's word alone."""
        return tuple(run for run in self.runs if run.public not in ("", PHANTOMS))

    @property
    def exposed(self) -> tuple[LineageRun, ...]:
        """The runs that learnt from patients without a guarantee."""
        return tuple(run for run in self.runs if not run.public and run.training not in ("private", "untrained"))

    @property
    def counted(self) -> tuple[LineageRun, ...]:
        """The private runs that count: those on patients, and the run itself, whose phantoms stand for patients."""
        private = (run for run in self.runs if run.training == "private")
        return tuple(run for run in private if run is self.runs[-1] or not run.public)

    @property
    def digests(self) -> tuple[str, ...]:
        """Of all groups of patients that have one."""
        return tuple(group.digest for run in self.runs for group in run.patients if group.digest)

    def then(self, run: LineageRun) -> "Lineage":
        """The lineage of a run that goes on from here."""
        return Lineage(runs=(*self.runs, run))

    def declared_public(self, by: str) -> "Lineage":
        """The same, with all images taken for public on the word of whoever started the run `by`."""
        word = f"{DECLARED} of {by}" if by else DECLARED
        return Lineage(runs=tuple(run if run.public else replace(run, public=word) for run in self.runs))

    def guarantee(self) -> Guarantee:
        """What any patient is promised by all runs together: the most over groups that may share somebody."""
        if self.exposed:
            run = self.exposed[0]
            return Guarantee(epsilon=None, why=f"{run.run or 'this run'} ({run.images}): {SAID[run.training]}")
        if not self.counted:
            return Guarantee(epsilon=None, why=SAID[self.runs[-1].training] if self.runs else UNKNOWN)
        return _most(_costs(self.counted).values())

    def promised(self, run: LineageRun, group: PatientGroup | None = None) -> Guarantee:
        """What the patients of one of the runs, or of a group of them, are promised by all runs together."""
        if self.exposed or run not in self.counted:
            return Guarantee(epsilon=None, why=self.guarantee().why)
        number, costs = self.counted.index(run), _costs(self.counted)
        alike = None if group is None else _alike(group, self.counted)
        return _most(
            cost
            for met, cost in costs.items()
            if (one := dict(met).get(number)) and (alike is None or alike == _alike(one, self.counted))
        )

    def claim(self) -> str:
        """The promise as a sentence, for cards and for the sets that the generator draws."""
        if not self.runs or self.runs[-1].training != "private":
            return SAID[self.runs[-1].training] if self.runs else UNKNOWN
        found, own = self.guarantee(), self.runs[-1]
        if found.epsilon is None:
            return f"none: it goes on from {found.why}"
        said = [
            f"epsilon {rounded_up(found.epsilon, 3):g} at delta {found.delta:g} per patient, add/remove "
            f"({said_beside(found.epsilon, found.renyi, found.replace_one)}); covers this generator and what is drawn "
            "from it"
        ]
        if len(self.counted) > 1:
            before = "; ".join(str(run) for run in self.counted[:-1])
            alone = max(group.epsilon for group in own.patients)
            said.append(f"counts the whole lineage ({before}; this run alone epsilon {rounded_up(alone, 3):g})")
        if any(len(run.patients) > 1 for run in self.counted):
            said.append("at every site alike, where no patient is in two of them")
        return "; ".join([*said, *self.caveats()])

    @property
    def assumptions(self) -> tuple[tuple[str, str], ...]:
        """The runs whose promise does not hold against everybody, each with whom it holds against."""
        rests = {(run.run or "this run", group.assumption) for run in self.counted for group in run.patients}
        return tuple(sorted((run, against) for run, against in rests if against))

    def caveats(self) -> list[str]:
        """What rests on a user's word, or on whom a secure sum trusts, in every statement."""
        said = [
            f"counts the images of {run.run} ({run.images}) as public on the word of {run.public}: they are not covered"
            for run in self.declared
        ]
        return said + [f"the promise of {run} holds only against {against}" for run, against in self.assumptions]

    def history(self) -> list[str]:
        """A line for every run, the root first: who trained it on what, and what its patients are promised in all."""
        lines = []
        for run in self.runs:
            if run.public == PHANTOMS and run not in self.counted:
                lines.append(f"{run}; its images are phantoms: nobody")
            elif run.public and run not in self.counted:
                lines.append(f"{run}; its images count as public on the word of {run.public}: they are not covered")
            elif (total := self.promised(run).epsilon) is not None:
                lines.append(f"{run}; its patients over the whole lineage: epsilon {rounded_up(total, 3):g}")
            else:
                lines.append(f"{run}; its patients over the whole lineage: no guarantee")
        return lines


@lru_cache(maxsize=64)
def _costs(runs: tuple[LineageRun, ...]) -> dict[Groups, Guarantee]:
    """What each largest choice of groups that one patient may have been in costs that patient."""
    met = _met(runs)
    kinds = {frozenset((run, group.mechanisms) for run, group in groups) for groups in met}
    finely = len(kinds) <= MOST_COMPOSED
    return {groups: _together([group for _, group in groups], finely=finely) for groups in met}


def _met(runs: Sequence[LineageRun]) -> list[Groups]:
    """Every largest choice of groups that may share a patient, at most one of each run: its sites are taken for
    disjoint."""
    found: list[Groups] = [()]
    for number, run in enumerate(runs):
        for group in _unlike(run, runs):
            may = [one for one in found if all(_may_share(runs[i], earlier, run, group) for i, earlier in one)]
            found += [(*one, (number, group)) for one in may if number not in dict(one)]
    return [one for one in found if not any(set(one) < set(other) for other in found)]


def _unlike(run: LineageRun, runs: Sequence[LineageRun]) -> list[PatientGroup]:
    """The groups of a run, one of those that cost the same and of whose patients nothing more is known."""
    kinds: dict[PatientGroup, PatientGroup] = {}
    for group in run.patients:
        kinds.setdefault(_alike(group, runs), group)
    return list(kinds.values())


def _alike(group: PatientGroup, runs: Sequence[LineageRun]) -> PatientGroup:
    """What a group costs and what is known of whom it shares: groups that agree in it cost the same together."""
    compared = {digest for run in runs for other in run.patients for digest in other.disjoint_from}
    return replace(group, site="", digest=group.digest if group.digest in compared else "")


def _may_share(first: LineageRun, earlier: PatientGroup, second: LineageRun, later: PatientGroup) -> bool:
    return not (first.public or second.public or (earlier.digest and earlier.digest in later.disjoint_from))


def _together(groups: Sequence[PatientGroup], *, finely: bool) -> Guarantee:
    """What groups cost the patient who is in all of them: composed where every mechanism is known, added otherwise."""
    if finely and len(groups) > 1 and all(group.mechanisms for group in groups):
        mechanisms = [one for group in groups for one in group.mechanisms]
        spent = compose(mechanisms, min(group.delta for group in groups))
        return Guarantee(epsilon=spent.epsilon, replace_one=spent.replace_one, renyi=spent.renyi, delta=spent.delta)
    return Guarantee(
        epsilon=math.fsum(group.epsilon for group in groups),
        replace_one=math.fsum(group.replace_one for group in groups),
        renyi=math.fsum(group.renyi for group in groups),
        delta=math.fsum(group.delta for group in groups),
    )


def _most(costs: Iterable[Guarantee]) -> Guarantee:
    """What holds for everybody of whom one of these holds."""
    found = list(costs)
    worst = {name: max(getattr(one, name) for one in found) for name in ("epsilon", "replace_one", "renyi", "delta")}
    return Guarantee(**worst)
