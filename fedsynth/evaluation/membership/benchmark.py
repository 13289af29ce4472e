"""The membership benchmark as a whole: evidence in, result out.

It puts the parts together in their order and knows no statistics of its own. What trained networks think of an image
comes in as a function: it never sees a network.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedsynth.data import ImageSet
from fedsynth.data.lazy_arrays import Stack
from fedsynth.errors import ImageSetError
from fedsynth.evaluation.blind_baseline import facts_of_images, patient_facts
from fedsynth.evaluation.evidence import Evidence
from fedsynth.evaluation.feature_spaces.space import Space, spaces_named
from fedsynth.evaluation.membership.inference import Membership, Released, infer_membership
from fedsynth.evaluation.membership.verdict import (
    MembershipVerdict,
    details_of,
    membership_verdict,
    scores_of,
    site_scores,
)
from fedsynth.evaluation.score import Input, Result
from fedsynth.evaluation.settings import MembershipSettings
from fedsynth.evaluation.shared_cache import SharedCache

NAME = "membership"
MOST_PAIRS = 2.5e7
"""With more pairs of a real and a synthetic image, mirrored and turned views are not looked at."""

Scoring = Callable[[ImageSet], NDArray[np.floating]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Attacked:
    """Everything that was found, for the result, the table and the picture."""

    evidence: Evidence
    settings: MembershipSettings
    found: Membership
    told: MembershipVerdict
    reference: ImageSet | None
    seconds: float


def run_membership(
    evidence: Evidence,
    settings: MembershipSettings | None = None,
    *,
    discriminator: Scoring | None = None,
    reference: ImageSet | None = None,
    kept: SharedCache | None = None,
    step: Callable[[str], None] = lambda text: None,
) -> Attacked:
    """Attack every member and holdout patient of `evidence`.

    `discriminator` scores images, larger for members: what the run's networks think of them. `reference` is a synthetic
    set of a generator that was fitted on the reference patients; without it every other real patient is the reference.
    What follows from the real set alone is taken from `kept`, or put there.
    """
    settings = settings or MembershipSettings()
    begun = time.perf_counter()
    if reference is not None:
        _check_reference(evidence, reference)
    release = evidence.synthetic.rows(np.flatnonzero(~evidence.blank))
    released, facts = {}, [facts_of_images(evidence.real, evidence.cohort)]
    for space in spaces_named(settings.spaces, evidence.real, kept=kept):
        step(f"space {space.name}")
        space.fit(evidence.real, seed=settings.seed)
        released[space.name] = _in_space(space, evidence, release, reference)
        if space.name == "components":
            features = released[space.name].real
            facts.append(patient_facts(features, evidence.patient_of, len(evidence.cohort)))
    step("discriminator")
    judged = None if discriminator is None else discriminator(evidence.real)
    step("attacks and controls")
    found = infer_membership(
        released,
        evidence.cohort,
        evidence.patient_of,
        np.hstack(facts),
        seed=settings.seed,
        discriminator=judged,
        halves=settings.halves,
        permutations=settings.permutations,
    )
    return Attacked(
        evidence=evidence,
        settings=settings,
        found=found,
        told=membership_verdict(found),
        reference=reference,
        seconds=time.perf_counter() - begun,
    )


def as_result(attacked: Attacked) -> Result:
    """In the form that every file and every `--json` has."""
    evidence, seed = attacked.evidence, attacked.settings.seed
    inputs = {"real": evidence.whole, "synthetic": evidence.synthetic}
    if attacked.reference is not None:
        inputs["reference"] = attacked.reference
    return Result(
        benchmark=NAME,
        verdict=attacked.told.verdict,
        scores=scores_of(attacked.found, seed=seed),
        per_site=site_scores(attacked.found, seed=seed),
        details=details_of(attacked.found, attacked.told) | {"notes": list(evidence.notes)},
        inputs={name: Input.of(images) for name, images in inputs.items()},
        seed=seed,
        settings=asdict(attacked.settings),
        seconds=attacked.seconds,
    )


def _in_space(space: Space, evidence: Evidence, release: ImageSet, reference: ImageSet | None) -> Released:
    made = Released(
        real=space.features(evidence.real),
        synthetic=space.features(release),
        reference=None if reference is None else space.features(reference),
    )
    if len(evidence.real) * len(release) > MOST_PAIRS:
        return made
    return replace(made, turned=lambda: _turned(space, evidence.real))


def _turned(space: Space, images: ImageSet) -> Iterable[Stack]:
    views: Sequence[Stack] = list(space.views(images))
    return views[1:]


def _check_reference(evidence: Evidence, reference: ImageSet) -> None:
    if reference.header.origin != "synthetic":
        problem = "the reference must be a synthetic set, of a generator that was fitted on the reference patients"
        raise ImageSetError(problem, file=reference.folder, remedy="leave --reference away: other patients calibrate")
    for what, here, there in (
        ("size", evidence.real.size, reference.size),
        ("channels", evidence.real.header.channels, reference.header.channels),
    ):
        if here != there:
            raise ImageSetError(f"the reference set has another {what}: {there}, not {here}", file=reference.folder)
