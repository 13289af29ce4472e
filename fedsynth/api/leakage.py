"""What a synthetic set, or the networks behind it, tell about the patients who were trained on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsynth import config
from fedsynth.api.benchmark_sets import Measured, RunLike, SetLike, Sets, kept_beside, sets_to_measure
from fedsynth.api.progress import Progress
from fedsynth.api.signature import as_given, takes_keywords
from fedsynth.evaluation.settings import MembershipSettings, MemorizationSettings

if TYPE_CHECKING:
    from fedsynth.evaluation.evidence import Evidence
    from fedsynth.evaluation.membership.benchmark import Attacked
    from fedsynth.evaluation.score import Result

STEPS = {"memorization": 16, "membership": 5}
"""About so many steps are told of each."""


@takes_keywords(MemorizationSettings)
def memorization(
    run: RunLike = None,
    *,
    real: SetLike = None,
    synthetic: SetLike = None,
    out: Path | str | None = None,
    export: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> "Result":
    """Does a synthetic set depend on who was trained on, does it copy them, whom, and what would have been noticed?

    Args:
        run: The run; the newest if no sets are given.
        real: A real set with roles, instead of the run's.
        synthetic: A synthetic set, whoever made it.
        out: A folder for the result and pair sheets, or a .json file. Beside SYNTHETIC where no run keeps the result.
        export: Leave out what shows or names a patient: no sheets, names hashed.
        progress: Told how far the work is; log lines if not given.

    Returns:
        The result with its verdict, scores and details.

    Example:
        >>> import fedsynth
        >>> fedsynth.memorization(real="hospitals", synthetic="made").verdict  # doctest: +SKIP
        'pass'
    """
    return measure_memorization(run, real, synthetic, out, export=export, progress=progress, **settings).result


def measure_memorization(
    run: RunLike,
    real: SetLike,
    synthetic: SetLike,
    out: Path | str | None = None,
    *,
    export: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> Measured:
    """The same with everything that was found."""
    read, progress = config.read_table(MemorizationSettings, as_given(settings)), progress or Progress()
    from fedsynth.evaluation.memorization.benchmark import run_memorization
    from fedsynth.evaluation.memorization.pair_sheets import write_pairs
    from fedsynth.evaluation.memorization.result import as_result

    sets, evidence = _evidence(run, real, synthetic, out, progress)
    with _steps(progress, "measuring", STEPS["memorization"]) as step:
        found = run_memorization(evidence, read, kept=kept_beside(sets.keeps), step=step)
    kept = sets.keep(as_result(found), export=export)
    hidden = export or not kept.written or sets.beside is not None  # pair sheets show patients
    pictures = [] if hidden else write_pairs(found, None if sets.out is None else kept.folder)
    return replace(kept, pictures=tuple(pictures), found=found)


@takes_keywords(MembershipSettings)
def membership(
    run: RunLike = None,
    *,
    real: SetLike = None,
    synthetic: SetLike = None,
    reference: SetLike = None,
    out: Path | str | None = None,
    export: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> "Result":
    """Attack every patient: does anything released tell members from the holdout beyond what controls do?

    Args:
        run: The run; the newest if no sets are given. Its own networks are an attack too.
        real: A real set with roles, instead of the run's.
        synthetic: A synthetic set, whoever made it.
        reference: A synthetic set of a generator fitted on the reference patients only.
        out: A folder for the result and its ROC, or a .json file. Beside SYNTHETIC where no run keeps the result.
        export: Leave out what names a patient or a place on a disk.
        progress: Told how far the work is; log lines if not given.

    Returns:
        The result with its verdict, an AUC for every attack, and details.

    Example:
        >>> import fedsynth
        >>> fedsynth.membership("runs/first").verdict  # doctest: +SKIP
        'pass'
    """
    sets = (real, synthetic, reference)
    return measure_membership(run, *sets, out, export=export, progress=progress, **settings).result


def measure_membership(
    run: RunLike,
    real: SetLike,
    synthetic: SetLike,
    reference: SetLike = None,
    out: Path | str | None = None,
    *,
    export: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> Measured:
    """The same with everything that was found."""
    read, progress = config.read_table(MembershipSettings, as_given(settings)), progress or Progress()
    from fedsynth.data import ImageSet
    from fedsynth.evaluation.membership.benchmark import as_result, run_membership
    from fedsynth.training.membership_scores import membership_scorer

    sets, evidence = _evidence(run, real, synthetic, out, progress)
    own = evidence.run is not None and real is None and synthetic is None
    with _steps(progress, "attacking", STEPS["membership"]) as step:
        found = run_membership(
            evidence,
            read,
            discriminator=membership_scorer(evidence.run) if own and evidence.run is not None else None,
            reference=ImageSet.load(reference) if isinstance(reference, Path | str) else reference,
            kept=kept_beside(sets.keeps),
            step=step,
        )
    kept = sets.keep(as_result(found), export=export)
    pictures = () if not kept.written else (_draw(found, kept.folder / "membership-roc.png"),)
    return replace(kept, pictures=pictures, found=found)


def _evidence(
    run: RunLike, real: SetLike, synthetic: SetLike, out: Path | str | None, progress: Progress
) -> "tuple[Sets, Evidence]":
    from fedsynth.evaluation.evidence import gather

    sets = sets_to_measure(run, real, synthetic, out=out, progress=progress, both=True)
    assert sets.synthetic is not None
    return sets, gather(sets.real, sets.synthetic, sets.run)


@contextmanager
def _steps(progress: Progress, text: str, expected: int) -> Iterator[Callable[[str], None]]:
    with progress.bar(text) as advance:
        done = 0

        def step(name: str) -> None:
            nonlocal done
            done += 1
            advance(done, max(done, expected))

        yield step


def _draw(found: "Attacked", path: Path) -> Path:
    from fedsynth.atomic_files import write_bytes
    from fedsynth.evaluation.roc import RESOLVED_BY, roc
    from fedsynth.reporting import figures

    people = found.found.cohort
    rocs = {attack.label: roc(attack.scores, people.member) for attack in found.found.attacks}
    picture = figures.roc(
        {label: (one.false_positive, one.true_positive) for label, one in rocs.items()},
        n_members=people.n_members,
        n_holdout=people.n_holdout,
        resolved=RESOLVED_BY / people.n_holdout,
        title=f"Membership inference: {people.n_members} members, {people.n_holdout} holdout patients",
    )
    write_bytes(path, picture)
    return path
