"""The real patients of a leakage test as numbers: who is a member, in which stratum and at which site.

It knows names and roles, not images or distances, so that every deciding test runs on tables of numbers alone.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedsynth.data import ImageSet
from fedsynth.data.format import SPLITS
from fedsynth.data.roles import STRATA
from fedsynth.data.split import strata


@dataclass(frozen=True, kw_only=True, eq=False)
class Cohort:
    """Patients in the order of their names, members and holdout only.

    `stratum` and `site` are numbers, one per patient; `sites` names the sites. `not_drawn` says why the roles cannot
    be taken as drawn at random, and is empty where they can.
    """

    names: tuple[str, ...]
    member: NDArray[np.bool_]
    stratum: NDArray[np.int64]
    site: NDArray[np.int64]
    sites: tuple[str, ...] = ("",)
    not_drawn: str = ""

    @classmethod
    def of(cls, images: ImageSet) -> "Cohort":
        """The patients of a set that holds members and holdout; strata are those that its split records.

        Sets of several hospitals put together, each with roles of its own draw: within each site and class.
        """
        table = images.patients
        drawn_within = _drawn_within(images)
        of_patient = strata(images.cases, drawn_within or ("site",))
        known = sorted(set(of_patient.values()))
        sites = tuple(sorted(set(table["site"])))
        return cls(
            names=tuple(table["patient"]),
            member=(table["role"] == "member").to_numpy(),
            stratum=np.array([known.index(of_patient[name]) for name in table["patient"]]),
            site=np.array([sites.index(name) for name in table["site"]]),
            sites=sites,
            not_drawn="" if drawn_within is not None else "the set does not record how its roles were drawn",
        )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def n_members(self) -> int:
        """How many patients may have been trained on."""
        return int(self.member.sum())

    @property
    def n_holdout(self) -> int:
        """How many real patients cannot have been trained on."""
        return len(self) - self.n_members

    def numbers(self, images: ImageSet) -> NDArray[np.int64]:
        """The patient number of every image of a set of these patients."""
        found: NDArray[np.int64] = np.searchsorted(np.array(self.names), images.cases["patient"].to_numpy(str))
        return found

    def with_members(self, member: NDArray[np.bool_]) -> "Cohort":
        """The same patients under other roles."""
        return replace(self, member=member)


def _drawn_within(images: ImageSet) -> tuple[str, ...] | None:
    """The columns within whose values the roles were drawn at random; None where nothing says that they were.

    A draw within coarser strata is one within finer ones, so site and class serve for every hospital's own split.
    """
    if images.header.split is not None:
        return images.header.split.strata
    draws = images.header.provenance.get(SPLITS)
    if not isinstance(draws, list):
        return None
    recorded = {site for draw in draws if isinstance(draw, dict) for site in draw.get("sites", ())}
    return STRATA if set(images.patients["site"]) <= recorded else None
