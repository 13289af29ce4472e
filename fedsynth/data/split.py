"""Members, holdout and reference: which patients may be trained on, and which only ever measured against.

Roles are drawn per patient, at random within strata. The exact test of the leakage benchmark rests on this: given how
many of a stratum's patients have each role, every assignment of those roles to its patients is equally likely.
"""

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import csr_array, kron, vstack

from fedsynth.data.roles import ROLES, STRATA, Shares, Split
from fedsynth.errors import ConfigError, ImageSetError, RefusedError

# Whole numbers of patients for a table of shares. It knows nothing of what the rows and columns stand for.


_NEAR = 1e-9


def controlled_rounding(
    targets: NDArray[np.float64], groups: Sequence[Hashable], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Round every cell of `targets` up or down so that the totals are rounded up or down too, and no more.

    `targets` is (rows, columns) with whole row sums, `groups` names the group of every row. In the result the row sums
    are unchanged, and each cell, each column within a group and each column of the whole table differs from its target
    by less than one. Rounding each row alone would give every row of one patient to the same column. Near totals are
    preferred over near cells; ties are broken by `rng`.

    Such a table always exists: rows, groups and total are nested, so the linear program below has whole-number corners
    (Causey, Cox and Ernst, Applications of transportation theory to statistical problems, JASA 80, 1985).
    """
    rows, columns = targets.shape
    names = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    member_of = np.array([names[group] for group in groups])
    group_sums = csr_array((np.ones(rows), (member_of, np.arange(rows))), shape=(len(names), rows))
    total = csr_array(np.ones((1, rows)))
    levels = [(np.eye(rows), 1.0), (group_sums, 10.0), (total, 100.0)]
    cost = rng.uniform(0, 1e-3, rows * columns)
    for sums, weight in levels:
        up = 1 - 2 * ((sums @ targets) % 1)  # what rounding a sum up costs more than rounding it down
        cost += weight * (sums.T @ up).ravel()
    each_column = csr_array(np.eye(columns))
    limited = vstack([kron(group_sums, each_column), kron(total, each_column)])
    limits = np.concatenate([(group_sums @ targets).ravel(), (total @ targets).ravel()])
    solved = linprog(
        cost,
        A_ub=vstack([limited, -limited]),
        b_ub=np.concatenate([_up(limits), -_down(limits)]),
        A_eq=kron(csr_array(np.eye(rows)), csr_array(np.ones((1, columns)))),
        b_eq=np.rint(targets.sum(axis=1)),
        bounds=np.stack([_down(targets).ravel(), _up(targets).ravel()], axis=1),
        method="highs-ds",
    )
    counts: NDArray[np.int64] = np.rint(solved.x).astype(np.int64)
    if solved.status != 0 or np.abs(solved.x - counts).max() > 1e-6:
        raise ArithmeticError(f"no whole-number table was found: {solved.message}")
    return counts.reshape(rows, columns)


def _down(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.floor(values + _NEAR)


def _up(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.ceil(values - _NEAR)


Stratum = tuple[str, ...]


def draw_roles(cases: pd.DataFrame, shares: Shares, seed: int, *, replace: bool = False) -> tuple[pd.DataFrame, Split]:
    """`cases` with a role for every named patient, and the record of the draw for the header.

    The numbers per stratum of site and class, per site and over all are each within one patient of the shares; a share
    of zero gives none. Few patients leave a small role empty. The draw depends on the patients, their strata, the
    shares and the seed, not on the order of rows. Roles that stand already are refused without `replace`.
    """
    if seed < 0:
        raise ConfigError("the seed of a split must not be negative", value=seed)
    if not replace and (cases["role"] != "").any():
        raise RefusedError("the patients have roles already", remedy="say so if they are to be drawn again")
    members = _by_stratum(strata(cases))
    if not members:
        raise ImageSetError("there are no named patients to draw roles for")
    rng = np.random.default_rng([seed, *b"roles"])
    sizes = np.array([len(patients) for patients in members.values()], float)
    wanted = np.array([getattr(shares, role) for role in ROLES])
    sites = [stratum[0] for stratum in members]
    counts = controlled_rounding(np.outer(sizes, wanted / wanted.sum()), sites, rng)
    role_of = {"": ""}
    for patients, numbers in zip(members.values(), counts, strict=True):
        shuffled = [patients[i] for i in rng.permutation(len(patients))]
        role_of |= zip(shuffled, np.repeat(ROLES, numbers).tolist(), strict=True)
    roles = cases["patient"].map(role_of)
    return cases.assign(role=roles.astype(str)), Split(seed=seed, shares=shares, strata=STRATA)


def rows_with_fewer_members(cases: pd.DataFrame, count: int, seed: int) -> np.ndarray:
    """The rows that stay when `count` member patients do, in like shares of every stratum; other roles all stay.

    Who stays is drawn at random, so that an exact test within the strata of the split holds as before.
    """
    if seed < 0:
        raise ConfigError("the seed of a split must not be negative", value=seed)
    members = _by_stratum(strata(cases[cases["role"] == "member"]))
    total = sum(map(len, members.values()))
    if not 1 <= count <= total:
        raise ConfigError("there are not so many member patients to keep", value=count, remedy=f"there are {total}")
    rng = np.random.default_rng([seed, *b"fewer"])
    sizes = np.array([len(patients) for patients in members.values()], float)
    shares = np.outer(sizes, [count / total, 1 - count / total])
    counts = controlled_rounding(shares, [stratum[0] for stratum in members], rng)[:, 0]
    kept: set[str] = set()
    for patients, number in zip(members.values(), counts.tolist(), strict=True):
        kept |= {patients[i] for i in rng.permutation(len(patients))[:number]}
    stays = (cases["role"] != "member") | cases["patient"].isin(kept)
    return np.flatnonzero(stays.to_numpy())


def strata(cases: pd.DataFrame, by: Sequence[str] = STRATA) -> dict[str, Stratum]:
    """The stratum of every named patient, in the order of names: its values of the columns `by`.

    A patient whose images have several values (classes, say) has them joined by `+`; empty ones do not count.
    """
    named = cases.loc[cases["patient"] != "", ["patient", *by]].drop_duplicates()
    found: defaultdict[str, list[set[str]]] = defaultdict(lambda: [set() for _ in by])
    for patient, *values in named.itertuples(index=False, name=None):
        for seen, value in zip(found[patient], values, strict=True):
            seen.add(value)
    return {patient: tuple("+".join(sorted(seen - {""})) for seen in found[patient]) for patient in sorted(found)}


def roles_digest(cases: pd.DataFrame) -> str:
    """A fingerprint of who had which role: a run keeps it, so that roles drawn anew after training are noticed."""
    pairs = sorted(set(zip(cases["patient"], cases["role"], strict=True)))
    return hashlib.sha256("".join(f"{patient}\0{role}\n" for patient, role in pairs).encode()).hexdigest()


def nested(fine: Mapping[str, Stratum], coarse: Mapping[str, Stratum]) -> bool:
    """Whether every stratum of `fine` lies within one of `coarse`: then a draw within `coarse` is one within `fine`."""
    return all(len({coarse[patient] for patient in patients}) == 1 for patients in _by_stratum(fine).values())


def _by_stratum(of_patient: Mapping[str, Stratum]) -> dict[Stratum, list[str]]:
    found: defaultdict[Stratum, list[str]] = defaultdict(list)
    for patient in sorted(of_patient):
        found[of_patient[patient]].append(patient)
    return dict(sorted(found.items()))
