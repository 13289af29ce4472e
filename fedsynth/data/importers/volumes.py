"""Volumes of any kind, listed in a CSV manifest: NIfTI, MetaImage, NRRD files and folders with a DICOM series.

The manifest names patient, site, class, role, case and mask; every other column is a channel and holds paths.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsynth.data.importers import ReadOptions, chosen_channels
from fedsynth.data.importers.mask_labels import MaskLabels, declared_labels
from fedsynth.data.importers.source import Plan, Raw, Source
from fedsynth.data.importers.volume import Volume, require_path, require_same_grid
from fedsynth.data.importers.volume_decoding import open_volume
from fedsynth.data.roles import ROLES
from fedsynth.errors import ConfigError, SourceError, nearest

# Reads a CSV manifest into checked rows: whole lines, known columns, one site and role per patient, nothing twice.
#
# It knows tables and names of files, and opens no image.


RESERVED = ("patient", "site", "class", "role", "case", "mask")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the manifest: who it is, and the cells of all columns by name."""

    manifest: Path
    line: int
    cells: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells.get(column, "")

    def path(self, column: str) -> Path:
        """The file or folder that a cell names, relative to the manifest; backslashes of Windows are understood."""
        named = self.manifest.parent / Path(self[column]).expanduser()
        return named if named.exists() else self.manifest.parent / self[column].replace("\\", "/")

    def missing(self, columns: tuple[str, ...]) -> tuple[SourceError, ...]:
        """A complaint for every file of this line that does not exist."""
        found = []
        for column in columns:
            try:
                if self[column]:
                    require_path(self.path(column))
            except SourceError as error:
                found.append(self.error(str(error)))
        return tuple(found)

    def error(self, problem: str, *, value: object = None, remedy: str = "") -> SourceError:
        """A complaint that names the manifest and this line."""
        return SourceError(problem, file=self.manifest, row=self.line, value=value, remedy=remedy)


def read_manifest(path: Path) -> tuple[tuple[str, ...], list[Row]]:
    """The names of the columns and the rows of the table in `path`."""
    table = _lines(path, _text(path))
    _, header = next(table, (0, []))
    columns = _columns(path, header)
    rows = []
    for line, cells in table:
        if len(cells) != len(columns):
            problem = f"has {len(cells)} cells where the first line names {len(columns)} columns"
            remedy = "put cells that contain commas into double quotes"
            raise SourceError(problem, file=path, row=line, remedy=remedy)
        rows.append(Row(manifest=path, line=line, cells=dict(zip(columns, cells, strict=True))))
    if not rows:
        raise SourceError("the manifest lists no images", file=path, remedy="add one row per image")
    _check_people(rows)
    return columns, rows


def refuse_twice(rows: list[Row], columns: tuple[str, ...]) -> None:
    """A file or a case that is listed twice would be two images of which one may be trained on and one held out."""
    seen: dict[Path, tuple[int, str]] = {}
    for row in rows:
        for column in columns:
            if not row[column]:
                continue
            path = row.path(column).resolve()
            if path in seen:
                line, where = seen[path]
                problem = f"the file of {column!r} stands already in row {line}, column {where!r}"
                raise row.error(problem, value=row[column], remedy="list every file once")
            seen[path] = (row.line, column)


def case_names(rows: list[Row]) -> list[str]:
    """The names of the `case` column; without it the patient, numbered where a patient has several rows."""
    if "case" in rows[0].cells:
        return _given_names(rows)
    n_rows = Counter(row["patient"] for row in rows)
    so_far: Counter[str] = Counter()
    names: list[str] = []
    for row in rows:
        patient = row["patient"]
        so_far[patient] += 1
        names.append(patient if n_rows[patient] == 1 else f"{patient}-{so_far[patient]}")
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        row = rows[names.index(twice)]
        raise row.error("two cases have the same name", value=twice, remedy="name all cases in a column 'case'")
    return names


def _given_names(rows: list[Row]) -> list[str]:
    seen: dict[str, int] = {}
    for row in rows:
        if not row["case"]:
            raise row.error("the cell 'case' is empty", remedy="name every case or leave the column out")
        if row["case"] in seen:
            problem = f"the case stands already in row {seen[row['case']]}"
            raise row.error(problem, value=row["case"], remedy="every case needs its own name")
        seen[row["case"]] = row.line
    return [row["case"] for row in rows]


def _text(path: Path) -> str:
    if path.is_dir():
        found = sorted(file.name for file in path.glob("*.csv"))
        remedy = f"give the manifest itself: {found[0]}" if found else "write a manifest with a row per image"
        raise SourceError("is a folder where a CSV manifest is expected", file=path, remedy=remedy)
    if not path.is_file():
        raise SourceError("there is no such manifest", file=path, remedy="check the spelling")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        remedy = "save the table as CSV in UTF-8"
        raise SourceError("is not a text file in UTF-8", file=path, remedy=remedy)
    return text


def _lines(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and stripped cells of every line that is not blank."""
    table = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        line = table.line_num + 1
        try:
            cells = [cell.strip() for cell in next(table)]
        except StopIteration:
            return
        except csv.Error as error:
            remedy = "look for a quotation mark that is not closed"
            raise SourceError(f"is no readable CSV: {error}", file=path, row=line, remedy=remedy) from error
        if any(cells):
            yield line, cells


def _columns(path: Path, header: list[str]) -> tuple[str, ...]:
    if not header:
        raise SourceError("the manifest is empty", file=path, remedy="its first line names the columns")
    for mark, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if len(header) == 1 and mark in header[0]:
            remedy = "save it with commas"
            raise SourceError(f"the columns are separated by {name}", file=path, value=header[0], remedy=remedy)
    for number, column in enumerate(header):
        if not column:
            raise SourceError(f"column {number + 1} has no name", file=path, row=1, remedy="name it or delete it")
        if column in header[:number]:
            raise SourceError("two columns have the same name", file=path, row=1, value=column)
    if "patient" not in header:
        remedy = f"{nearest('patient', header)} patients must be named, so that none is split"
        raise SourceError("the column 'patient' is missing", file=path, row=1, remedy=remedy)
    for column in header:
        if column not in RESERVED and (meant := get_close_matches(column.casefold(), RESERVED, n=1, cutoff=0.85)):
            remedy = f"write {meant[0]!r}, or call an image column otherwise"
            raise SourceError(f"the column looks like {meant[0]!r}", file=path, row=1, value=column, remedy=remedy)
    return tuple(header)


def _check_people(rows: list[Row]) -> None:
    first: dict[str, Row] = {}
    roles_given = any(row["role"] for row in rows)
    for row in rows:
        if not row["patient"]:
            raise row.error("the patient is missing", remedy="name the patient of every row, so that none is split")
        if row["role"] not in ROLES and (row["role"] or roles_given):
            remedy = nearest(row["role"], ROLES) if row["role"] else "give every row a role, or none"
            raise row.error("unknown role", value=row["role"], remedy=remedy)
        before = first.setdefault(row["patient"], row)
        for column in ("site", "role"):
            if row[column] != before[column]:
                problem = f"the patient {row['patient']!r} has two values of {column!r}: {before[column]!r} "
                problem += f"in row {before.line} and {row[column]!r}"
                raise row.error(problem, remedy="all images of a patient belong to one hospital and one role")


@dataclass(frozen=True, kw_only=True)
class Volumes:
    """How the rows of one manifest are decoded: which columns are channels, and what the masks' numbers mean."""

    channels: tuple[str, ...]
    labels: MaskLabels | None
    unmasked_is_background: bool

    def decode(self, row: Row, case: str) -> Iterator[Raw]:
        """The one volume of `row`, its channels stacked; every complaint names the row."""
        if row.missing((*self.channels, "mask") if self.labels else self.channels):
            return  # said already by `Source.problems`
        try:
            yield self._open(row, case)
        except SourceError as error:
            raise row.error(str(error)) from error

    def _open(self, row: Row, case: str) -> Raw:
        volumes = [open_volume(row.path(channel)) for channel in self.channels]
        for other in volumes[1:]:
            require_same_grid(volumes[0], other)
        mask: NDArray[np.uint8] | None = None
        if self.labels is not None:
            mask = self._mask(row, volumes[0], self.labels)
        arrays: list[NDArray[Any]] = [volume.array for volume in volumes]
        image = arrays[0][None] if len(arrays) == 1 else _stacked(arrays)
        return Raw(case=case, image=image, mask=mask, spacing_mm=volumes[0].spacing_mm)

    def _mask(self, row: Row, image: Volume, labels: MaskLabels) -> NDArray[np.uint8]:
        if not row["mask"] and self.unmasked_is_background:
            return np.zeros(image.array.shape, np.uint8)
        mask = open_volume(row.path("mask"))
        require_same_grid(image, mask)
        return labels.translate(mask.array, mask.file)


def plan(source: Path, options: ReadOptions) -> Plan:
    """Read the manifest `source`; no volume is opened before its turn."""
    _refuse_foreign(options)
    columns, rows = read_manifest(source)
    if options.site and "site" in columns:
        remedy = "leave --site or the column out"
        raise ConfigError("the manifest has a column 'site' already", value=options.site, remedy=remedy)
    channels = _channels(source, columns, options)
    labels = declared_labels(options.mask_labels) if "mask" in columns else None
    if labels is None and options.mask_labels:
        raise ConfigError("mask labels are named, but the manifest has no column 'mask'", file=source)
    used = (*channels, *(("mask",) if labels else ()))
    _refuse_no_images(rows, channels)
    _refuse_empty(rows, channels, labels is not None and not options.unmasked_is_background)
    refuse_twice(rows, used)
    reading = Volumes(channels=channels, labels=labels, unmasked_is_background=options.unmasked_is_background)
    sources = [
        Source(
            patient=row["patient"],
            site=row["site"] or options.site,
            label=row["class"],
            role=row["role"],
            file=row.path(channels[0]),
            decode=partial(reading.decode, row, case),
            problems=row.missing(used),
        )
        for row, case in zip(rows, case_names(rows), strict=True)
    ]
    return Plan(
        channels=channels,
        classes=tuple(sorted({row["class"] for row in rows} - {""})),
        mask_labels=labels.names if labels else (),
        sources=sources,
        dimensions=3,
        notes=_notes(columns, used),
    )


def _channels(source: Path, columns: tuple[str, ...], options: ReadOptions) -> tuple[str, ...]:
    known = tuple(column for column in columns if column not in RESERVED)
    if not known:
        raise SourceError("no column holds images", file=source, row=1, remedy="add one column per channel, as 'ct'")
    return chosen_channels(known, options)


def _stacked(arrays: list[NDArray[Any]]) -> NDArray[Any]:
    """The channels in one array: whole numbers as long as all are, single precision otherwise."""
    whole = all(array.dtype.kind != "f" for array in arrays)
    return np.stack(arrays) if whole else np.stack(arrays, dtype=np.float32, casting="unsafe")


def _refuse_no_images(rows: list[Row], channels: tuple[str, ...]) -> None:
    """A column like age or sex beside one that does name files: nobody meant it as a channel."""
    found = {channel: any(row[channel] and row.path(channel).exists() for row in rows) for channel in channels}
    for channel, has_files in found.items():
        if any(found.values()) and not has_files:
            value = next((row[channel] for row in rows if row[channel]), "")
            remedy = f"name the columns with images: --channels {','.join(name for name in channels if found[name])}"
            raise rows[0].error(f"no cell of the column {channel!r} is a file", value=value, remedy=remedy)


def _refuse_empty(rows: list[Row], channels: tuple[str, ...], masks: bool) -> None:
    for row in rows:
        for channel in channels:
            if not row[channel]:
                remedy = "every row needs every channel: fill the cell, leave the row out or choose with --channels"
                raise row.error(f"the cell {channel!r} is empty", remedy=remedy)
        if masks and not row["mask"]:
            remedy = "name a mask, or say --unmasked-is-background if such images show no lesion"
            raise row.error("the cell 'mask' is empty", remedy=remedy)


def _notes(columns: tuple[str, ...], used: tuple[str, ...]) -> dict[str, Any]:
    ignored = [column for column in columns if column not in (*RESERVED, *used)]
    notes: dict[str, Any] = {"orientation": "RAS"}
    return notes | {"columns-ignored": ignored} if ignored else notes


def _refuse_foreign(options: ReadOptions) -> None:
    for given, name in (
        (options.patient_pattern, "--patient-pattern"),
        (options.one_image_per_patient, "--one-image-per-patient"),
    ):
        if given:
            raise ConfigError(f"{name} is not for volumes: the manifest's column 'patient' names the patients")
