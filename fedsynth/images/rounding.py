"""Whole numbers of patients for a table of shares. It knows nothing of what the rows and columns stand for."""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import csr_array, kron, vstack

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
