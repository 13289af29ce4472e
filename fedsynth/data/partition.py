"""Sharing one pooled image set out to hospitals by patient. A patient is never split, and keeps its role."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedsynth.data.split import controlled_rounding, strata
from fedsynth.errors import ConfigError, ImageSetError, nearest

Scheme = Literal["natural", "iid", "dirichlet", "quantity"]
_WITH_ALPHA = ("dirichlet", "quantity")


@dataclass(frozen=True, kw_only=True)
class Partition:
    """How patients come to hospitals.

    `natural`: by the set's own site column. `iid`: equal numbers at random. `dirichlet`: the patients of each class are
    spread in proportions drawn from Dirichlet(alpha), so hospitals differ in case mix and size (Hsu et al. 2019,
    arXiv:1909.06335). `quantity`: one such draw for all classes, so they differ in size alone. Small alpha: unequal.
    """

    scheme: Scheme = "natural"
    alpha: float | None = None

    def __post_init__(self) -> None:
        if (self.alpha is not None) != (self.scheme in _WITH_ALPHA):
            problem = "needs no ALPHA" if self.alpha is not None else f"needs an ALPHA, as in {self.scheme}:0.5"
            raise ConfigError(f"the partition {self.scheme!r} {problem}", value=self.alpha)
        if self.alpha is not None and not 0 < self.alpha < float("inf"):
            raise ConfigError("the ALPHA of a partition must be a positive number", value=self.alpha)

    @classmethod
    def parse(cls, text: str) -> "Partition":
        """Read `natural`, `iid`, `dirichlet:ALPHA` or `quantity:ALPHA`."""
        scheme, colon, number = text.partition(":")
        if scheme not in get_args(Scheme):
            remedy = nearest(scheme, get_args(Scheme))
            raise ConfigError("unknown partition", value=text, remedy=remedy)
        try:
            return cls(scheme=scheme, alpha=float(number) if colon else None)  # type: ignore[arg-type]
        except ValueError:
            raise ConfigError("the ALPHA of a partition must be a positive number", value=text) from None

    def __str__(self) -> str:
        return self.scheme if self.alpha is None else f"{self.scheme}:{self.alpha:g}"


def assign_sites(
    cases: pd.DataFrame, partition: Partition, seed: int, sites: int | Sequence[str] | None = None
) -> dict[str, str]:
    """The hospital of every named patient in `cases`.

    `sites` is how many hospitals, or their names; only `natural` can do without. Patients are drawn within their role,
    so that members, holdout and reference come to a hospital in like proportions; every hospital gets a patient, and
    a member and a holdout patient wherever there are enough: where a draw would leave one without, the drawn shares
    are mixed with equal ones, just as far as that takes. The result depends on patients, classes, roles and seed, not
    on the order of rows.
    """
    if partition.scheme == "natural":
        return _natural(cases, sites)
    names = _site_names(sites, partition)
    kind_of = strata(cases, ["role", "class"] if partition.scheme == "dirichlet" else ["role"])
    if len(names) > len(kind_of):
        problem = f"more sites ({len(names)}) than patients ({len(kind_of)})"
        raise ImageSetError(problem, remedy="ask for fewer sites or give more patients")
    rng = np.random.default_rng([_checked(seed), *b"sites"])
    kinds = sorted(set(kind_of.values()))
    patients = [[patient for patient, kind in kind_of.items() if kind == wanted] for wanted in kinds]
    sizes = np.array([len(group) for group in patients])
    roles = [kind[0] for kind in kinds]
    shares = _enough_for_each(sizes, roles, _drawn_shares(partition, kinds, len(names), rng))
    counts = controlled_rounding(sizes[:, None] * shares, roles, rng)
    site_of: dict[str, str] = {}
    for group, numbers in zip(patients, counts, strict=True):
        shuffled = [group[i] for i in rng.permutation(len(group))]
        site_of |= zip(shuffled, np.repeat(names, numbers).tolist(), strict=True)
    return site_of


def _drawn_shares(
    partition: Partition, kinds: list[tuple[str, ...]], n_sites: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """(kinds, sites): the share of each kind's patients that goes to each site. Roles of one class share one draw."""
    if partition.alpha is None:
        return np.full((len(kinds), n_sites), 1 / n_sites)
    labels = sorted({kind[1:] for kind in kinds})
    draws = {label: _dirichlet(partition.alpha, n_sites, rng) for label in labels}
    return np.stack([draws[kind[1:]] for kind in kinds])


def _dirichlet(alpha: float, n_sites: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """One draw. Gamma variates of a tiny shape underflow to zero together: then one site gets everything."""
    gammas = rng.standard_gamma(alpha, n_sites)
    if not 0 < gammas.sum() < np.inf:
        return np.eye(n_sites)[rng.integers(n_sites)] if alpha < 1 else np.full(n_sites, 1 / n_sites)
    return np.asarray(gammas / gammas.sum())


def _enough_for_each(sizes: NDArray[np.int64], roles: list[str], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mix in the least equal share that gives every site one patient, and one of each role that has enough."""
    n_sites = shares.shape[1]
    role = np.array(roles)
    mixed = 0.0
    for rows in [np.full(len(role), True), role == "member", role == "holdout"]:
        equal = sizes[rows].sum() / n_sites
        expected = sizes[rows] @ shares[rows]
        if equal >= 1 and expected.min() < 1:
            mixed = max(mixed, 1.0 if equal == 1 else (1 - expected.min()) / (equal - expected.min()))
    return np.asarray((1 - mixed) * shares + mixed / n_sites)


def _natural(cases: pd.DataFrame, sites: int | Sequence[str] | None) -> dict[str, str]:
    site_of = {patient: site for patient, (site,) in strata(cases, ["site"]).items()}
    for patient, site in site_of.items():
        if not site:
            remedy = "fill the column 'site', or choose the partition iid, dirichlet:ALPHA or quantity:ALPHA"
            raise ImageSetError(f"the patient {patient!r} has no site", remedy=remedy)
    found = sorted(set(site_of.values()))
    if isinstance(sites, int) and sites != len(found):
        remedy = (
            f"leave the number out (sites: {', '.join(found[:20])}), or choose iid, dirichlet:ALPHA, quantity:ALPHA"
        )
        raise ImageSetError(f"the set has {len(found)} sites of its own, not {sites}", remedy=remedy)
    if sites is not None and not isinstance(sites, int):
        for name in sites:
            if name not in found:
                raise ImageSetError(f"a site with no patients: {name!r}", remedy=nearest(name, found))
        site_of = {patient: site for patient, site in site_of.items() if site in sites}
    return site_of


def _site_names(sites: int | Sequence[str] | None, partition: Partition) -> list[str]:
    if sites is None:
        raise ConfigError(f"the partition {str(partition)!r} needs the number of sites")
    names = [f"site-{i + 1}" for i in range(sites)] if isinstance(sites, int) else list(sites)
    if not names:
        raise ConfigError("there must be at least one site", value=sites)
    if len(set(names)) != len(names):
        raise ConfigError("two sites have one name", value=next(name for name in names if names.count(name) > 1))
    return names


def _checked(seed: int) -> int:
    if seed < 0:
        raise ConfigError("the seed of a partition must not be negative", value=seed)
    return seed
