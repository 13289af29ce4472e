"""Image sets: made of phantoms, or opened."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsynth import config
from fedsynth.api.progress import Progress
from fedsynth.api.signature import as_given, takes_keywords
from fedsynth.data.phantoms.settings import PhantomSettings

if TYPE_CHECKING:
    from fedsynth.data import ImageSet, Shares


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


def split(
    source: Path | str,
    out: Path | str,
    *,
    shares: "Shares | None" = None,
    seed: int = 0,
    keep_members: int | None = None,
    again: bool = False,
    overwrite: bool = False,
) -> "ImageSet":
    """Draw member, holdout and reference patients at random within site and class, or leave members out.

    Args:
        source: The image set to read.
        out: The image set to write.
        shares: Of member, holdout and reference patients; a half, four tenths and a tenth if not given.
        seed: The same seed gives the same roles.
        keep_members: Keep the roles and leave only so many member patients in.
        again: Replace roles that stand in `source`.
        overwrite: Replace `out` if it is an image set.

    Returns:
        The set in `out`.

    Example:
        >>> import fedsynth, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     made = fedsynth.phantoms(f"{folder}/set", patients=8, slices=1, size=16, sites=1)
        ...     fewer = fedsynth.split(f"{folder}/set", f"{folder}/few", keep_members=2)
        >>> int((fewer.patients["role"] == "member").sum())
        2
    """
    from fedsynth.atomic_files import refuse_existing
    from fedsynth.data import ImageSet, Shares
    from fedsynth.data.format import HEADER
    from fedsynth.data.split import draw_roles, rows_with_fewer_members
    from fedsynth.errors import RefusedError

    source, out = Path(source), Path(out)
    refuse_existing(out, marker=HEADER, overwrite=overwrite)
    read = ImageSet.load(source)
    if keep_members is not None:
        if again:
            remedy = "draw first, then leave some out"
            raise RefusedError("--again and --keep-members exclude each other", remedy=remedy)
        return read.rows(rows_with_fewer_members(read.cases, keep_members, seed)).save(out, overwrite=overwrite)
    if not again and (read.cases["role"] != "").any():
        raise RefusedError("the patients have roles already", file=source, remedy="give --again to draw new ones")
    cases, drawn = draw_roles(read.cases, shares or Shares(), seed, replace=True)
    return read.with_cases(cases, split=drawn).save(out, overwrite=overwrite)


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
