"""What a leakage test is held on: real patients with their roles, and synthetic images. Opened and checked.

Everything that would make the tests' numbers mean something else is refused here in one sentence that says what to do.
It reads image sets and run directories, and measures nothing.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedsynth.data import ImageSet
from fedsynth.data.format import TABLE
from fedsynth.data.lazy_arrays import Stack, blocks
from fedsynth.data.site_config import load_sites
from fedsynth.data.sites import open_federation
from fedsynth.errors import ConfigError, ImageSetError
from fedsynth.evaluation.cohort import Cohort
from fedsynth.runs import Run, newest_run, open_run
from fedsynth.training.roles import roles_mark

Given = Run | Path | str | None
Images = ImageSet | Path | str | None
TESTED = ("member", "holdout")
SPLIT_FIRST = "draw them with `fedsynth split` before any training"


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """Members and holdout (`real`), the patient number of each of their images, and the synthetic images.

    `whole` is the real set with all roles, as it was given: by its content every benchmark names the same images.
    `reference` are real images that no test looks at, free for fitting attacks; None where there are none. `blank` are
    synthetic images of one colour, which show nothing; `equal` are pairs of a synthetic and a real image of the same
    bytes. `unseen` says what of the output can be compared with nothing, so that silence about it proves nothing.
    `notes` are what a reader must know. `distinct` synthetic images differ; the others repeat them.
    """

    real: ImageSet
    cohort: Cohort
    patient_of: NDArray[np.int64]
    synthetic: ImageSet
    whole: ImageSet
    reference: ImageSet | None = None
    run: Run | None = None
    blank: NDArray[np.bool_] = field(repr=False)
    equal: tuple[tuple[int, int], ...] = ()
    unseen: str = ""
    notes: tuple[str, ...] = ()
    distinct: int

    @property
    def equal_to_members(self) -> int:
        """How many synthetic images are a member's image, byte for byte."""
        return sum(bool(self.cohort.member[self.patient_of[row]]) for _, row in self.equal)


def open_sets(
    run: Given = None, real: Images = None, synthetic: Images = None, *, both: bool = False
) -> tuple[Run | None, ImageSet, ImageSet | None]:
    """The sets of a run, of the newest when nothing is given, or any two sets; a real set alone will do if not `both`.

    `real` or `synthetic` given beside a run stand in for the run's own.
    """
    if run is None and both and real is not None and synthetic is None:
        raise ConfigError("one of two sets is missing: --synthetic", remedy="give both, or a run")
    if run is None and real is not None:
        return None, _loaded(real), None if synthetic is None else _loaded(synthetic)
    if run is None and synthetic is not None:
        raise ConfigError("one of two sets is missing: --real", remedy="give both, or a run")
    place = newest_run() if run is None else run if isinstance(run, Run) else open_run(Path(run))
    measured = _loaded(real) if real is not None else real_images_of(place)
    return place, measured, _loaded(synthetic) if synthetic is not None else synthetic_images_of(place)


def _loaded(images: ImageSet | Path | str) -> ImageSet:
    return images if isinstance(images, ImageSet) else ImageSet.load(images)


def open_evidence(run: Given = None, real: Images = None, synthetic: Images = None) -> Evidence:
    """The same for a leakage test, which needs both sets; checked against each other."""
    place, measured, drawn = open_sets(run, real, synthetic, both=True)
    assert drawn is not None
    return gather(measured, drawn, place)


def real_images_of(run: Run) -> ImageSet:
    """The real set that a run was trained on, with all roles: of one site, or of all sites together.

    It is refused when its patients or their roles are no longer those of the training: whatever is then measured on
    the holdout may have been measured on patients who were trained on.
    """
    real = _opened(run)
    _refuse_other_roles(real, run)
    return real


def _opened(run: Run) -> ImageSet:
    sites = run.folder / "sites.toml"
    if sites.is_file():
        return open_federation(load_sites(sites), run.folder).pooled
    path = run.settings().get("images")
    if not isinstance(path, str):
        problem = "does not say which real images the run was trained on"
        raise ConfigError(problem, file=run.config, remedy="give --real SET")
    return ImageSet.load(path)


def _refuse_other_roles(real: ImageSet, run: Run) -> None:
    """Roles drawn after training say nothing of who was trained on."""
    if run.roles.is_file() and run.roles.read_text(encoding="utf-8").strip() != roles_mark(real):
        problem = "the patients or their roles are not those that the run was trained with"
        remedy = "bring the set (or the store, which has the key) back to what it was, or train again"
        raise ImageSetError(problem, file=real.folder or run.roles, remedy=remedy)


def synthetic_images_of(run: Run) -> ImageSet:
    """The synthetic set in a run directory."""
    if not run.synthetic.is_dir():
        remedy = f"draw it first: fedsynth synthesize {run.folder}"
        raise ConfigError("the run has no synthetic set", file=run.synthetic, remedy=remedy)
    return ImageSet.load(run.synthetic)


def gather(real: ImageSet, synthetic: ImageSet, run: Run | None = None) -> Evidence:
    """Check two sets against each other and take the real one apart by role; every voxel was checked on loading."""
    _check_real(real)
    tested = real.select(role=TESTED)
    _check_alike(tested, synthetic)
    real_prints, blank_real = _prints(tested.images)
    _refuse_common_images(tested, real_prints, blank_real)
    prints, blank = _prints(synthetic.images)
    if blank.all():
        problem = f"all {len(synthetic)} synthetic images are of one colour"
        raise ImageSetError(problem, file=synthetic.folder, remedy="there is nothing to measure: look at the generator")
    row_of = {digest: row for row, digest in enumerate(real_prints) if not blank_real[row]}
    cohort = Cohort.of(tested)
    return Evidence(
        real=tested,
        cohort=cohort,
        patient_of=cohort.numbers(tested),
        synthetic=synthetic,
        whole=real,
        reference=real.select(role="reference") if "reference" in set(real.cases["role"]) else None,
        run=run,
        blank=blank,
        equal=tuple((row, row_of[digest]) for row, digest in enumerate(prints) if digest in row_of),
        unseen=_unseen(tested, synthetic),
        notes=(*_notes(tested, synthetic, blank, blank_real), *_repeated(len(set(prints)), len(prints))),
        distinct=len(set(prints)),
    )


def _repeated(distinct: int, count: int) -> list[str]:
    if distinct == count:
        return []
    return [f"Only {distinct} of {count} synthetic images differ; what is said of shares rests on those."]


def without_masks(images: ImageSet) -> ImageSet:
    """The set as if it had none."""
    return replace(images, header=replace(images.header, mask_labels=()), masks=None)


def _check_real(real: ImageSet) -> None:
    file = None if real.folder is None else real.folder / TABLE
    if real.header.origin != "real":
        raise ImageSetError("the set given as real is synthetic", file=real.folder, remedy="exchange the two sets")
    patients = real.patients
    without = patients[patients["role"] == ""]
    if len(without) == len(patients):
        problem = "no patient has a role, so nobody knows who was trained on"
        raise ImageSetError(problem, file=file, remedy=SPLIT_FIRST)
    if len(without):
        problem = (
            f"{len(without)} of {len(patients)} patients have no role, {without['patient'].iloc[0]!r} is the first"
        )
        raise ImageSetError(problem, file=file, remedy="give every patient one: member, holdout or reference")
    present = set(patients["role"])
    for role, why in (("member", "whose leak could be found"), ("holdout", "to compare the members with")):
        if role not in present:
            remedy = f"{SPLIT_FIRST}: a test needs members and holdout"
            raise ImageSetError(f"there is no {role} patient {why}", file=file, value=sorted(present), remedy=remedy)


def _check_alike(real: ImageSet, synthetic: ImageSet) -> None:
    if len(synthetic) == 0:
        raise ImageSetError("the synthetic set has no images", file=synthetic.folder)
    pairs = {
        "size": (real.size, synthetic.size),
        "channels": (real.header.channels, synthetic.header.channels),
    }
    for what, (here, there) in pairs.items():
        if here != there:
            problem = f"the sets differ in {what}: the real one has {here}, the synthetic one {there}"
            remedy = "bring both to one form with `fedsynth import` or `fedsynth relabel`"
            raise ImageSetError(problem, file=synthetic.folder, remedy=remedy)
    strange = set(synthetic.cases["class"]) - set(real.header.classes) - {""}
    if strange:
        known = f"the real set has {', '.join(real.header.classes) or 'no classes'}"
        problem = "the synthetic set has a class that the real set does not know"
        raise ImageSetError(problem, file=synthetic.folder, value=sorted(strange)[0], remedy=known)


def _prints(images: Stack) -> tuple[list[bytes], NDArray[np.bool_]]:
    """A digest of every image at 256 levels, and which images are of one colour."""
    prints: list[bytes] = []
    blank = np.zeros(len(images), bool)
    for start, block in blocks(images):
        levels = block if block.dtype == np.uint8 else np.rint(block * 255).astype(np.uint8)
        prints += [hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest() for image in levels]
        flat = levels.reshape(*levels.shape[:2], -1)
        blank[start : start + len(levels)] = (flat == flat[:, :, :1]).all(axis=(1, 2))
    return prints, blank


def _refuse_common_images(real: ImageSet, prints: Sequence[bytes], blank: NDArray[np.bool_]) -> None:
    """A member's image in the holdout as well makes the holdout no holdout."""
    role = real.cases["role"].to_numpy()
    first: dict[bytes, int] = {}
    for row in np.flatnonzero(~blank).tolist():
        other = first.setdefault(prints[row], row)
        if role[other] != role[row]:
            cases = real.cases
            problem = (
                f"the cases {cases['case'].iloc[other]!r} ({role[other]} {cases['patient'].iloc[other]!r}) and "
                f"{cases['case'].iloc[row]!r} ({role[row]} {cases['patient'].iloc[row]!r}) are the same image"
            )
            remedy = "give a person in two roles one patient name, import again and draw the roles anew"
            raise ImageSetError(problem, file=real.folder, remedy=remedy)


def _unseen(real: ImageSet, synthetic: ImageSet) -> str:
    if real.masks is None or synthetic.masks is None or real.header.mask_labels == synthetic.header.mask_labels:
        return ""
    return (
        "The masks of the output may be members' masks, and could not be compared, as the sets have different labels: "
        "bring both to one form with `fedsynth relabel`, or leave the masks out of what is shared."
    )


def _notes(real: ImageSet, synthetic: ImageSet, blank: NDArray[np.bool_], blank_real: NDArray[np.bool_]) -> list[str]:
    found = []
    if blank.any():
        found.append(f"{int(blank.sum())} of {len(blank)} synthetic images are of one colour: they cannot be copies")
    if blank_real.any():
        found.append(f"{int(blank_real.sum())} of {len(blank_real)} real images are of one colour")
    if real.header.mask_labels != synthetic.header.mask_labels:
        found.append("masks are not compared: the sets have different labels")
    if real.header.spacing_mm != synthetic.header.spacing_mm:
        found.append(f"the sets differ in spacing: {real.header.spacing_mm} and {synthetic.header.spacing_mm} mm")
    if synthetic.header.origin != "synthetic":
        found.append("the set given as synthetic calls itself real")
    return found
