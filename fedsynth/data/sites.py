"""Hospitals with their images: what a federation trains on and is measured against.

It opens and shares out image sets; how they are written in a file is told in `sites_file`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedsynth import __version__
from fedsynth.config import to_toml
from fedsynth.data import phantoms as phantom
from fedsynth.data.format import HEADER, TABLE
from fedsynth.data.image_set import ImageSet, concatenate
from fedsynth.data.parallel import Progress, silent
from fedsynth.data.partition import Partition, assign_sites
from fedsynth.data.phantoms.cohort import expected_cases, make_phantoms
from fedsynth.data.roles import Split
from fedsynth.data.site_config import Select, SiteEntry, SitesFile
from fedsynth.data.split import Stratum, nested, strata
from fedsynth.errors import ConfigError, ImageSetError


@dataclass(frozen=True, kw_only=True, eq=False)
class Site:
    """One hospital. The column `site` of its images is its name, and their roles are those of the set they came from.

    `images.header.split` is None where the hospital mixes strata that the roles were drawn within (as a random
    partition does): an exact test by site must then fall back on the pooled set.
    """

    name: str
    images: ImageSet


@dataclass(frozen=True, kw_only=True, eq=False)
class Federation:
    """Hospitals without a common patient, alike in channels, labels, classes, size and spacing.

    `pooled` holds the images of all of them with the sites and the recorded split of the set that they came from.
    """

    name: str
    sites: tuple[Site, ...]
    pooled: ImageSet


@dataclass(frozen=True, kw_only=True, eq=False)
class _Part:
    """The rows of a set that one hospital has."""

    of: ImageSet
    rows: NDArray[np.int64]


def open_federation(
    file: SitesFile,
    workspace: Path,
    *,
    every_voxel: bool = True,
    workers: int | None = None,
    progress: Progress = silent,
) -> Federation:
    """Open the image sets of `file`. Phantoms are made into `workspace` once and found there again."""
    if file.phantom is None:
        return _joined(file.name, _parts(file, every_voxel))
    phantoms = _phantom_set(file, workspace, workers, progress)
    names = [hospital.name for hospital in file.hospitals]
    return _joined(file.name, _partitioned(phantoms, Partition(), names, 0))


def federation_cases(file: SitesFile) -> pd.DataFrame:
    """The tables of all hospitals end to end, `site` being the hospital. No voxel is read and no phantom made."""
    if file.phantom is not None:
        hospitals = file.hospitals
        return expected_cases(file.phantom.settings(len(hospitals)), hospitals)
    federation = _joined(file.name, _parts(file, every_voxel=False))
    return pd.concat([site.images.cases for site in federation.sites], ignore_index=True)


def _parts(file: SitesFile, every_voxel: bool) -> dict[str, _Part]:
    paths = dict.fromkeys(path for path in [file.images, *(entry.images for entry in file.site)] if path is not None)
    sets = {path: _open_real(path, every_voxel) for path in paths}
    if file.images is not None and all(entry.images is None and entry.select is None for entry in file.site):
        names = [entry.name for entry in file.site] or file.sites
        return _partitioned(sets[file.images], Partition.parse(file.partition), names, file.seed)
    parts = {}
    for entry in file.site:
        path = entry.images or file.images
        assert path is not None
        parts[entry.name] = _Part(of=sets[path], rows=_selected(sets[path], entry))
    return parts


def _partitioned(
    pooled: ImageSet, partition: Partition, names: Sequence[str] | int | None, seed: int
) -> dict[str, _Part]:
    try:
        site_of = assign_sites(pooled.cases, partition, seed, names)
    except ImageSetError as error:
        raise ImageSetError(str(error), file=pooled.folder) from error
    owner = pooled.cases["patient"].map(site_of)
    given = names if isinstance(names, Sequence) else sorted(set(site_of.values()), key=_in_order)
    return {name: _Part(of=pooled, rows=np.flatnonzero(owner == name)) for name in given}


def _selected(images: ImageSet, entry: SiteEntry) -> NDArray[np.int64]:
    """What the hospital has of a set: all of its own, and of a common one by default what carries its name."""
    wanted = entry.select or Select(site=None if entry.images is not None else entry.name)
    try:
        chosen = images.select(site=wanted.site, label=wanted.class_, patient=wanted.patient)
    except ImageSetError as error:
        raise ImageSetError(f"the site {entry.name!r}: {error}") from error
    if len(chosen) == 0:
        remedy = "its conditions exclude each other"
        raise ImageSetError(f"a site with no patients: {entry.name!r}", file=images.folder, remedy=remedy)
    return np.flatnonzero(images.cases["case"].isin(chosen.cases["case"]))


def _joined(name: str, parts: dict[str, _Part]) -> Federation:
    """Hospitals and their pooled set; classes are numbered alike everywhere."""
    _refuse_common(parts)
    sets = {id(part.of): part.of for part in parts.values()}
    drawn = {key: _strata_of_the_draw(images) for key, images in sets.items()}
    classes = tuple(dict.fromkeys(label for images in sets.values() for label in images.header.classes))
    views = {}
    for site, part in parts.items():
        images = part.of.rows(part.rows)
        cases = images.cases.assign(site=site)
        split = _still_true(images.header.split, cases, drawn[id(part.of)])
        views[site] = images.with_cases(cases, name=site, classes=classes, split=split)
    if len(sets) == 1:
        ((key, images),) = sets.items()
        pooled = images.rows(np.sort(np.concatenate([part.rows for part in parts.values()])))
        pooled = pooled.with_cases(pooled.cases, split=_still_true(images.header.split, pooled.cases, drawn[key]))
    else:
        pooled = concatenate(list(views.values()), name=name)
    return Federation(
        name=name, sites=tuple(Site(name=site, images=view) for site, view in views.items()), pooled=pooled
    )


def _strata_of_the_draw(images: ImageSet) -> dict[str, Stratum]:
    return {} if images.header.split is None else strata(images.cases, images.header.split.strata)


def _still_true(split: Split | None, cases: pd.DataFrame, drawn: dict[str, Stratum]) -> Split | None:
    """The record of the split, unless `cases` mixes strata that the roles were drawn within."""
    return split if split is not None and nested(strata(cases, split.strata), drawn) else None


def _refuse_common(parts: dict[str, _Part]) -> None:
    for column in ("patient", "case"):
        owner: dict[str, str] = {}
        for name, part in parts.items():
            for value in part.of.cases[column].iloc[part.rows].unique():
                other = owner.setdefault(value, name)
                if other != name:
                    problem = f"the {column} {value!r} is in two sites: {other!r} and {name!r}"
                    remedy = "select each once; if they are different people, import them with other names"
                    raise ImageSetError(problem, file=part.of.folder, remedy=remedy)


def _open_real(path: Path, every_voxel: bool) -> ImageSet:
    if not path.is_dir():
        remedy = "make it with `fedsynth import`, or mend 'images' in the sites file"
        raise ImageSetError("there is no such folder", file=path, remedy=remedy)
    opened = ImageSet.load(path, every_voxel=every_voxel)
    if opened.header.origin != "real":
        remedy = "a hospital of a federation holds real images"
        raise ConfigError("the set is synthetic", file=path / HEADER, value=opened.header.origin, remedy=remedy)
    if len(opened) == 0:
        raise ImageSetError("the set has no images", file=path / TABLE)
    return opened


def _phantom_set(file: SitesFile, workspace: Path, workers: int | None, progress: Progress) -> ImageSet:
    assert file.phantom is not None
    hospitals = file.hospitals
    settings = file.phantom.settings(len(hospitals))
    folder = workspace / f"phantom-{_digest([settings, *hospitals])}"
    try:
        return ImageSet.load(folder, every_voxel=False)
    except ImageSetError:
        return make_phantoms(folder, settings, hospitals, workers=workers, overwrite=True, progress=progress)


def _digest(settings: Sequence[object]) -> str:
    """Of everything that the bytes of a phantom set follow from, the program that draws them included."""
    found = hashlib.sha256(__version__.encode())
    for value in settings:
        found.update(to_toml(value).encode())
    for source in sorted(Path(phantom.__path__[0]).glob("*.py")):
        found.update(source.read_bytes())
    return found.hexdigest()[:12]


def _in_order(name: str) -> tuple[str, int, str]:
    """site-2 before site-10."""
    stem, _, number = name.rpartition("-")
    return (stem, int(number), name) if number.isdecimal() else (name, 0, name)
