"""The memorization benchmark as a whole: evidence in, result out.

It puts the parts together in their order and knows no statistics of its own.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsynth.data.lazy_arrays import take
from fedsynth.evaluation.blind_baseline import Blind
from fedsynth.evaluation.evidence import Evidence, without_masks
from fedsynth.evaluation.feature_spaces import Space, copy_spaces, default_spaces, spaces_named
from fedsynth.evaluation.memorization import negative_controls as negative
from fedsynth.evaluation.memorization.comparators import RealAndSynthetic, compare_spaces
from fedsynth.evaluation.memorization.controls_of_real_images import controls_of_real_images
from fedsynth.evaluation.memorization.copied_patients import (
    Annotation,
    FlaggedPatients,
    annotate,
    copied_share,
    flag_patients,
)
from fedsynth.evaluation.memorization.dependence import Dependence, dependence_of
from fedsynth.evaluation.memorization.distance_tables import (
    MeasuredSpace,
    Step,
    measure_spaces,
    of_whole_images,
    real_tables,
    tables,
)
from fedsynth.evaluation.memorization.effect import Effect, effect_of
from fedsynth.evaluation.memorization.negative_controls import Control
from fedsynth.evaluation.memorization.patient_evidence import PatientEvidence, patient_evidence
from fedsynth.evaluation.memorization.positive_controls import (
    KINDS,
    SHORT,
    Power,
    make_positive_control,
)
from fedsynth.evaluation.memorization.replication import (
    Copies,
    Reference,
    find_copies,
    in_both_roles,
    learn_reference,
    with_equal,
    without,
)
from fedsynth.evaluation.memorization.verdict import Findings, MemorizationVerdict, bound, memorization_verdict
from fedsynth.evaluation.nearest_neighbours import PatientDistances
from fedsynth.evaluation.score import Score
from fedsynth.evaluation.settings import MemorizationSettings
from fedsynth.evaluation.shared_cache import SharedCache

MASKS = "masks"
"""Positive controls keep their masks; what the masks give away is no power to find copied images, and distinguished."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Memorization:
    """Everything that was found, for the result, the table and the pictures."""

    evidence: Evidence
    settings: MemorizationSettings
    measured: Mapping[str, MeasuredSpace]
    reference: Reference
    dependence: Dependence
    copies: Copies
    flagged: FlaggedPatients
    annotation: Annotation
    share: Score
    effect: Effect
    powers: Mapping[str, Power]
    controls: Mapping[str, Control]
    blind: Blind
    verdict: MemorizationVerdict
    detectable: float | None
    weakest: str
    bound: float
    comparators: Mapping[str, Mapping[str, Score]]
    seconds: float
    equal: int = field(default=0)


def run_memorization(
    evidence: Evidence,
    settings: MemorizationSettings | None = None,
    *,
    spaces: Sequence[Space] | None = None,
    kept: SharedCache | None = None,
    step: Step = lambda text: None,
) -> Memorization:
    """Hold both deciding tests, positive controls and controls on `evidence`. `step` is told what begins.

    What follows from the real set alone is taken from `kept`, or put there.
    """
    settings = settings or MemorizationSettings()
    begun = time.perf_counter()
    people, seed = evidence.cohort, settings.seed
    chosen = list(spaces) if spaces is not None else choose_spaces(evidence, settings.spaces, kept=kept)
    measured = measure_spaces(chosen, evidence.real, evidence.patient_of, evidence.synthetic, seed=seed, step=step)
    output, real = tables(measured), real_tables(measured)
    step("copies")
    reference = learn_reference(real, evidence.patient_of, len(people), len(evidence.synthetic))
    copies = find_copies(output, reference, blank=evidence.blank)
    copies = with_equal(copies, [(row, int(evidence.patient_of[other])) for row, other in evidence.equal])
    apart = in_both_roles(reference.person, people.member)
    telling = without(copies, apart)
    step("dependence")
    whole, evident = tables(of_whole_images(measured)), patient_evidence(output, reference, len(people))
    dependence = dependence_of(whole, reference.floors, people, seed=seed, evidence=evident)
    share = copied_share(telling, people, len(evidence.synthetic), distinct=evidence.distinct, seed=seed)
    powers = _all_positive_controls(evidence, measured, reference, settings, step)
    weakest, detectable = _least_power(powers, evidence.distinct)
    step("controls")
    others = spaces is not None or any(Path(name).suffix for name in settings.spaces)
    keep = SharedCache() if others or kept is None else kept
    alone = controls_of_real_images(evidence, measured, reference.person, settings, keep)
    held = (*alone.honest, *_controls(evidence, measured, reference, settings, evident))
    controls, blind = {control.name: control for control in held}, alone.blind
    flagged = flag_patients(whole, real, evidence.patient_of, reference, people)
    effect = effect_of(flagged.scores if evident is None else evident.highest, telling, people, apart=apart)
    findings = Findings(
        n_synthetic=len(evidence.synthetic),
        cohort=people,
        dependence=dependence,
        copies=copies,
        copied=telling.of(people.member),
        control=telling.of(~people.member),
        both_roles=len(copies.rows) - len(telling.rows),
        equal=evidence.equal_to_members,
        share=share,
        power=powers[weakest].share if weakest else None,
        power_low=powers[weakest].low if weakest else None,
        weakest=weakest,
        detectable=detectable,
        tolerance=settings.tolerance,
        broken=tuple(negative.broken(controls, blind)),
        unseen=evidence.unseen,
        left_out=tuple(space.name for space in choose_spaces(evidence) if space.name not in measured),
        effect=effect,
    )
    first = next(iter(measured))
    step("comparators")
    return Memorization(
        evidence=evidence,
        settings=settings,
        measured=measured,
        reference=reference,
        dependence=dependence,
        copies=copies,
        flagged=flagged,
        effect=effect,
        annotation=annotate(output[first], real[first], evidence.patient_of, people),
        share=replace(share, high=bound(findings)),
        powers=powers,
        controls=controls,
        blind=blind,
        verdict=memorization_verdict(findings),
        detectable=detectable,
        weakest=weakest,
        bound=bound(findings),
        comparators=compare_spaces(_sets(evidence, of_whole_images(measured)), seed=seed),
        equal=len(evidence.equal),
        seconds=time.perf_counter() - begun,
    )


def choose_spaces(evidence: Evidence, names: Sequence[str] = (), *, kept: SharedCache | None = None) -> list[Space]:
    """The named spaces, or all that fit; masks are compared only where both sets have them alike."""
    alike = evidence.real.header.mask_labels == evidence.synthetic.header.mask_labels
    given = evidence.real if alike else without_masks(evidence.real)
    if names:
        return spaces_named(tuple(names), given, kept=kept)
    return [*default_spaces(given, kept=kept), *copy_spaces(given)]


def _all_positive_controls(
    evidence: Evidence,
    measured: Mapping[str, MeasuredSpace],
    reference: Reference,
    settings: MemorizationSettings,
    step: Step,
) -> dict[str, Power]:
    powers = {}
    for kind in KINDS if settings.full else SHORT:
        step(f"planting copies: {kind}")
        inserted = make_positive_control(evidence.real, evidence.patient_of, kind, seed=settings.seed)
        if inserted is None:
            continue
        seen = {name: space.against(inserted.images, hidden=inserted.hidden) for name, space in measured.items()}
        owners = evidence.patient_of[inserted.sources]
        by_space = {name: _found({name: table}, reference, owners) for name, table in seen.items()}
        # a positive control's mask is never altered
        images = {name: table for name, table in seen.items() if name != MASKS}
        found = _found(images, reference, owners) if images else 0
        powers[kind] = Power(found=found, inserted=len(owners), by_space=by_space)
    return powers


def _found(seen: Mapping[str, PatientDistances], reference: Reference, owners: NDArray[np.int64]) -> int:
    """How many positive controls count as copies of the patient they were made from."""
    copies = find_copies(seen, reference)
    return int((reference.person[copies.patients] == reference.person[owners[copies.rows]]).sum())


def _least_power(powers: Mapping[str, Power], n_synthetic: int) -> tuple[str, float | None]:
    """The kind of copy found least of those that count, and the smallest share of it found in 80 % of all sets."""
    counted = {kind: powers[kind] for kind in SHORT if kind in powers}
    if not counted:
        return "", None
    weakest = min(counted, key=lambda kind: counted[kind].share)
    return weakest, counted[weakest].smallest_share(n_synthetic)


def _controls(
    evidence: Evidence,
    measured: Mapping[str, MeasuredSpace],
    reference: Reference,
    settings: MemorizationSettings,
    evident: PatientEvidence | None,
) -> list[Control]:
    """Those that look at the synthetic images."""
    output, people = tables(of_whole_images(measured)), evidence.cohort
    given: dict[str, Any] = {"seed": settings.seed, "repeats": settings.control_repeats, "evidence": evident}
    return [
        negative.shuffled_roles(output, reference.floors, people, **given),
        negative.split_among_members(output, reference.floors, people, **given),
    ]


def _sets(evidence: Evidence, measured: Mapping[str, MeasuredSpace]) -> dict[str, RealAndSynthetic]:
    owners = evidence.patient_of
    member = np.flatnonzero(evidence.cohort.member[owners])
    holdout = np.flatnonzero(~evidence.cohort.member[owners])
    return {
        name: RealAndSynthetic(
            members=take(space.references, member),
            member_patients=owners[member],
            holdout=take(space.references, holdout),
            holdout_patients=owners[holdout],
            synthetic=space.features,
        )
        for name, space in measured.items()
    }
