"""From numbers to one of five words, and to sentences that can be read aloud. It measures nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fedsynth.evaluation.bootstrap import trials_for_bound
from fedsynth.evaluation.cohort import Cohort
from fedsynth.evaluation.memorization.dependence import LEVEL, Dependence
from fedsynth.evaluation.memorization.effect import Effect, percent
from fedsynth.evaluation.memorization.replication import SMALLEST_COHORT, Copies
from fedsynth.evaluation.permutation_test import fewest_patients
from fedsynth.evaluation.score import Score

Word = Literal["pass", "leak", "depends", "inconclusive", "invalid"]
PASS, LEAK, NEITHER = 0, 1, 3
"""Exit codes; 2 is bad input."""
POWER, LEAST_POWER = 0.8, 0.5
"""The power that is planned for where none could be measured. With less than the second, no number of images passes:
all copies may be of a patient whose copies are not seen."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Findings:
    """Everything that a verdict rests on.

    `copied` and `control` are the numbers of synthetic images that count as copies of members and of holdout
    patients; `equal` of the former are the same bytes as a member's image; `both_roles` more would copy
    persons who stand among members and holdout both. `power` is the measured chance that a
    positive control is found, of the kind found least, `power_low` the lower end of its 95 % interval; None where none
    could be inserted. `broken` says which controls failed, `unseen` which part of the output nothing looked at, and
    `left_out` names the spaces that fit the sets and were not asked. `effect` is how much single patients are told.
    """

    n_synthetic: int
    cohort: Cohort
    dependence: Dependence
    copies: Copies
    copied: int
    control: int
    equal: int
    share: Score
    power: float | None
    power_low: float | None
    weakest: str
    detectable: float | None
    tolerance: float
    broken: Sequence[str]
    unseen: str = ""
    left_out: Sequence[str] = ()
    effect: Effect | None = None
    both_roles: int = 0


@dataclass(frozen=True, kw_only=True)
class MemorizationVerdict:
    """The verdict, and why, sentence by sentence."""

    verdict: Word
    sentences: tuple[str, ...]


def memorization_verdict(found: Findings) -> MemorizationVerdict:
    """The rule of the design: what is found beats what could not be known, and only what was looked for passes."""
    if found.equal:
        return _verdict("leak", _leak(found), _effect(found), *found.broken)
    if found.broken:
        return _verdict("invalid", "These numbers mean nothing: " + "; ".join(found.broken) + ".")
    against = found.control + found.both_roles  # the latter count against a leak, as if all were the holdout's
    if against and against * found.cohort.n_members >= found.copied * found.cohort.n_holdout:
        return _verdict("invalid", _copies_of_holdout(found), _roles_mixed(found))
    if found.copied:
        return _verdict("leak", _leak(found), _roles_mixed(found), _dependence(found), _effect(found))
    if found.dependence.rejects:
        return _verdict("depends", _dependence(found), _no_copy(found), _effect(found))
    if missing := list(_missing(found)):
        return _verdict("inconclusive", *missing, _no_copy(found), _would_decide(found))
    said = (_dependence(found), _no_copy(found), _effect(found), _resolved(found), _left_out(found))
    return _verdict("pass", *said, NO_PROOF)


def exit_code(verdict: str) -> int:
    """What a release script stops on."""
    return {"pass": PASS, "leak": LEAK}.get(verdict, NEITHER)


NO_PROOF = "This is no proof of privacy: it says that no copies and no dependence were found with the power told."


def bound(found: Findings) -> float:
    """The largest copied share that the findings leave standing (95 %), copies that were not seen included.

    It is the upper end of the copied share wherever that is shown, so that there is one bound.

    The upper end of the share's 95 % interval over the lower end of the power's: each is wrong in 2.5 % of all cases
    at most, so their quotient is in 5 %, however they depend on each other.
    """
    if not found.power_low or found.share.high is None:
        return 1.0
    return min(1.0, found.share.high / found.power_low)


def _verdict(verdict: Word, *sentences: str) -> MemorizationVerdict:
    return MemorizationVerdict(verdict=verdict, sentences=tuple(filter(None, sentences)))


def _leak(found: Findings) -> str:
    patients = len({int(patient) for patient in found.copies.patients if found.cohort.member[patient]})
    whose = "of a patient who was trained on" if patients == 1 else f"of {patients} patients who were trained on"
    equal = f"; {found.equal} of them equal to a member's image, byte for byte" if found.equal else ""
    return (
        f"{found.copied} of {_count(found.n_synthetic, 'synthetic image')} "
        f"{'is a copy' if found.copied == 1 else 'are copies'} {whose}{equal}. "
        f"Of holdout patients, who cannot have been copied, there {'is' if found.control == 1 else 'are'} "
        f"{found.control or 'none'}."
    )


def _copies_of_holdout(found: Findings) -> str:
    if not found.control:
        return f"{found.copied or 'No'} of {_count(found.n_synthetic, 'synthetic image')} count as copies of members."
    return (
        f"{found.control} of {_count(found.n_synthetic, 'synthetic image')} count as copies of holdout patients and "
        f"{found.copied} as copies of members. Nobody in the holdout can have been copied: either the generator was "
        "trained on them as well, then these are leaks, or the images of a person stand in both roles. Look at the "
        "pairs before anything is shared."
    )


def _roles_mixed(found: Findings) -> str:
    if not found.both_roles:
        return ""
    return (
        f"{_count(found.both_roles, 'synthetic image')} more {'lies' if found.both_roles == 1 else 'lie'} as near as "
        "copies to patients who have a double, or somebody who looks like one, in the other role: for these patients "
        "members and holdout are not apart, and the images prove no copying. Look at the pairs (alike_patients)."
    )


def _dependence(found: Findings) -> str:
    test = found.dependence
    if test.p_value is None:
        return f"Whether the output depends on who was trained on could not be tested: {test.why}."
    if test.avoids:
        return (
            f"The output keeps away from those trained on more than chance allows (p = {test.avoidance_p:.2g}): "
            "it was chosen or filtered with their images at hand, and where it is missing tells who they are."
        )
    if test.rejects:
        return (
            f"The output depends on who was trained on (p = {test.p_value:.2g}): as a whole, or in what points to "
            "single patients, it lies nearer to the members than chance allows. Any model learns something from its "
            "members."
        )
    return (
        f"No sign that the output depends on who was trained on (p = {test.p_value:.2g}). This test "
        f"{alone_could_reject(test)}; those would show as copies."
    )


def _no_copy(found: Findings) -> str:
    if found.copies.why:
        return f"Copies could not be looked for: {found.copies.why}."
    if found.copied:
        return ""
    if bound(found) >= 1:
        return (
            "No synthetic image counts as a copy of a patient, but copies like the positive controls "
            f"({found.weakest or 'of any kind'}) are hardly ever found here: nothing bounds the share of such output."
        )
    return f"No synthetic image is a copy of a patient; at most {percent(bound(found))} of such output are (95 %)."


def _resolved(found: Findings) -> str:
    detectable = "nothing" if found.detectable is None else percent(found.detectable)
    return (
        f"Positive controls making up {detectable} of the output are found in 8 of 10 sets, also of the kind found "
        f"least ({found.weakest}); the tolerance is {percent(found.tolerance)}."
    )


def _effect(found: Findings) -> str:
    return "" if found.effect is None else str(found.effect)


def _would_decide(found: Findings) -> str:
    """How many images and patients a decision takes at least, whatever else is missing."""
    if (found.power or 0.0) < LEAST_POWER:
        return (
            f"What would decide: more patients, at least {_patients_needed(found)}, or images in which patients are "
            "easier to tell apart; with so little power no number of synthetic images does."
        )
    images = trials_for_bound(min(0.99, found.tolerance * (found.power_low or POWER)))
    if found.detectable is not None:
        images = max(images, int(np.ceil(found.detectable * found.n_synthetic / found.tolerance)))
    patients = _patients_needed(found)
    why = ", whose roles are drawn before training" if found.cohort.not_drawn else ""
    return f"What would decide: at least {images} synthetic images and {patients} patients{why}."


def _patients_needed(found: Findings) -> int:
    """As many as there are, where that is enough; otherwise at least as many as make the tests possible."""
    there = len(found.cohort)
    share = found.cohort.n_members / there if 0 < found.cohort.n_members < there else 0.5
    needed = max(there, SMALLEST_COHORT) if (found.power or 0.0) >= LEAST_POWER else max(2 * there, SMALLEST_COHORT)
    if found.dependence.p_value is not None or found.cohort.not_drawn:
        return needed
    while fewest_patients(np.arange(needed) < round(share * needed), np.zeros(needed), LEVEL) is None:
        needed += 1
    return needed


def _left_out(found: Findings) -> str:
    if not found.left_out:
        return ""
    return f"Only some spaces were asked. Copies that show in {_listed(found.left_out)} alone were not looked for."


def _missing(found: Findings) -> list[str]:
    """Why there is no answer, each with what would give one."""
    said = [found.unseen] if found.unseen else []
    if found.dependence.p_value is None:
        said.append(_dependence(found))
    if found.copies.why:
        said.append(f"{_no_copy(found)} {SMALLEST_COHORT} real patients would do.")
        return said
    if not found.power:
        said.append(
            f"Positive controls ({found.weakest or 'of any kind'}) are not found, so nothing was shown by silence."
        )
        return said
    if found.power < LEAST_POWER:
        said.append(
            f"Only {percent(found.power)} of positive controls ({found.weakest}) are found, and a pass needs "
            f"{percent(LEAST_POWER)}: whoever is copied may be one of those whose copies are not seen. More real "
            "patients would do."
        )
    if bound(found) > found.tolerance and found.power >= LEAST_POWER:
        said.append(
            f"Up to {percent(bound(found))} of the output could be copies (95 %), and the tolerance is "
            f"{percent(found.tolerance)}: {_enough(found)} synthetic images without a copy would do."
        )
    if found.detectable is None or found.detectable > found.tolerance:
        at = "no share" if found.detectable is None else f"only {percent(found.detectable)}"
        said.append(
            f"Of positive controls ({found.weakest}) {at} of the output is found in 8 of 10 sets, and the tolerance is "
            f"{percent(found.tolerance)}."
        )
    return said


def _enough(found: Findings) -> int:
    assert found.power_low
    return trials_for_bound(min(0.99, found.tolerance * found.power_low))


def alone_could_reject(test: Dependence) -> str:
    """From how many patients on the dependence test could see a leak at all."""
    if test.min_patients is None:
        return f"can never reject at p <= {LEVEL:g} with so few patients"
    return f"sees leaks of {_count(test.min_patients, 'patient')} or more, of fewer only by luck"


def _count(n: int, of: str) -> str:
    return f"{n} {of}{'' if n == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
