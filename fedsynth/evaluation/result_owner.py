"""Whose results a run keeps: those of its own two sets. It tells a run's sets from others and measures nothing.

A result of another set in a run directory would borrow the run's epsilon, and the gate would let that set out.
"""

from pathlib import Path

from fedsynth.data import ImageSet
from fedsynth.errors import FedSynthError
from fedsynth.evaluation.evidence import Images, real_images_of
from fedsynth.evaluation.score import content_hash
from fedsynth.runs import Run
from fedsynth.training.roles import roles_mark


def stranger(run: Run | None, *, real: Images = None, synthetic: Images = None) -> str:
    """Which of the given sets is not the run's own: "synthetic", "real", or "" for neither."""
    if run is None:
        return ""
    if synthetic is not None and synthetic_hash(run) != content_hash(_opened(synthetic)):
        return "synthetic"
    return "" if real is None or _is_own(_opened(real), run) else "real"


def synthetic_hash(run: Run) -> str:
    """The hash of the set that the run's generator drew into it; empty where there is none that can be read."""
    try:
        return content_hash(ImageSet.load(run.synthetic, every_voxel=False)) if run.synthetic.is_dir() else ""
    except FedSynthError:
        return ""


def _is_own(real: ImageSet, run: Run) -> bool:
    """The server of a deployed run has no real images: there the roles must do, where it knows them."""
    try:
        return content_hash(real) == content_hash(real_images_of(run))
    except FedSynthError:
        return not run.roles.is_file() or run.roles.read_text(encoding="utf-8").strip() == roles_mark(real)


def _opened(images: ImageSet | Path | str) -> ImageSet:
    return images if isinstance(images, ImageSet) else ImageSet.load(images, every_voxel=False)
