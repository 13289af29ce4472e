"""`fedsynth inspect`: what stands in an image set, as tables, JSON and a contact sheet.

The JSON object holds `set` (the header's facts), `groups` (`Group` of `data/summary.py` per site and role, last the
whole set with site and role null), `intensities` (`Intensities` per site and channel), `duplicates` (`constant`: case
names; `exact`: groups of cases; `near`: pairs with `ratio` and `detail`, or null and `why`; see
`data/duplicates.py`) and `sheet` (its file, or null). Every list is whole.
"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsynth.cli.screen import print_json, print_table, progress_bar

if TYPE_CHECKING:
    from fedsynth.data import ImageSet
    from fedsynth.data.duplicates import Duplicates
    from fedsynth.data.summary import Group, LabelShare, Summary

LISTED = 10


def inspect(
    folder: Annotated[Path, typer.Argument(metavar="SET", help="The image set.")],
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet to this PNG file.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows of images per site on the contact sheet.")] = 3,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the contact sheet if it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Look at an image set: counts, labels and intensities per site, duplicates across patients, a contact sheet.

    Duplicates within one patient are expected and not reported. The contact sheet of a real set shows patients.
    """
    from fedsynth.data import ImageSet
    from fedsynth.data.duplicates import find_duplicates
    from fedsynth.data.summary import summarise

    if sheet is not None:
        _check_sheet(sheet, overwrite)
    image_set = ImageSet.load(folder)
    with progress_bar("reading") as progress:
        summary = summarise(image_set, progress=progress)
    with progress_bar("looking for duplicates") as progress:
        duplicates = find_duplicates(image_set, progress=progress)
    if sheet is not None:
        _write_sheet(image_set, sheet, rows)
    if as_json:
        print_json(_as_json(image_set, folder, summary, duplicates, sheet))
        return
    _print_header(image_set)
    _print_groups(image_set, summary)
    _print_intensities(summary)
    _print_duplicates(image_set, duplicates)
    if sheet is not None:
        typer.echo(f"\ncontact sheet: {sheet}")


def _check_sheet(sheet: Path, overwrite: bool) -> None:
    from fedsynth.errors import ConfigError, RefusedError

    if sheet.suffix.lower() != ".png":
        raise ConfigError("the contact sheet must be a .png file", value=str(sheet))
    if sheet.is_dir():
        raise RefusedError("is a folder", file=sheet, remedy="name a file for the contact sheet")
    if sheet.exists() and not overwrite:
        raise RefusedError("the contact sheet exists already", file=sheet, remedy="choose another name or --overwrite")


def _write_sheet(image_set: "ImageSet", sheet: Path, rows: int) -> None:
    from io import BytesIO

    from fedsynth.atomic_files import write_bytes
    from fedsynth.data.contact_sheet import contact_sheet

    encoded = BytesIO()
    contact_sheet(image_set, rows=rows).save(encoded, "PNG")
    write_bytes(sheet, encoded.getvalue())


def _print_header(image_set: "ImageSet") -> None:
    header = image_set.header
    split = "not recorded"
    if header.split is not None:
        shares = ", ".join(f"{role} {share:g}" for role, share in asdict(header.split.shares).items())
        split = f"{shares}; seed {header.split.seed}, within {' and '.join(header.split.strata) or 'the whole set'}"
    spacing = header.provenance.get("spacing", "")
    facts = {
        "name": f"{header.name} ({'phantoms' if header.phantoms else header.origin})",
        "images": f"{len(image_set)} of {len(image_set.patients)} patients",
        "size": f"{' x '.join(map(str, image_set.size))} at {' x '.join(f'{mm:g}' for mm in header.spacing_mm)} mm, "
        f"{image_set.images.dtype}{f' ({spacing})' if spacing else ''}",
        "channels": ", ".join(header.channels),
        "classes": ", ".join(header.classes) or "none",
        "labels": ", ".join(header.mask_labels) or "no masks",
        "split": split,
    }
    for name, fact in facts.items():
        typer.echo(f"{name:10}{fact}")


def _print_groups(image_set: "ImageSet", summary: "Summary") -> None:
    classes = list(summary.groups[-1].classes)
    typer.echo("\nImages")
    columns = ["site", "role", "images", "patients", *[name or "no class" for name in classes]]
    print_table(
        columns,
        [
            [*_place(group), group.images, group.patients, *[group.classes.get(name, 0) for name in classes]]
            for group in summary.groups
        ],
    )
    if image_set.masks is None:
        return
    typer.echo("\nLabels: share of the images that show it, and its mean share of the area of these")
    names = list(summary.groups[-1].labels)
    together = len(names) > 1 and summary.groups[-1].tumour is not None
    columns = ["site", "role", *(["whole tumour"] if together else []), *names]
    print_table(columns, [[*_place(group), *_label_cells(group, together)] for group in summary.groups])


def _place(group: "Group") -> tuple[str, str]:
    return ("all", "") if group.site is None else (group.site or "-", group.role or "-")


def _label_cells(group: "Group", together: bool) -> list[str]:
    shares = [group.tumour] if together and group.tumour is not None else []
    return [_percent(share) for share in [*shares, *group.labels.values()]]


def _percent(share: "LabelShare") -> str:
    return f"{share.images:.1%} {'-' if share.area is None else format(share.area, '.2%'):>6}"


def _print_intensities(summary: "Summary") -> None:
    typer.echo("\nIntensities from 0 to 1: mean, share of black voxels, quantiles of all voxels and of those not black")
    shown = (0.05, 0.5, 0.95)
    columns = ["site", "channel", "mean", "black", *[f"{q:.0%}" for q in shown], *[f"not black {q:.0%}" for q in shown]]
    table = []
    for found in summary.intensities:
        over = ["-" if found.above_zero is None else f"{found.above_zero[q]:.3f}" for q in shown]
        quantiles = [f"{found.quantiles[q]:.3f}" for q in shown]
        table.append([found.site or "-", found.channel, f"{found.mean:.3f}", f"{found.black:6.1%}", *quantiles, *over])
    print_table(columns, table)


def _print_duplicates(image_set: "ImageSet", duplicates: "Duplicates") -> None:
    typer.echo("\nDuplicates across patients or roles")
    if duplicates.constant:
        typer.echo(f"{len(duplicates.constant)} constant images (empty or of one value), left out of what follows")
    typer.echo(f"{len(duplicates.exact)} groups of exact copies")
    for group in duplicates.exact[:LISTED]:
        typer.echo("  " + "  =  ".join(_name(image_set, row) for row in group[:4]) + (" ..." if len(group) > 4 else ""))
    _print_more(len(duplicates.exact))
    if duplicates.near is None:
        typer.echo(f"near duplicates: not looked for, {duplicates.why}")
        return
    typer.echo(f"{len(duplicates.near)} pairs of near duplicates")
    for pair in duplicates.near[:LISTED]:
        first, second = (_name(image_set, row) for row in pair.rows)
        numbers = f"distance {pair.ratio:.2f} of the next patient's, detail {pair.detail:.2f} alike"
        typer.echo(f"  {first}  ~  {second}  ({numbers})")
    _print_more(len(duplicates.near))
    if duplicates.unchecked:
        typer.echo(f"  and {duplicates.unchecked} candidates that were too many to confirm")


def _print_more(count: int) -> None:
    if count > LISTED:
        typer.echo(f"  and {count - LISTED} more: --json lists all")


def _name(image_set: "ImageSet", row: int) -> str:
    case = image_set.cases.iloc[row]
    where = ", ".join(part for part in (case["site"], case["role"]) if part)
    return f"{case['case']} [{where}]" if where else str(case["case"])


def _as_json(
    image_set: "ImageSet", folder: Path, summary: "Summary", duplicates: "Duplicates", sheet: Path | None
) -> dict[str, Any]:
    return {
        "schema": "fedsynth.inspect/1",
        "set": _header_as_json(image_set, folder),
        "groups": [asdict(group) for group in summary.groups],
        "intensities": [asdict(found) for found in summary.intensities],
        "duplicates": _duplicates_as_json(image_set, duplicates),
        "sheet": None if sheet is None else str(sheet),
    }


def _header_as_json(image_set: "ImageSet", folder: Path) -> dict[str, Any]:
    header = image_set.header
    return {
        "folder": str(folder),
        "name": header.name,
        "origin": header.origin,
        "images": len(image_set),
        "patients": len(image_set.patients),
        "channels": header.channels,
        "classes": header.classes,
        "mask_labels": header.mask_labels,
        "size": image_set.size,
        "spacing_mm": header.spacing_mm,
        "dtype": str(image_set.images.dtype),
        "split": None if header.split is None else asdict(header.split),
    }


def _duplicates_as_json(image_set: "ImageSet", duplicates: "Duplicates") -> dict[str, Any]:
    near = duplicates.near
    named = image_set.cases[["case", "patient", "site", "role"]].to_dict("records")
    return {
        "constant": [named[row]["case"] for row in duplicates.constant],
        "exact": [[named[row] for row in group] for group in duplicates.exact],
        "near": near
        and [{"cases": [named[row] for row in pair.rows], "ratio": pair.ratio, "detail": pair.detail} for pair in near],
        "unchecked": duplicates.unchecked,
        "detail_needed": duplicates.detail_needed,
        "why": duplicates.why or None,
    }
