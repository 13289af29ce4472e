"""The image set: a folder of plain files that every part of fedsynth reads and writes. Format 1.

`imageset.toml` describes it, `cases.csv` has a row per image, `images.npy` and `masks.npy` hold the voxels in the same
order. It knows nothing of where images come from or what they are used for.
"""

import csv
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.lib.format import MAGIC_PREFIX

from fedsynth.config import parse_toml, read_table
from fedsynth.data.format import (
    CONSISTS_OF,
    HEADER,
    IMAGES,
    MASKS,
    PHANTOM,
    PUBLIC_SET,
    SPLITS,
    TABLE,
    Header,
    check_shapes,
    check_table,
    check_values,
)
from fedsynth.data.lazy_arrays import Rows, Stack, take
from fedsynth.data.roles import Split
from fedsynth.errors import ImageSetError, nearest

IN_PART = "in part "

if TYPE_CHECKING:
    from fedsynth.data.torch_dataset import TorchImages


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageSet:
    """Images with their table, and masks where there are any; item i of each belongs to row i of `cases`.

    `images` is (n, channels, height, width[, depth]), uint8 (value/255) or float32 in [0, 1]; `masks` is
    (n, height, width[, depth]) uint8. Both stay on disk until indexed. `cases` has the columns of the format as text.
    """

    header: Header
    cases: pd.DataFrame
    images: Stack
    masks: Stack | None = None
    folder: Path | None = None

    def __post_init__(self) -> None:
        check_table(self.header, self.cases, self.folder)
        check_shapes(self.header, self.cases, self.images, self.masks, self.folder)

    @classmethod
    def load(cls, folder: Path | str, *, every_voxel: bool = True) -> "ImageSet":
        """Open the set in `folder`, memory-mapped, and check it; without `every_voxel` the values are trusted."""
        folder = Path(folder)
        if not (folder / HEADER).is_file():
            if not folder.is_dir():
                raise ImageSetError("there is no such folder", file=folder)
            remedy = f"make one of its files: `fedsynth import {folder}` looks at them and proposes how"
            raise ImageSetError(f"is not an image set: it has no {HEADER}", file=folder, remedy=remedy)
        header = _read_header(folder / HEADER)
        cases = _read_cases(folder / TABLE)
        masks = folder / MASKS
        if not header.mask_labels and masks.exists():
            raise ImageSetError(f"there are masks, but {HEADER} names no mask-labels", file=masks)
        opened = cls(
            header=header,
            cases=cases,
            images=_open_array(folder / IMAGES),
            masks=_open_array(masks) if header.mask_labels else None,
            folder=folder,
        )
        if every_voxel:
            opened.validate()
        return opened

    def validate(self) -> None:
        """Check every voxel; the table and the sizes were checked when the object was made."""
        check_values(self.header, self.cases, self.images, self.masks, self.folder)

    def save(self, folder: Path | str, *, overwrite: bool = False) -> "ImageSet":
        """Write the set to `folder`, whole or not at all, and return it opened from there."""
        from fedsynth.data.writer import ImageSetWriter

        self.validate()
        target = Path(folder)
        shape = tuple(self.images.shape[1:])
        with ImageSetWriter(target, shape, self.images.dtype, masks=self.masks is not None, overwrite=overwrite) as out:
            for row in range(len(self)):
                out.append_arrays(self.images[row], None if self.masks is None else self.masks[row])
            out.finish(self.header, self.cases)
        return ImageSet.load(target, every_voxel=False)

    def __len__(self) -> int:
        return len(self.cases)

    def select(
        self,
        *,
        site: str | Collection[str] | None = None,
        role: str | Collection[str] | None = None,
        label: str | Collection[str] | None = None,
        patient: str | Collection[str] | None = None,
    ) -> "ImageSet":
        """The images that match every given condition, in their order, unread. `label` is the class."""
        keep = np.ones(len(self), bool)
        for column, wanted in (("site", site), ("role", role), ("class", label), ("patient", patient)):
            if wanted is not None:
                names = {wanted} if isinstance(wanted, str) else set(wanted)
                present = self.cases[column]
                for name in sorted(names - set(present)):
                    remedy = nearest(name, set(present))
                    raise ImageSetError(f"no image has the {column} {name!r}", file=self.folder, remedy=remedy)
                keep &= present.isin(names).to_numpy()
        return self.rows(np.flatnonzero(keep))

    def rows(self, index: np.ndarray) -> "ImageSet":
        """The images at the row numbers `index`, unread."""
        index = np.asarray(index, np.int64)
        masks = None if self.masks is None else take(self.masks, index)
        cases = self.cases.iloc[index].reset_index(drop=True)
        return ImageSet(header=self.header, cases=cases, images=take(self.images, index), masks=masks)

    def with_cases(self, cases: pd.DataFrame, **changes: object) -> "ImageSet":
        """The same voxels under another table, and, where given, with other header values (`split=`, `name=`)."""
        header = replace(self.header, **changes)  # type: ignore[arg-type]
        return ImageSet(header=header, cases=cases.reset_index(drop=True), images=self.images, masks=self.masks)

    def dataset(self) -> "TorchImages":
        """As a torch Dataset of dictionaries: `image`, `mask`, `label`, `case`, `patient`."""
        from fedsynth.data.torch_dataset import TorchImages

        return TorchImages(self)

    def as_dicts(self) -> "list[dict[str, Any]]":
        """As MONAI's list of dictionaries: `image`, the mask under `label`, and the row of the table."""
        from fedsynth.data.torch_dataset import as_dicts

        return as_dicts(self)

    @property
    def size(self) -> tuple[int, ...]:
        """Voxels along each spatial axis."""
        return tuple(self.images.shape[2:])

    @cached_property
    def patients(self) -> pd.DataFrame:
        """One row per named patient: `patient`, `site`, `role`, `class` (names joined by + if several), `images`."""
        named = self.cases[self.cases["patient"] != ""]
        grouped = named.groupby("patient", sort=True)
        table = grouped.agg(site=("site", "first"), role=("role", "first"), images=("case", "size"))
        joined = grouped["class"].agg(lambda names: "+".join(sorted({name for name in names if name})))
        table.insert(2, "class", joined)
        return table.reset_index()


def concatenate(sets: Sequence[ImageSet], *, name: str | None = None) -> ImageSet:
    """The sets end to end, unread. They must agree in everything but name, classes (joined), split and provenance.

    Of the provenance the names remain, whose altered images any part shows, and that all are phantoms: one real set
    among them makes patients of all.
    Roles that each set drew for sites of its own stay recorded, under `SPLITS`: they were drawn within its strata.
    """
    if not sets:
        raise ImageSetError("there is nothing to concatenate")
    first = sets[0]
    for other in sets[1:]:
        _check_alike(first, other)
    classes = tuple(dict.fromkeys(label for part in sets for label in part.header.classes))
    split, draws = _draws(sets)
    made = {PHANTOM: {"parts": len(sets)}} if all(part.header.phantoms for part in sets) else {}
    header = replace(
        first.header,
        name=name or first.header.name,
        classes=classes,
        split=split,
        provenance={"concatenated": [part.header.name for part in sets]} | draws | made | _shown(sets),
    )
    cases = pd.concat([part.cases for part in sets], ignore_index=True)
    masks = None if first.masks is None else Rows([part.masks for part in sets if part.masks is not None])
    return ImageSet(header=header, cases=cases, images=Rows([part.images for part in sets]), masks=masks)


def _draws(sets: Sequence[ImageSet]) -> tuple[Split | None, dict[str, Any]]:
    """The split that all have in common, or else how each drew the roles of its sites, if no two share a site."""
    splits = {part.header.split for part in sets}
    sites = [set(part.patients["site"]) for part in sets]
    apart = sum(map(len, sites)) == len(set[str]().union(*sites))
    common = next(iter(splits)) if len(splits) == 1 else None
    if common is not None and ("site" in common.strata or not apart):
        return common, {}
    found: list[dict[str, Any]] = []
    for part, here in zip(sets, sites, strict=True):
        own = part.header.split
        of_parts = part.header.provenance.get(SPLITS)
        if apart and own is not None:
            found.append({"sites": sorted(here), **asdict(own)})
        elif apart and isinstance(of_parts, list):
            found += of_parts
        else:
            return None, {}
    return None, {SPLITS: found}


def _shown(sets: Sequence[ImageSet]) -> dict[str, Any]:
    """Whose altered images the parts show; of the whole it is said in part where a part shows nobody."""
    told = [str(part.header.provenance.get(CONSISTS_OF, "")) for part in sets]
    if not any(told):
        return {}
    sources: list[Any] = []
    for part in sets:
        of_part = part.header.provenance.get(PUBLIC_SET, [])
        for source in of_part if isinstance(of_part, list) else [of_part]:
            if source not in sources:
                sources.append(source)
    text = "; ".join(dict.fromkeys(one for one in told if one))
    whole = text if all(told) or text.startswith(IN_PART) else IN_PART + text
    found = sources[0] if len(sources) == 1 else sources
    return {CONSISTS_OF: whole} | ({PUBLIC_SET: found} if sources else {})


def _check_alike(first: ImageSet, other: ImageSet) -> None:
    pairs = {
        "origin": (first.header.origin, other.header.origin),
        "channels": (first.header.channels, other.header.channels),
        "mask-labels": (first.header.mask_labels, other.header.mask_labels),
        "spacing-mm": (first.header.spacing_mm, other.header.spacing_mm),
        "size": (first.size, other.size),
        "number kind": (str(first.images.dtype), str(other.images.dtype)),
    }
    for key, (here, there) in pairs.items():
        if here != there:
            names = f"{first.header.name!r} has {here} and {other.header.name!r} has {there}"
            raise ImageSetError(f"the sets differ in {key}: {names}", remedy="import or relabel them alike first")


def _read_header(path: Path) -> Header:
    table = parse_toml(path)
    if "format" not in table:
        raise ImageSetError("the key 'format' is missing", file=path, remedy="this program reads format = 1")
    return read_table(Header, table, file=path)


def _read_cases(path: Path) -> pd.DataFrame:
    """The table as text, every row whole: a cut-off line must not pass for one with empty cells."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.reader(file, strict=True))
    except FileNotFoundError as error:
        raise ImageSetError("the file is missing", file=path) from error
    except (OSError, ValueError, csv.Error) as error:
        raise ImageSetError(f"is not a readable table: {error}", file=path) from error
    header = lines[0] if lines else []
    while lines and not lines[-1]:
        lines.pop()
    for row, cells in enumerate(lines, start=1):
        if len(cells) != len(header):
            problem = f"the row has {len(cells)} cells and the first line names {len(header)} columns"
            raise ImageSetError(problem, file=path, row=row)
    return pd.DataFrame(lines[1:], columns=header, dtype=str)


def _open_array(path: Path) -> "np.ndarray":
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC_PREFIX)) != MAGIC_PREFIX:
                raise ImageSetError("is not an array as numpy saves it", file=path, remedy="make the set again")
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise ImageSetError("the file is missing", file=path) from error
    except (OSError, ValueError, EOFError) as error:
        raise ImageSetError(f"is not a readable array: {error}", file=path, remedy="make the set again") from error
    return array
