"""`fedsynth import` without a reader: what was seen, what to confirm, a command to paste, a contact sheet."""

import shlex
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from fedsynth.cli.screen import print_json, progress_bar
from fedsynth.errors import ConfigError, RefusedError

if TYPE_CHECKING:
    from fedsynth.data.importers import ReadOptions
    from fedsynth.data.importers.pipeline import ImportSettings

ON_A_SHEET = 24
OUT, TABLE = "images", "volumes.csv"
"""What the proposed command calls the image set and the table, where no name was given."""


def show(source: Path, out: Path | None, *, sheet: Path | None, table: Path | None, as_json: bool) -> None:
    """Print a proposal for `source`; write the table of its volumes and a contact sheet if asked."""
    from fedsynth import atomic_files
    from fedsynth.data.importers.pipeline import ImportSettings
    from fedsynth.data.importers.proposal import propose

    for file, ending in ((sheet, ".png"), (table, ".csv")):
        _check_new(file, ending)
    with progress_bar(f"looking at {source.name}"):
        found = propose(source)
    if table is not None:
        if found.table is None:
            raise ConfigError("only volumes are listed in a table", file=source, remedy="leave --table out")
        atomic_files.write_bytes(table, found.table.text(table.parent).encode(), mode=0o600)
    written = table if found.table is not None else source
    command = found.arguments(written or Path(TABLE), str(out or OUT))
    first = ["import", str(source), "--table", TABLE] if found.table is not None and table is None else []
    steps = [shlex.join(["fedsynth", *arguments]) for arguments in (first, command) if arguments]
    if sheet is not None:
        if written is None:
            raise ConfigError("the contact sheet of volumes needs their table", remedy="give --table FILE too")
        options = _anybody(found.options) if found.table is None else found.options
        few = ImportSettings(size=found.size, options=options, intensity=found.intensity)
        write_sheet(written, found.reader, few, sheet)
    if as_json:
        told = {"reader": found.reader, "seen": found.seen, "confirm": found.confirm, "commands": steps}
        print_json({"schema": "fedsynth.proposal/1", **told, "options": asdict(found.options), "size": found.size})
        return
    typer.echo(f"{source} looks like this:")
    for line in found.seen:
        typer.echo(f"  {line}")
    if found.confirm:
        typer.echo("Only you can know:")
        for line in found.confirm:
            typer.echo(f"  {line}")
    for file, what in ((table, "the table of the volumes, which names patients"), (sheet, "a contact sheet")):
        if file is not None:
            typer.echo(f"{file}: {what}; look at it")
    typer.echo("No image set was written. If all of this is so:")
    for step in steps:
        typer.echo(f"  {step}")


def _anybody(options: "ReadOptions") -> "ReadOptions":
    """For a look at pictures it does not matter whose they are."""
    return options if options.patient_pattern else replace(options, one_image_per_patient=True)


def write_sheet(source: Path, reader: str, settings: "ImportSettings", sheet: Path) -> None:
    """Import a few images into a folder that is thrown away, and write their contact sheet."""
    from io import BytesIO

    from fedsynth import atomic_files
    from fedsynth.data.contact_sheet import contact_sheet
    from fedsynth.data.importers.pipeline import import_images

    if not settings.overwrite:
        _check_new(sheet, ".png")
    few = replace(settings, most=ON_A_SHEET, skip_corrupt=True)
    with tempfile.TemporaryDirectory() as folder, progress_bar("a few images") as progress:
        made = import_images(source, Path(folder) / source.stem, name=reader, settings=few, progress=progress)
        encoded = BytesIO()
        contact_sheet(made, rows=3).save(encoded, "PNG")
    atomic_files.write_bytes(sheet, encoded.getvalue())


def _check_new(file: Path | None, ending: str) -> None:
    if file is None:
        return
    if file.suffix.lower() != ending:
        raise ConfigError(f"the name must end in {ending}", value=str(file))
    if file.exists():
        raise RefusedError("exists already", file=file, remedy="choose another name")
