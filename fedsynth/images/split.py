"""Members, holdout and reference: which patients may be trained on, and which only ever measured against.

Roles are drawn per patient, at random within strata. The exact test of the leakage benchmark rests on this: given how
many of a stratum's patients have each role, every assignment of those roles to its patients is equally likely.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from fedsynth.errors import ConfigError, ImageSetError, RefusedError
from fedsynth.images.header import ROLES, STRATA, Shares, Split
from fedsynth.images.rounding import controlled_rounding

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
