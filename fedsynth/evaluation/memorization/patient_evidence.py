"""How much of the output points to every patient, blind to roles, and what members show of it beyond the holdout.

A leak of some members' identities moves the mean over all images little, but puts these members at the head of the
list of all patients. The head is looked at as in higher criticism: at several lengths of it, the number of members
against what chance gives, in standard deviations. It reads tables of distances and knows no images.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedsynth.evaluation.memorization.combined_evidence import TOGETHER, Scales, combine
from fedsynth.evaluation.memorization.ratios import nearest_persons
from fedsynth.evaluation.memorization.replication import Reference
from fedsynth.evaluation.nearest_neighbours import PatientDistances

REGISTERED = "registered"
EMPHASIS = 3.0
"""The space of registered patches tells people apart best, so that it counts for so many."""
HEADS = (0.025, 0.05, 0.075, 0.1, 0.15, 0.2)
"""Heads of the list of patients, as shares of all."""
SHORTEST = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class PatientEvidence:
    """Of every patient (n,), over the images that come nearest to him: the largest evidence of one, and their sum.

    `registered` is the largest in the space of registered patches alone, all zero where that was not asked.
    """

    highest: NDArray[np.float64]
    total: NDArray[np.float64]
    registered: NDArray[np.float64]

    def of(self, patients: NDArray[np.int64]) -> "PatientEvidence":
        """That of some patients, in their order."""
        return replace(
            self, highest=self.highest[patients], total=self.total[patients], registered=self.registered[patients]
        )


def patient_evidence(
    tables: Mapping[str, PatientDistances], reference: Reference, n_patients: int
) -> PatientEvidence | None:
    """From the tables of the output in all spaces; None where there are too few spaces to add them up."""
    if TOGETHER not in reference.thresholds:
        return None
    scales = reference.scales
    depth = {space: usual / (EMPHASIS if space == REGISTERED else 1) for space, usual in scales.depth.items()}
    near = nearest_persons(tables, scales.usual, reference.person)
    seen = combine(near, Scales(usual=scales.usual, depth=depth), reference.person)
    highest, total, registered = (np.zeros(n_patients) for _ in range(3))
    np.maximum.at(highest, seen.patients, seen.depths)
    np.add.at(total, seen.patients, seen.depths)
    if REGISTERED in tables:
        alone = combine({REGISTERED: near[REGISTERED]}, scales, reference.person)
        np.maximum.at(registered, alone.patients, alone.depths)
    return PatientEvidence(highest=highest, total=total, registered=registered)


def patient_statistics(
    evidence: PatientEvidence, roles: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Every statistic (k) under every assignment of `roles` (n, patients): (n, k), and their names."""
    values = [_head(evidence.highest, roles), _weighted(evidence.highest, roles), _head(evidence.total, roles)]
    names = ["patients, highest, head of the list", "patients, highest, log rank", "patients, total, head of the list"]
    if evidence.registered.any():
        values.append(_weighted(evidence.registered, roles))
        names.append("patients, registered, log rank")
    return np.stack(values, axis=1), tuple(names)


def _head(scores: NDArray[np.float64], roles: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The largest surplus of members among the first so many patients, over several numbers, in deviations."""
    n = len(scores)
    lengths = np.unique([max(SHORTEST, round(share * n)) for share in HEADS])
    lengths = lengths[lengths <= n // 2] if n >= 2 * SHORTEST else np.array([1])
    first = np.argsort(-scores, kind="stable")[: lengths[-1]]
    members = roles[:, first].cumsum(axis=1)[:, lengths - 1]
    share = roles.mean(axis=1, keepdims=True)
    surplus = (members - lengths * share) / np.sqrt(np.maximum(lengths * share * (1 - share), 1e-12))
    return np.asarray(surplus.max(axis=1))


def _weighted(scores: NDArray[np.float64], roles: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The sum over members of log(n / rank): the first counts most, the last for nothing."""
    weights = np.empty(len(scores))
    weights[np.argsort(-scores, kind="stable")] = np.log(len(scores) / np.arange(1, len(scores) + 1))
    return np.asarray(roles @ weights)
