"""Volumes of any kind, listed in a CSV manifest: NIfTI, MetaImage, NRRD files and folders with a DICOM series.

The manifest names patient, site, class, role, case and mask; every other column is a channel and holds paths.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsynth.errors import ConfigError, SourceError
from fedsynth.images.readers import ReadOptions, chosen_channels
from fedsynth.images.readers.decoding import open_volume
from fedsynth.images.readers.manifest import RESERVED, Row, case_names, read_manifest, refuse_twice
from fedsynth.images.readers.masks import MaskLabels, declared_labels
from fedsynth.images.readers.volume import Volume, require_same_grid
from fedsynth.images.source import Plan, Raw, Source


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
