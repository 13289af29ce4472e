"""The benchmark's own tests as the study of them calls them: tables of distances in, one line of results out."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fedsynth.evaluation.cohort import Cohort
from fedsynth.evaluation.memorization.comparators import RealAndSynthetic, compare
from fedsynth.evaluation.memorization.copied_patients import copied_share, flag_patients
from fedsynth.evaluation.memorization.dependence import dependence_of
from fedsynth.evaluation.memorization.patient_evidence import patient_evidence
from fedsynth.evaluation.memorization.replication import (
    Copies,
    Reference,
    find_copies,
    in_both_roles,
    learn_reference,
    without,
)
from fedsynth.evaluation.memorization.verdict import Findings, memorization_verdict
from fedsynth.evaluation.nearest_neighbours import PatientDistances

COMPARATORS = ("authenticity", "c_t", "closer_to_members", "adaptive_extraction")
COLUMNS = ("p_value", "dependence", "copied", "control", "verdict", "listed", "false", *COMPARATORS)

Tables = Mapping[str, PatientDistances]


def decide(
    tables: Tables,
    among: Tables,
    owner: NDArray[np.int64],
    cohort: Cohort,
    seed: int,
    leaked: NDArray[np.int64],
    *,
    whole: Sequence[str] = (),
    copied_rows: NDArray[np.int64] | None = None,
) -> dict[str, object]:
    """Dependence, extraction, the list and the verdict, with the detection power taken for one.

    Dependence looks at images in the spaces `whole`, in all if none are named. `copied_rows` are the patients that the
    first images were made from: how many of these are found as theirs is told as `right`.
    """
    n = len(next(iter(tables.values())).distances)
    reference = learn_reference(among, owner, len(cohort), n)
    copies = find_copies(tables, reference)
    telling = without(copies, in_both_roles(reference.person, cohort.member))
    evidence = patient_evidence(tables, reference, len(cohort))
    asked = {name: tables[name] for name in whole or tables}
    dependence = dependence_of(asked, reference.floors, cohort, seed=seed, evidence=evidence)
    flagged = flag_patients(asked, among, owner, reference, cohort)
    named = [name for of_site in flagged.by_site.values() for name in of_site]
    guilty = {cohort.names[patient] for patient in leaked}
    copied, control = telling.of(cohort.member), telling.of(~cohort.member)
    findings = Findings(
        n_synthetic=n,
        cohort=cohort,
        dependence=dependence,
        copies=copies,
        copied=copied,
        control=control,
        both_roles=len(copies.rows) - len(telling.rows),
        equal=0,
        share=copied_share(telling, cohort, n, seed=seed),
        power=1.0,
        power_low=1.0,
        weakest="",
        detectable=1 / n,
        tolerance=0.01,
        broken=(),
    )
    return {
        "p_value": dependence.p_value,
        "dependence": int(dependence.rejects),
        "copied": copied,
        "control": control,
        "verdict": memorization_verdict(findings).verdict,
        "listed": len(named),
        "false": sum(name not in guilty for name in named),
        "right": _right(copies, reference, copied_rows),
    }


def _right(copies: Copies, reference: Reference, sources: NDArray[np.int64] | None) -> int:
    """How many of the first images are called copies of whom they were made from."""
    if sources is None:
        return 0
    made = copies.rows < len(sources)
    of = reference.person[sources[copies.rows[made]]]
    return int((reference.person[copies.patients[made]] == of).sum())


def compared(
    real: NDArray[np.floating], owner: NDArray[np.int64], synthetic: NDArray[np.floating], cohort: Cohort, seed: int
) -> dict[str, object]:
    """The comparators on the same set, given features in one space."""
    inside = cohort.member[owner]
    sets = RealAndSynthetic(
        members=real[inside],
        member_patients=owner[inside],
        holdout=real[~inside],
        holdout_patients=owner[~inside],
        synthetic=synthetic,
    )
    return {name: score.value for name, score in compare(sets, seed=seed, repeats=0, only=COMPARATORS).items()}
