"""Image sets: made of phantoms, or opened."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsynth import config
from fedsynth.api.progress import Progress
from fedsynth.api.signature import as_given, takes_keywords
from fedsynth.data.phantoms.settings import PhantomSettings

if TYPE_CHECKING:
    from fedsynth.data import ImageSet


@takes_keywords(PhantomSettings, leave_out=("shares",))
def phantoms(
    out: Path | str,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> "ImageSet":
    """Make a cohort of brain phantoms with masks over several hospitals, split into members, holdout and reference.

    Args:
        out: The folder of the image set to write.
        workers: Processes; one per core if not given.
        overwrite: Replace `out` if it is an image set.
        progress: Told how far the work is; log lines if not given.

    Returns:
        The image set.

    Example:
        >>> import fedsynth, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     made = fedsynth.phantoms(f"{folder}/set", patients=2, slices=1, size=16, sites=1)
        >>> len(made)
        2
    """
    read = config.read_table(PhantomSettings, as_given(settings))
    from fedsynth.data.phantoms.cohort import make_phantoms

    with (progress or Progress()).bar("phantoms") as advance:
        return make_phantoms(Path(out), read, workers=workers, overwrite=overwrite, progress=advance)


def load(folder: Path | str) -> "ImageSet":
    """Open an image set; whatever in it breaks the format is named with its file, row and value.

    Args:
        folder: The folder with `imageset.toml`, `cases.csv` and `images.npy`.

    Returns:
        The image set; its arrays stay on the disk until they are looked at.

    Example:
        >>> import fedsynth
        >>> images = fedsynth.load("runs/first/synthetic")  # doctest: +SKIP
    """
    from fedsynth.data import ImageSet

    return ImageSet.load(folder)
