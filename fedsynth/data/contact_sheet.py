"""Contact sheets: a few images of every site with their masks, so that a person sees what an image set holds.

The choice is deterministic. Images are shown as they are stored, without stretching their contrast; slices and volumes
lie as `fedsynth.data.importers.source` says (left is left, the front or the top is up), which the sheet says where it
is known.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from fedsynth.data.format import Header
from fedsynth.data.image_set import ImageSet
from fedsynth.data.montage import Cell, Pixels, Section, as_tile, cells_in_a_row, montage, with_labels
from fedsynth.data.preprocessing import Axis, upright
from fedsynth.data.summary import label_counts

PLANES: tuple[Axis, ...] = ("axial", "coronal", "sagittal")


def contact_sheet(image_set: ImageSet, *, rows: int = 3) -> Image.Image:
    """`rows` rows of images for every site: different patients first, every class and role, lesions if any.

    Each image is all its channels side by side (red, green and blue as one) and, where there are masks, the first of
    them with the labels tinted and outlined. Volumes show three planes through the thickest part of their lesion.
    """
    header, cases = image_set.header, image_set.cases
    weights, interest = _weigh_labels(image_set)
    sections = []
    per_row = cells_in_a_row(_cell(image_set, 0, weights)) if len(image_set) else 1
    for site in sorted(set(cases["site"])):
        here = np.flatnonzero((cases["site"] == site).to_numpy())
        chosen = here[choose(cases.iloc[here], interest[here], rows * per_row)]
        cells = [_cell(image_set, int(row), weights) for row in chosen]
        title = f"{site or 'no site'}: {len(cells)} of {len(here)} images"
        sections.append(Section(title=title, cells=cells, heads=_heads(header)))
    kind = "synthetic images" if header.origin == "synthetic" else "images"
    title = f"{header.name}: {len(image_set)} {kind} of {' x '.join(map(str, image_set.size))}"
    return montage(sections, title=title, note=note_of(header), legend=header.mask_labels[1:], columns=per_row)


def choose(cases: pd.DataFrame, interest: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Positions of up to `count` rows, ordered by class, role and patient.

    Classes and roles take turns and patients are spread evenly over their list. Of each patient the image of greatest
    `interest` comes first, the middle one where none has any; a patient's second image only when no patient is left.
    """
    table = cases[["class", "role"]].reset_index(drop=True)
    table["patient"] = np.where(cases["patient"] == "", cases["case"], cases["patient"])
    table["interest"] = interest
    place = table.groupby("patient", sort=False).cumcount()
    middle = table.groupby("patient", sort=False)["class"].transform("size") // 2
    table["off-centre"] = (place - middle).abs()
    ranked = table.sort_values(["interest", "off-centre"], ascending=[False, True], kind="stable")
    table["rank"] = ranked.groupby("patient", sort=False).cumcount()
    chosen: list[int] = []
    for rank in range(int(table["rank"].max()) + 1 if len(table) else 0):
        chosen += _spread(table[table["rank"] == rank], count - len(chosen))
    order = table.loc[chosen].sort_values(["class", "role", "patient", "rank"], kind="stable").index
    return np.asarray(order, np.int64)


def tiles_of(
    image: NDArray[np.generic], mask: NDArray[np.uint8] | None, header: Header, at: tuple[int, ...] = ()
) -> list[list[Pixels]]:
    """An image (channels, *size) as rows of tiles: one row, or for a volume one for each of the planes `at`."""
    if header.dimensions == 2:
        return [_tiles_of_plane(image, mask, header.channels, header.spacing_mm)]
    places = at or tuple(n // 2 for n in image.shape[1:])
    planes = []
    for axis in PLANES:
        across = {"sagittal": 0, "coronal": 1, "axial": 2}[axis]
        spacing = tuple(np.delete(header.spacing_mm, across)[::-1].tolist())
        cut = None if mask is None else upright(mask, axis, places[across])
        planes.append(_tiles_of_plane(upright(image, axis, places[across]), cut, header.channels, spacing))
    return planes


def _tiles_of_plane(
    image: NDArray[np.generic], mask: NDArray[np.uint8] | None, channels: tuple[str, ...], spacing: tuple[float, ...]
) -> list[Pixels]:
    tiles = [as_tile(image, spacing)] if _is_colour(channels) else [as_tile(channel, spacing) for channel in image]
    return tiles if mask is None else [*tiles, with_labels(tiles[0], mask)]


def _spread(table: pd.DataFrame, count: int) -> list[int]:
    """Up to `count` rows: classes take turns, the most interesting first, and within a class the roles do."""
    by_class = [group for _, group in table.groupby("class")]
    by_class.sort(key=lambda group: -float(group["interest"].mean()))
    chosen: list[int] = []
    for group, share in zip(by_class, _turns([len(group) for group in by_class], count), strict=True):
        by_role = [list(part.index) for _, part in group.groupby("role")]
        for rows, few in zip(by_role, _turns([len(rows) for rows in by_role], share), strict=True):
            chosen += [rows[(2 * k + 1) * len(rows) // (2 * few)] for k in range(few)]
    return chosen


def _turns(available: list[int], count: int) -> list[int]:
    """How many each gets when `count` are dealt one at a time, round after round, to those that have some left."""
    shares = [0] * len(available)
    while sum(shares) < min(count, sum(available)):
        for i, most in enumerate(available):
            shares[i] += int(shares[i] < most and sum(shares) < count)
    return shares


def _weigh_labels(image_set: ImageSet) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How much a voxel of each label counts (rare labels more, background nothing), and the sum over each image."""
    if image_set.masks is None:
        return np.zeros(256), np.zeros(len(image_set))
    counts = label_counts(image_set.masks, len(image_set.header.mask_labels))
    weights = np.zeros(256)
    weights[1 : counts.shape[1]] = 1 / np.maximum(counts[:, 1:].sum(axis=0), 1)
    interest: NDArray[np.float64] = counts @ weights[: counts.shape[1]]
    return weights, interest


def _cell(image_set: ImageSet, row: int, weights: NDArray[np.float64]) -> Cell:
    mask = None if image_set.masks is None else np.asarray(image_set.masks[row])
    at = _thickest(mask, weights) if mask is not None and mask.ndim == 3 else ()
    case = image_set.cases.iloc[row]
    what = ", ".join(name for name in (case["role"], case["class"]) if name)
    who = case["patient"] or case["case"]
    which = f"{who}, slice {case['slice']}" if case["slice"] and case["patient"] else who
    tiles = tiles_of(np.asarray(image_set.images[row]), mask, image_set.header, at)
    return Cell(tiles=tiles, lines=[line for line in (what, which) if line])


def _thickest(mask: NDArray[np.uint8], weights: NDArray[np.float64]) -> tuple[int, ...]:
    """Along each axis the plane whose labels weigh most; the middle one in an empty mask."""
    if not mask.any():
        return tuple(n // 2 for n in mask.shape)
    weighed = weights[mask]
    others = [tuple(other for other in range(mask.ndim) if other != axis) for axis in range(mask.ndim)]
    return tuple(int(np.argmax(weighed.sum(axis=other))) for other in others)


def _heads(header: Header) -> list[str]:
    names = ["colour"] if _is_colour(header.channels) else list(header.channels)
    return [*names, "labels"] if header.mask_labels else names


def _is_colour(channels: tuple[str, ...]) -> bool:
    return tuple(name.lower() for name in channels) == ("red", "green", "blue")


def note_of(header: Header) -> str:
    """What whoever looks at the sheet must know: whose images they are, and which side is left."""
    return "; ".join(filter(None, [_whose(header), _sides(header)]))


def _whose(header: Header) -> str:
    if header.origin == "synthetic":
        return ""
    return "phantoms: no patients" if header.phantoms else "real patients: keep at the site"


def _sides(header: Header) -> str:
    """Radiologists are used to the opposite; pictures lie as their files do, which nobody knows."""
    known = header.phantoms or header.provenance.get("orientation") == "RAS"
    slices = header.provenance.get("slices")
    if not known or (isinstance(slices, dict) and slices.get("axis") == "sagittal"):
        return ""
    planes = "axial and coronal: " if header.dimensions == 3 else ""
    return f"{planes}the patient's left is on the left"
