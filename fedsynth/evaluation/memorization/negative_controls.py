"""Negative controls: the deciding tests on what cannot be a leak. Where they reject too often, the report is void.

Each control is repeated and may reject by chance as often as its level allows; only beyond the 99.9 % bound of that
does it void a report. It works on tables of distances and knows no images.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedsynth.evaluation.blind_baseline import Blind
from fedsynth.evaluation.bootstrap import CONTROLS_LEVEL, binomial_tail_bound
from fedsynth.evaluation.cohort import Cohort
from fedsynth.evaluation.memorization import dependence, replication
from fedsynth.evaluation.memorization.dependence import LogDistances, dependence_under
from fedsynth.evaluation.memorization.patient_evidence import PatientEvidence, patient_evidence
from fedsynth.evaluation.memorization.ratios import columns_read
from fedsynth.evaluation.memorization.replication import find_copies, in_both_roles, learn_reference, without
from fedsynth.evaluation.nearest_neighbours import PatientDistances
from fedsynth.evaluation.permutation_test import permute_roles

PERMUTATIONS = 99
MOST_ROWS = 2000
BLIND_LEVEL = 1 - CONTROLS_LEVEL
"""Where members differ from the holdout by themselves at this level, the report is void."""

Tables = Mapping[str, PatientDistances]


@dataclass(frozen=True, kw_only=True)
class Control:
    """How often a control rejected, and how often it may. One that could not be run has no runs and says why."""

    name: str
    fired: int
    runs: int
    allowed: int
    why: str = ""

    @property
    def holds(self) -> bool:
        """Whether it rejected no more often than chance allows."""
        return self.fired <= self.allowed


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """Real images passed off as synthetic, as they are, blurred or noisy: their tables and whose they are."""

    tables: Tables
    owners: NDArray[np.int64]


def halves_of_holdout(
    name: str,
    real: Tables,
    shown: Shown,
    owners: NDArray[np.int64],
    cohort: Cohort,
    *,
    person: NDArray[np.int64],
    seed: int,
    repeats: int,
    whole: Sequence[str] = (),
) -> Control:
    """Half of the holdout as the synthetic set against the members and the other half.

    `real` are the tables of all real images against all but their own patient, which `owners` names; `person` numbers
    the persons behind the patients, as the search for copies sees them. The first repetition has the roles as they
    are; the others draw them anew, or all would rise and fall with one draw and no binomial bound would hold for them.
    For the same reason two patients who are alike without being joined to one person count once, not whenever a half
    puts them on different sides. Dependence is tested in the spaces `whole`, in all if none are named.
    """
    known: set[tuple[int, int]] = set()
    rng = _stream(name, seed)

    def rejects(number: int) -> bool | None:
        half = _half(real, shown, owners, cohort, person, rng, redraw=number > 0)
        if half is None:
            return None
        new = half.alike - known
        known.update(new)
        if new:
            return True
        tested = _ready({space: half.tables[space] for space in whole or half.tables}, half.floors, half.people, rng)
        return _dependence_rejects(tested, half.people, number, half.evidence)

    return _repeated(name, repeats, rejects)


def shuffled_roles(
    tables: Tables,
    floors: Mapping[str, float],
    cohort: Cohort,
    *,
    seed: int,
    repeats: int,
    evidence: PatientEvidence | None = None,
) -> Control:
    """The synthetic set as it is, under roles drawn anew."""

    rng = _stream("shuffled roles", seed)
    ready = _ready(tables, floors, cohort, rng)

    def rejects(number: int) -> bool:
        drawn = permute_roles(cohort.member, cohort.stratum, 1, rng)[0]
        return _dependence_rejects(ready, cohort.with_members(drawn), number, evidence)

    return _repeated("shuffled roles", repeats, rejects)


def split_among_members(
    tables: Tables,
    floors: Mapping[str, float],
    cohort: Cohort,
    *,
    seed: int,
    repeats: int,
    evidence: PatientEvidence | None = None,
) -> Control:
    """The synthetic set as it is, one half of the members in the place of the holdout."""
    kept = np.flatnonzero(cohort.member)
    of_members = None if evidence is None else evidence.of(kept)

    rng = _stream("split among members", seed)
    ready = _ready(_only(tables, kept, len(cohort)), floors, _part(cohort, kept), rng)

    def rejects(number: int) -> bool:
        chosen = _one_half(kept, cohort, rng)
        people = _part(cohort.with_members(np.isin(np.arange(len(cohort)), chosen)), kept)
        return _dependence_rejects(ready, people, number, of_members)

    return _repeated("split among members", repeats, rejects)


def _stream(name: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, *name.encode()])


def _repeated(name: str, repeats: int, rejects: Callable[[int], bool | None]) -> Control:
    held = [found for number in range(repeats) if (found := rejects(number)) is not None]
    why = "" if held else "nothing was left to pass off as synthetic"
    return Control(name=name, fired=sum(held), runs=len(held), allowed=binomial_tail_bound(len(held), LEVEL), why=why)


LEVEL = dependence.LEVEL + dependence.AVOIDS + replication.LEVEL


@dataclass(frozen=True, kw_only=True, eq=False)
class _Half:
    """One repetition: the tables of what is passed off as synthetic, the patients left, and who counts as a copy.

    `alike` are pairs of a patient passed off and the member that an image of his counts as a copy of, in their order;
    persons of both roles are left out, as they are from the copies of a synthetic set.
    """

    tables: Tables
    floors: Mapping[str, float]
    people: Cohort
    alike: set[tuple[int, int]]
    evidence: PatientEvidence | None


def _half(
    real: Tables,
    shown: Shown,
    owners: NDArray[np.int64],
    cohort: Cohort,
    person: NDArray[np.int64],
    rng: np.random.Generator,
    *,
    redraw: bool,
) -> _Half | None:
    """None where a holdout of one patient, or of few whose images are not shown, leaves nothing to pass off."""
    if redraw:
        cohort = cohort.with_members(permute_roles(cohort.member, cohort.stratum, 1, rng)[0])
    released = _one_half(np.flatnonzero(~cohort.member), cohort, rng)
    kept = np.setdiff1d(np.arange(len(cohort)), released)
    people, number_of = _part(cohort, kept), _numbers(kept, len(cohort))
    output = np.flatnonzero(np.isin(shown.owners, released))
    if not len(output):
        return None
    others = np.flatnonzero(~np.isin(owners, released))
    among = _only(rows_of(real, others), kept, len(cohort), columns=columns_read(person[kept]))
    reference = learn_reference(among, number_of[owners[others]], len(people), len(output), person=person[kept])
    passed_off = _only(rows_of(shown.tables, output), kept, len(cohort))
    copies = without(find_copies(passed_off, reference), in_both_roles(person, cohort.member)[kept])
    pairs = np.sort(np.stack([shown.owners[output[copies.rows]], kept[copies.patients]], axis=1), axis=1)
    alike = {(int(one), int(other)) for one, other in pairs[people.member[copies.patients]]}
    evidence = patient_evidence(passed_off, reference, len(people))
    return _Half(tables=passed_off, floors=reference.floors, people=people, alike=alike, evidence=evidence)


def _ready(tables: Tables, floors: Mapping[str, float], cohort: Cohort, rng: np.random.Generator) -> LogDistances:
    """Tables for dependence under any roles, of large outputs a sample."""
    n_rows = len(next(iter(tables.values())).distances)
    rows = np.sort(rng.permutation(n_rows)[:MOST_ROWS]) if n_rows > MOST_ROWS else None
    return LogDistances(tables, floors, cohort.site, rows)


def _dependence_rejects(
    logs: LogDistances, cohort: Cohort, number: int, evidence: PatientEvidence | None = None
) -> bool:
    return dependence_under(logs, cohort, seed=number, permutations=PERMUTATIONS, evidence=evidence).rejects


def _one_half(patients: NDArray[np.int64], cohort: Cohort, rng: np.random.Generator) -> NDArray[np.int64]:
    """Half of the patients of each stratum; which half an odd one goes to is drawn."""
    chosen = []
    for stratum in np.unique(cohort.stratum[patients]):
        here = rng.permutation(patients[cohort.stratum[patients] == stratum])
        chosen.append(here[: (len(here) + int(rng.integers(2))) // 2])
    return np.concatenate(chosen)


def _part(cohort: Cohort, kept: NDArray[np.int64]) -> Cohort:
    return replace(
        cohort,
        names=tuple(cohort.names[patient] for patient in kept),
        member=cohort.member[kept],
        stratum=cohort.stratum[kept],
        site=cohort.site[kept],
    )


def _numbers(kept: NDArray[np.int64], n_patients: int) -> NDArray[np.int32]:
    """The new number of every patient, -1 for those who are left out; the last entry is that of nobody."""
    number_of = np.full(n_patients + 1, -1, np.int32)
    number_of[kept] = np.arange(len(kept))
    return number_of


def _only(
    tables: Tables, kept: NDArray[np.int64], n_patients: int, *, columns: int | None = None
) -> dict[str, PatientDistances]:
    """The tables of the `kept` patients alone, nearest first as before; the first so many `columns` of them."""
    number_of = _numbers(kept, n_patients)
    found = {}
    for space, table in tables.items():
        patients = number_of[table.patients]
        known = patients >= 0
        width = patients.shape[1]
        if columns is not None and columns < width:
            width = columns
            known &= known.cumsum(axis=1, dtype=np.int32) <= columns
        filled = np.arange(width) < known.sum(axis=1)[:, None]
        made = PatientDistances(
            distances=np.full(filled.shape, np.inf, np.float32), patients=np.full(filled.shape, -1, np.int32)
        )
        made.distances[filled], made.patients[filled] = table.distances[known], patients[known]
        found[space] = made
    return found


def rows_of(tables: Tables, rows: NDArray[np.int64]) -> dict[str, PatientDistances]:
    """Some rows of every table."""
    return {
        space: PatientDistances(distances=table.distances[rows], patients=table.patients[rows])
        for space, table in tables.items()
    }


def all_hold(controls: Mapping[str, Control], blind: Blind) -> bool:
    """Whether nothing that must not reject spoke up."""
    return not blind.rejects(BLIND_LEVEL) and all(control.holds for control in controls.values())


def broken(controls: Mapping[str, Control], blind: Blind) -> Iterator[str]:
    """What is wrong, in words."""
    for control in controls.values():
        if not control.holds:
            yield (
                f"the control '{control.name}' rejected in {control.fired} of {control.runs} repetitions, and chance "
                f"explains at most {control.allowed}"
            )
    if blind.rejects(BLIND_LEVEL):
        yield (
            f"members and holdout can be distinguished without any synthetic image (AUC {blind.auc:.2f} in the space "
            f"{blind.space}, p = {blind.p_value:.2g}): they are not drawn from the same patients"
        )
