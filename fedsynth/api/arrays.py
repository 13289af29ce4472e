"""Arrays as image sets, so that benchmarks can be used on what is in memory, without any folder."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fedsynth.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

    from fedsynth.data import ImageSet


def from_arrays(
    images: "ArrayLike",
    *,
    patients: Sequence[Any] | None = None,
    roles: Sequence[str] | None = None,
    masks: "ArrayLike | None" = None,
    classes: Sequence[str] | None = None,
    sites: Sequence[str] | None = None,
    channels: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    spacing_mm: float = 1.0,
    name: str = "arrays",
) -> "ImageSet":
    """Make an image set of arrays. With `patients` it is real, without it is synthetic and nobody's.

    Args:
        images: (n, height, width), (n, channels, height, width) or (n, channels, height, width, depth): uint8, or
            numbers in [0, 1].
        patients: Of each image; the unit of every leakage test. All images of a patient belong together.
        roles: Of each image: `member` (the generator was trained on the patient), `holdout` (never) or `reference`
            (never, and free for fitting attacks). All images of a patient have one role.
        masks: (n, height, width[, depth]) of label numbers; 0 is background.
        classes: Of each image, as text.
        sites: Of each image; one hospital if not given.
        channels: Their names.
        labels: Names of the masks' numbers, background first.
        spacing_mm: Of a pixel.
        name: Of the set, in tables.

    Returns:
        The image set, in memory.

    Example:
        >>> import fedsynth, numpy as np
        >>> rng = np.random.default_rng(0)
        >>> people = np.repeat(np.arange(40), 2)
        >>> roles = np.where(people < 20, "member", "holdout")
        >>> real = fedsynth.from_arrays(rng.random((80, 16, 16)), patients=people, roles=roles)
        >>> made = fedsynth.from_arrays(rng.random((30, 16, 16)))
        >>> result = fedsynth.memorization(real=real, synthetic=made, spaces=["pixels"])
        >>> result.verdict in ("pass", "inconclusive")
        True
    """
    import pandas as pd

    from fedsynth.data import ImageSet
    from fedsynth.data.format import COLUMNS, Header

    voxels = _images(images)
    n, dimensions = len(voxels), voxels.ndim - 2
    if patients is None and roles is not None:
        raise ConfigError("roles are those of patients", remedy="give patients too, or leave roles out")
    if patients is not None and any(who is None or who != who or str(who) == "" for who in patients):
        raise ConfigError(
            "an image has no patient", remedy="give every image its patient; strangers are not one person"
        )
    if patients is not None and roles is None:
        remedy = 'give roles: "member" for patients that the generator was trained on, "holdout" for the others'
        raise ConfigError("who was trained on is not known", remedy=remedy)
    table = {"case": [f"{name}-{i}" for i in range(n)], "patient": patients, "site": sites, "role": roles}
    table |= {"class": classes, "slice": None}
    given = {key: [""] * n if column is None else [str(value) for value in column] for key, column in table.items()}
    for key, column in given.items():
        if len(column) != n:
            raise ConfigError(f"there are {n} images, and another number of values for {key!r}", value=len(column))
    numbers = None if masks is None else _numbers(masks)
    named = tuple(labels or ()) or _labels(numbers)
    if numbers is not None and numbers.max(initial=0) >= len(named):
        raise ConfigError("a mask holds a number without a label", value=int(numbers.max()), remedy="name all labels")
    header = Header(
        name=name,
        origin="real" if patients is not None else "synthetic",
        channels=tuple(channels or (f"channel-{i}" for i in range(voxels.shape[1]))),
        classes=tuple(sorted(set(given["class"]) - {""})),
        mask_labels=named if numbers is not None else (),
        spacing_mm=(spacing_mm,) * dimensions,
        provenance={"source": "arrays"},
    )
    cases = pd.DataFrame(given, columns=list(COLUMNS), dtype=str)
    return ImageSet(header=header, cases=cases, images=voxels, masks=numbers)


def _images(given: "ArrayLike") -> "np.ndarray[Any, Any]":
    import numpy as np

    found = np.asarray(given)
    if found.ndim == 3:
        found = found[:, None]
    if found.ndim == 4 and found.shape[-1] in (3, 4) and found.shape[1] > 4:
        remedy = "move the channels to axis 1: np.moveaxis(images, -1, 1)"
        raise ConfigError("images are (n, channels, height, width)", value=found.shape, remedy=remedy)
    if found.ndim not in (4, 5) or found.dtype.kind not in "buif" or not found.size:
        raise ConfigError("images are (n, height, width) or (n, channels, height, width[, depth])", value=found.shape)
    if found.dtype == np.uint8:
        return found
    found = found.astype(np.float32)
    if not (np.isfinite(found).all() and found.min() >= 0 and found.max() <= 1):
        remedy = "scale all images alike: (images - low) / (high - low)"
        raise ConfigError("images are uint8, or numbers in [0, 1]", remedy=remedy)
    return found


def _numbers(masks: "ArrayLike") -> "np.ndarray[Any, Any]":
    """Whole numbers from 0 to 255; 0 and 255 alone mean 0 and 1."""
    import numpy as np

    found = np.asarray(masks)
    whole = found.dtype.kind in "bui" or (found.dtype.kind == "f" and bool((found == np.rint(found)).all()))
    if not whole or (found.size and (found.min() < 0 or found.max() > 255)):
        raise ConfigError("masks are whole numbers from 0 to 255", value=str(found.dtype))
    numbers = found.astype(np.uint8)
    return np.minimum(numbers, 1) if set(np.unique(numbers)) <= {0, 255} else numbers


def _labels(masks: "np.ndarray[Any, Any] | None") -> tuple[str, ...]:
    if masks is None:
        return ()
    return ("background", *(f"label-{number}" for number in range(1, max(2, int(masks.max()) + 1))))
