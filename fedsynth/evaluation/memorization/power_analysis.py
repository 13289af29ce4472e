"""What a leakage test of so many patients and synthetic images could resolve, said before anything is trained.

It computes from numbers alone, sees no images, and promises no more than the best case: a space in which every copy is
found. What a space really finds is measured in every run by planting copies.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from fedsynth.data.roles import Shares
from fedsynth.data.split import draw_roles, strata
from fedsynth.errors import ConfigError
from fedsynth.evaluation.bootstrap import trials_for_bound, zero_hit_bound
from fedsynth.evaluation.memorization.dependence import LEVEL as ALPHA
from fedsynth.evaluation.memorization.replication import SMALLEST_COHORT
from fedsynth.evaluation.multiple_testing import fewest_discoveries, resolution_limit
from fedsynth.evaluation.permutation_test import fewest_patients, highest_power

POWER = 0.8
"""The smallest detectable share is the one found this often."""
FALSE_POSITIVES = 10
"""A true-positive rate is given only where so many holdout patients are expected among the false positives."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What so many patients and images can show. None where no number of copied patients would do.

    `share_bound`: the copied share that no hit among the synthetic images leaves standing (95 %);
    `share_bound_at_power`: the same when the spaces find only eight copies of ten. `fewest_copied`: copied patients,
    however often, below which dependence rejects by luck only, `luck` being how often at one fewer; with
    `surely_copied` it is no luck wherever they lie. `shortest_list`: copied patients of one site below which its list
    of patients stays empty. `image_share`: copied share below which no single image's p-value is significant.
    """

    patients: int
    slices: int
    sites: int
    members: int
    holdout: int
    synthetic: int
    tolerance: float
    alpha: float
    rate: float
    share_bound: float
    share_bound_at_power: float
    fewest_copied: int | None
    surely_copied: int | None
    luck: float
    shortest_list: int | None
    image_share: float
    smallest_false_positive_rate: float | None
    synthetic_needed: int
    patients_needed: int | None

    @property
    def enough(self) -> bool:
        """Whether a pass is possible at all with these numbers."""
        return self.patients_needed == self.patients and self.synthetic >= self.synthetic_needed

    def as_json(self) -> dict[str, Any]:
        """Plain values, and whether a pass is possible."""
        return asdict(self) | {"enough": self.enough}

    def __str__(self) -> str:
        return "\n".join([*self._given(), *self._resolved(), self._conclusion()])

    def _given(self) -> list[str]:
        images = self.patients * self.slices
        where = "" if self.sites == 1 else f" at {self.sites} sites"
        return [
            f"{_count(self.patients, 'patient')}{where} with {_count(self.slices, 'image')} each ({images} real "
            f"images): {self.members} members, {self.holdout} holdout; {_count(self.synthetic, 'synthetic image')}.",
        ]

    def _resolved(self) -> list[str]:
        return [
            f"Copied share: if no image is found to be a copy, at most {_percent(self.share_bound)} of the output are "
            f"copies (95 %), {_percent(self.share_bound_at_power)} where only {_percent(POWER)} of them are seen.",
            f"Dependence (p <= {self.alpha:g}): {self._dependence()}",
            f"Extraction: {self._extraction()}",
            f"List of patients ({_percent(self.rate)} false discoveries): {self._list()}",
            f"Single images: {self._single()}",
            f"Membership inference: {self._membership()}",
        ]

    def _dependence(self) -> str:
        if self.fewest_copied is None:
            return "could only reject by luck with so few patients, so a run is inconclusive."
        sure = "" if self.surely_copied == self.fewest_copied else f" ({self.surely_copied} where it is hardest)"
        return (
            f"can see {self.fewest_copied} copied members or more{sure}. With fewer, however often copied, it rejects "
            f"by luck only (with one fewer in {_percent(self.luck)} of all cases at most)."
        )

    def _extraction(self) -> str:
        if self.members + self.holdout < SMALLEST_COHORT:
            return f"needs at least {SMALLEST_COHORT} members and holdout patients, so a run is inconclusive."
        return "one copy is enough in the best case. How near a copy must be, positive controls show in the run."

    def _list(self) -> str:
        if self.shortest_list is None:
            return f"always empty, there are too few holdout patients{'' if self.sites == 1 else ' at a site'}."
        there = "" if self.sites == 1 else " of one site"
        return f"empty unless at least {self.shortest_list} members{there} stand out above every holdout patient there."

    def _single(self) -> str:
        if self.image_share > 1:
            return "no p-value can be small enough to single one out; they are annotation."
        return f"p-values single out copies only from {_percent(self.image_share)} of all on; they are annotation."

    def _membership(self) -> str:
        if self.smallest_false_positive_rate is None:
            return f"no true-positive rate is resolvable with fewer than {10 * FALSE_POSITIVES} holdout patients."
        return (
            f"true-positive rates are resolvable down to a false-positive rate of "
            f"{_percent(self.smallest_false_positive_rate)}."
        )

    def _conclusion(self) -> str:
        if self.enough:
            return f"Enough for a pass at a tolerance of {_percent(self.tolerance)}, if the spaces see the copies."
        missing = []
        if self.synthetic < self.synthetic_needed:
            missing.append(f"{self.synthetic_needed} synthetic images")
        if self.patients_needed != self.patients:
            missing.append("more patients" if self.patients_needed is None else f"{self.patients_needed} patients")
        return (
            f"Not enough for a pass at a tolerance of {_percent(self.tolerance)}, whatever comes out: draw or collect "
            f"{' and '.join(missing)}."
        )


def plan(
    *,
    patients: int,
    slices: int,
    synthetic: int,
    tolerance: float = 0.01,
    shares: Shares | None = None,
    sites: int = 1,
    alpha: float = ALPHA,
    rate: float = 0.1,
) -> Plan:
    """What the leakage tests could resolve for so many patients, images of each and synthetic images.

    Patients are spread evenly over `sites` and get their roles as `fedsynth split` draws them. `alpha` is the level
    of the dependence test, `rate` the false-discovery rate of the list of patients.
    """
    for name, value in (("patients", patients), ("slices", slices), ("synthetic", synthetic), ("sites", sites)):
        if value < 1:
            raise ConfigError(f"'{name}' must be at least 1", value=value)
    if not 0 < tolerance < 1:
        raise ConfigError("the tolerance is a share between 0 and 1", value=tolerance)
    shares = Shares() if shares is None else shares
    role, stratum, site = _roles(patients, sites, shares)
    tested = role != "reference"
    member, within = role[tested] == "member", stratum[tested]
    n_members, n_holdout = int(member.sum()), int((~member).sum())
    fewest = fewest_patients(member, within, alpha)
    rates = [rate for rate in (0.1, 0.01, 0.001) if round(n_holdout * rate, 9) >= FALSE_POSITIVES]
    bound = zero_hit_bound(synthetic)
    return Plan(
        patients=patients,
        slices=slices,
        sites=sites,
        members=n_members,
        holdout=n_holdout,
        synthetic=synthetic,
        tolerance=tolerance,
        alpha=alpha,
        rate=rate,
        share_bound=bound,
        share_bound_at_power=min(1.0, bound / POWER),
        fewest_copied=fewest,
        surely_copied=fewest_patients(member, within, alpha, placed="worst"),
        luck=highest_power(member, within, n_members if fewest is None else fewest - 1, alpha),
        shortest_list=_shortest_list(member, site[tested], rate),
        image_share=resolution_limit(n_holdout, 0.05),
        smallest_false_positive_rate=min(rates, default=None),
        synthetic_needed=trials_for_bound(tolerance * POWER),
        patients_needed=_enough_patients(patients, sites, shares, alpha),
    )


def _roles(patients: int, sites: int, shares: Shares) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    site = np.sort(np.arange(patients) % sites)
    cases = pd.DataFrame({"patient": [f"{i:07}" for i in range(patients)], "site": site.astype(str)})
    drawn, split = draw_roles(cases.assign(role="", **{"class": ""}), shares, 0)
    of_patient = strata(drawn, split.strata)
    numbers = {stratum: i for i, stratum in enumerate(sorted(set(of_patient.values())))}
    return drawn["role"].to_numpy(str), np.array([numbers[of_patient[name]] for name in drawn["patient"]]), site


def _shortest_list(member: np.ndarray, site: np.ndarray, rate: float) -> int | None:
    """Of the site where the list can be shortest; lists are made site by site."""
    sizes = [(int(member[site == number].sum()), int((~member[site == number]).sum())) for number in np.unique(site)]
    found = [fewest_discoveries(n_members, n_holdout, rate) for n_members, n_holdout in sizes if n_members]
    return min((number for number in found if number is not None), default=None)


def _enough_patients(patients: int, sites: int, shares: Shares, alpha: float) -> int | None:
    """The fewest patients, from these on, with which both deciding tests mean something; None where none would do."""
    if not shares.member or not shares.holdout:
        return None
    for more in range(patients, patients + 40 * sites + 100):
        role, stratum, _ = _roles(more, sites, shares)
        tested = role != "reference"
        enough = tested.sum() >= SMALLEST_COHORT
        if enough and fewest_patients(role[tested] == "member", stratum[tested], alpha) is not None:
            return more
    return None


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def _count(n: int, of: str) -> str:
    return f"{n} {of}{'' if n == 1 else 's'}"
