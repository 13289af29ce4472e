"""Does the output depend on who was in? The exact permutation of patients' roles within the strata of their draw.

For each synthetic image, the log ratio of its distances to the nearest holdout and the nearest member patient is large
where it lies nearer to a member. The mean and the top 1 % of these, in every feature space, over all patients and over
those of each site, and how far members lead the list of patients whom the output points to, are compared with what
redrawn roles give. It reads tables of distances and knows no images.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsynth.evaluation.cohort import Cohort
from fedsynth.evaluation.memorization.patient_evidence import PatientEvidence, patient_statistics
from fedsynth.evaluation.nearest_neighbours import PatientDistances
from fedsynth.evaluation.permutation_test import (
    assignments,
    fewest_patients,
    joint_p,
    joint_p_of_groups,
    marginal_p,
    permute_roles,
)

STATISTICS = ("mean", "top 1 %")
TOP = 0.01
PERMUTATIONS = 1999
LEVEL = 0.038
"""With `AVOIDS` dependence may reject by chance in 4 of 100 honest sets, and extraction in 1: the procedure in 5."""
AVOIDS = 0.002
"""Output that keeps away from members was filtered with them at hand; that rejects in 2 of 1,000 honest sets."""
SMALLEST_SITE = 8
"""Members and holdout that a site needs for statistics of its own; with fewer its patients count in the pooled ones."""
OF_PATIENTS = 2.0
"""The statistics of patients weigh so many times those of images: they see leaks that no others see."""
AT_ONCE, FEWEST_AT_ONCE = 2**16, 64
"""Pairs of an image and an assignment in a block, which stays in the processor's cache, and assignments at least."""
DENSE = 8
"""So many columns are looked at for every image and assignment; few of these pairs are left undecided then."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Dependence:
    """The joint p-value, and that of each space, statistic and site that it was made from.

    `p_value` is None where nothing can be tested, and `why` says why. `per_site` are joint p-values of each site's own
    statistics. `min_patients` is the smallest number of copied patients for which a rejection is no luck. `avoidance_p`
    is the joint p-value, over spaces, of the output lying further from members than from the holdout.
    """

    p_value: float | None
    min_patients: int | None
    single: Mapping[str, float]
    per_site: Mapping[str, float]
    permutations: int
    avoidance_p: float | None = None
    why: str = ""

    @property
    def rejects(self) -> bool:
        """Whether the output depends on who was in."""
        return self.avoids or (self.p_value is not None and self.p_value <= LEVEL)

    @property
    def avoids(self) -> bool:
        """Whether it depends on them by keeping away from them."""
        return self.avoidance_p is not None and self.avoidance_p <= AVOIDS


class LogDistances:
    """The tables of all spaces, ready for any roles: made once for each site, however often roles are redrawn.

    `floors` are the distances below which two images count as equal, found blind to roles. With `rows`, only these
    synthetic images count. `site` is that of every patient.
    """

    def __init__(
        self,
        tables: Mapping[str, PatientDistances],
        floors: Mapping[str, float],
        site: NDArray[np.int64],
        rows: NDArray[np.intp] | None = None,
    ) -> None:
        self._tables, self._floors, self._site, self._rows = tables, floors, site, rows
        self._made: dict[tuple[str, int], tuple[NDArray[np.float32], NDArray[np.int32]]] = {}

    @property
    def spaces(self) -> list[str]:
        """Their names."""
        return list(self._tables)

    def of(self, space: str, site: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Logs of the distances over the first one's, and patients, of one site's patients or of all (-1)."""
        if (space, site) not in self._made:
            part = _of_site(self._tables[space], self._site == site if site >= 0 else None, self._rows)
            logs = np.log(np.maximum(part.distances, self._floors[space])).astype(np.float32)
            self._made[space, site] = logs - logs[:, :1], part.patients
        return self._made[space, site]


def dependence_of(
    tables: Mapping[str, PatientDistances],
    floors: Mapping[str, float],
    cohort: Cohort,
    *,
    seed: int,
    permutations: int = PERMUTATIONS,
    evidence: PatientEvidence | None = None,
) -> Dependence:
    """The exact test on the distances of synthetic images to the patients of `cohort`, one table per feature space.

    `evidence` is what points to every patient of the cohort, all spaces together.
    """
    logs = LogDistances(tables, floors, cohort.site)
    return dependence_under(logs, cohort, seed=seed, permutations=permutations, evidence=evidence)


def dependence_under(
    logs: LogDistances,
    cohort: Cohort,
    *,
    seed: int,
    permutations: int = PERMUTATIONS,
    evidence: PatientEvidence | None = None,
) -> Dependence:
    """The same from tables that are ready, under the roles of `cohort`."""
    fewest = fewest_patients(cohort.member, cohort.stratum, LEVEL)
    if why := _untestable(cohort, fewest):
        return Dependence(p_value=None, min_patients=fewest, single={}, per_site={}, permutations=0, why=why)
    rng = np.random.default_rng([seed, *b"dependence"])
    drawn = permute_roles(cohort.member, cohort.stratum, permutations, rng)
    roles = np.vstack([cohort.member[None], drawn])
    values, names, sites = statistics_under(logs, cohort, roles)
    observed, null = values[0], values[1:]
    single = dict(zip(names, marginal_p(observed, null).tolist(), strict=True))
    means = np.flatnonzero(np.array(sites) == -1)[:: len(STATISTICS)]
    groups, weights = [values], [1.0]
    if evidence is not None:
        of_patients, more = patient_statistics(evidence, roles)
        single |= dict(zip(more, marginal_p(of_patients[0], of_patients[1:]).tolist(), strict=True))
        groups, weights = [values, of_patients], [1.0, OF_PATIENTS]
    own = {site: np.flatnonzero(np.array(sites) == site) for site in dict.fromkeys(sites) if site >= 0}
    return Dependence(
        p_value=joint_p_of_groups(groups, weights),
        min_patients=fewest,
        single=single,
        per_site={cohort.sites[site]: joint_p(values[:, at]) for site, at in own.items()},
        permutations=permutations,
        avoidance_p=joint_p(-values[:, means]),
    )


def statistics_under(
    logs: LogDistances, cohort: Cohort, roles: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], list[str], list[int]]:
    """Every statistic (k) under every assignment of `roles` (n, patients): (n, k), their names and sites, -1 for all.

    Where a row of a table ends before both roles were met, its last distance stands for the missing one: that is the
    same for every assignment and leaves the test exact.
    """
    values: list[NDArray[np.float64]] = []
    names: list[str] = []
    sites: list[int] = []
    for space in logs.spaces:
        for site in [-1, *tested_sites(cohort)]:
            values.append(_statistics(*logs.of(space, site), roles))
            where = "all sites" if site < 0 else cohort.sites[site]
            names += [f"{space}, {statistic}, {where}" for statistic in STATISTICS]
            sites += [site] * len(STATISTICS)
    return np.concatenate(values, axis=1), names, sites


def tested_sites(cohort: Cohort) -> list[int]:
    """The sites with statistics of their own: with enough members and holdout, and none where there is only one."""
    if len(cohort.sites) == 1:
        return []
    members = np.bincount(cohort.site[cohort.member], minlength=len(cohort.sites))
    others = np.bincount(cohort.site[~cohort.member], minlength=len(cohort.sites))
    return np.flatnonzero(np.minimum(members, others) >= SMALLEST_SITE).tolist()


def _untestable(cohort: Cohort, fewest: int | None) -> str:
    if cohort.not_drawn:
        return f"{cohort.not_drawn}: only roles drawn at random can be permuted"
    if fewest is None:
        possible = assignments(cohort.member, cohort.stratum)
        return (
            f"{cohort.n_members} members and {cohort.n_holdout} holdout patients can be redrawn in only {possible:.0f} "
            f"ways within their strata, and p <= {LEVEL} needs {int(np.ceil(1 / LEVEL))}"
        )
    return ""


def _of_site(
    table: PatientDistances, of_site: NDArray[np.bool_] | None, rows: NDArray[np.intp] | None
) -> PatientDistances:
    """The table with only the patients of one site and a closing column: nobody, at the last distance."""
    distances = table.distances if rows is None else table.distances[rows]
    patients = table.patients if rows is None else table.patients[rows]
    known = patients >= 0
    last = np.where(known, distances, 0).max(axis=1, keepdims=True)
    keep = known if of_site is None else known & of_site[patients]
    width = max(1, int(keep.sum(axis=1).max(initial=0)))
    if not keep.all():
        order = np.argsort(~keep, axis=1, kind="stable")[:, :width]
        kept = np.take_along_axis(keep, order, axis=1)
        distances = np.where(kept, np.take_along_axis(distances, order, axis=1), last)
        patients = np.where(kept, np.take_along_axis(patients, order, axis=1), -1)
    nobody = np.full((len(patients), 1), -1, patients.dtype)
    return PatientDistances(distances=np.hstack([distances, last]), patients=np.hstack([patients, nobody]))


def _statistics(
    logs: NDArray[np.float32], patients: NDArray[np.int32], roles: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Mean and mean of the top 1 % of the log ratios, (assignments, 2)."""
    n = len(logs)
    top = max(1, round(TOP * n))
    codes = np.vstack([roles.T.astype(np.uint8), np.full((1, len(roles)), 2, np.uint8)])  # the last is nobody
    found = np.empty((len(roles), len(STATISTICS)))
    step = max(FEWEST_AT_ONCE, AT_ONCE // max(1, n))
    for start in range(0, len(roles), step):
        ratios = _log_ratios(logs, patients, codes[:, start : start + step])
        found[start : start + step, 0] = ratios.mean(axis=1, dtype=np.float64)
        ratios.partition(n - top, axis=1)
        found[start : start + step, 1] = ratios[:, n - top :].mean(axis=1, dtype=np.float64)
    return found


def _log_ratios(
    logs: NDArray[np.float32], patients: NDArray[np.int32], codes: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """Per assignment (columns of `codes`) and image: log of the distance to the nearest holdout over that to a member.

    One of the two is the first of the row, so only the first patient of the other role is looked for.
    """
    first = codes[patients[:, 0]]  # -1 is the last, nobody
    same = np.ones(first.shape, bool)
    column_of = np.zeros(first.shape, np.uint8)
    for column in range(1, min(DENSE, patients.shape[1])):
        column_of += same
        same &= codes[patients[:, column]] == first
    found = np.take(logs, column_of + np.arange(len(logs))[:, None] * logs.shape[1])
    row, assignment = np.divmod(np.flatnonzero(same), first.shape[1])
    for column in range(DENSE, patients.shape[1]):
        found[row, assignment] = logs[row, column]
        still = codes[patients[row, column], assignment] == first[row, assignment]
        row, assignment = row[still], assignment[still]
        if not len(row):
            break
    found *= np.where(first == 0, np.float32(-1), np.float32(1))
    return np.ascontiguousarray(found.T)
