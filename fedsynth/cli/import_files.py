"""`fedsynth import`: real medical files into an image set."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsynth.cli import import_proposal
from fedsynth.cli.screen import print_json, progress_bar
from fedsynth.errors import ConfigError

if TYPE_CHECKING:
    from fedsynth.data import ImageSet, Shares

SHOWN = 20
SMALLEST = 16


def import_files(
    source: Annotated[Path, typer.Argument(help="Folder or file to read.", show_default=False)],
    out: Annotated[Path | None, typer.Argument(help="Image set to write.", show_default=False)] = None,
    reader: Annotated[
        str,
        typer.Option(
            help="brats, folder, lgg, medmnist or volumes. Default: look, propose, write nothing.", show_default=False
        ),
    ] = "",
    size: Annotated[int | None, typer.Option(help="Side of the square or cube, in pixels.", show_default=False)] = None,
    dimensions: Annotated[int, typer.Option(help="2 for images (volumes are cut into slices), 3 for volumes.")] = 2,
    channels: Annotated[str, typer.Option(help="Channels to read: a,b. Default: all.", show_default=False)] = "",
    intensity: Annotated[
        str,
        typer.Option(
            help="window:LOW,HIGH in the source's units, or percentile:LOW,HIGH of each scan. Default: the reader's.",
            show_default=False,
        ),
    ] = "",
    axis: Annotated[str, typer.Option(help="Slices of volumes: axial, coronal or sagittal.")] = "axial",
    every: Annotated[int, typer.Option(help="Keep every K-th slice.")] = 1,
    slices: Annotated[
        str,
        typer.Option(
            help="tumour, non-empty or all. Default: all pictures, non-empty slices of volumes.", show_default=False
        ),
    ] = "",
    spacing: Annotated[
        float | None,
        typer.Option(
            help="Millimetres per pixel for all images. Default: fields of view just fit.", show_default=False
        ),
    ] = None,
    labels: Annotated[
        str, typer.Option(help="Regroup mask labels: 'whole-tumour=edema,core,enhancing'.", show_default=False)
    ] = "",
    mask_labels: Annotated[
        str,
        typer.Option(help="Names of the mask's numbers: background,b,c or background=0,b=3,c=4-9.", show_default=False),
    ] = "",
    missing: Annotated[str, typer.Option(help="Patients who lack a sequence: keep or leave-out.")] = "keep",
    site: Annotated[str, typer.Option(help="Name of the site, where files do not tell.", show_default=False)] = "",
    patient_pattern: Annotated[
        str, typer.Option(help="Regular expression that finds the patient in a file's path.", show_default=False)
    ] = "",
    one_image_per_patient: Annotated[
        bool, typer.Option("--one-image-per-patient", help="Every image is another patient.")
    ] = False,
    synthetic: Annotated[
        bool, typer.Option("--synthetic", help="The images were made by a generator: they are nobody's.")
    ] = False,
    unmasked_is_background: Annotated[
        bool, typer.Option("--unmasked-is-background", help="Images without a mask show none of the labels.")
    ] = False,
    split: Annotated[
        str, typer.Option(help="Shares of member,holdout,reference. [default: 0.5,0.4,0.1]", show_default=False)
    ] = "",
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    skip_corrupt: Annotated[
        bool, typer.Option("--skip-corrupt", help="Leave damaged files out and list them.")
    ] = False,
    workers: Annotated[int | None, typer.Option(help="Threads. Default: one per core.", show_default=False)] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            help="Write a contact sheet of a few images to this PNG file, and no image set.", show_default=False
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(help="Without --reader: write the table of the volumes found to this CSV.", show_default=False),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it is an image set.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Read real medical images into an image set, with roles drawn by patient.

    Without --reader: look at SOURCE and propose a command, with a contact sheet where --sheet is given.

    brats: folders of BraTS 2015 to 2023.

    folder: PNG, JPEG or TIFF, one folder per class.

    lgg: the folders of kaggle_3m.

    medmnist: an .npz file.

    volumes: NIfTI, MHD, NRRD or DICOM, listed in a CSV file.
    """
    if not reader:
        if size is not None or channels or mask_labels or patient_pattern or one_image_per_patient or synthetic:
            remedy = "name the --reader, or leave the other options out and change the command that is proposed"
            raise ConfigError("without a reader the files are only looked at", remedy=remedy)
        import_proposal.show(source, out, sheet=sheet, table=table, as_json=as_json)
        if out is not None:
            raise typer.Exit(2)
        return
    if table is not None:
        raise ConfigError("--table writes what is found without --reader", value=str(table), remedy="leave one out")
    if size is None or (out is None and sheet is None):
        missing_option = "--size" if size is None else "OUT, the image set to write,"
        remedy = f"`fedsynth import {source}` proposes a whole command"
        raise ConfigError(f"{missing_option} is missing", remedy=remedy)
    from fedsynth.data.importers import ReadOptions
    from fedsynth.data.importers.pipeline import ImportSettings, import_images
    from fedsynth.data.preprocessing import Slicing

    options = ReadOptions(
        dimensions=dimensions,  # type: ignore[arg-type]  # the settings check it
        channels=_names("channels", channels),
        site=site,
        mask_labels=_names("mask-labels", mask_labels),
        patient_pattern=patient_pattern,
        one_image_per_patient=one_image_per_patient,
        unmasked_is_background=unmasked_is_background,
    )
    settings = ImportSettings(
        size=size,
        options=options,
        slicing=Slicing(axis=axis, every=every, keep=slices),  # type: ignore[arg-type]  # checked there
        intensity=intensity,
        labels=labels,
        spacing_mm=spacing,
        missing=missing,  # type: ignore[arg-type]  # the settings check it
        shares=read_shares(split) if split else None,
        seed=seed,
        synthetic=synthetic,
        skip_corrupt=skip_corrupt,
        overwrite=overwrite,
        workers=workers,
    )
    if sheet is not None:
        import_proposal.write_sheet(source, reader, settings, sheet)
        typer.echo(f"contact sheet: {sheet}; no image set was written")
        return
    assert out is not None
    with progress_bar(f"reading {source.name}") as progress:
        made = import_images(source, out, name=reader, settings=settings, progress=progress)
    summary = _summary(made, out)
    if as_json:
        print_json(summary)
    else:
        _show(summary)


def _names(option: str, text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",")) if text else ()
    if "" in names:
        raise ConfigError(f"--{option} has an empty name", value=text, remedy="write a,b")
    return names


def read_shares(text: str) -> "Shares":
    """`0.5,0.4,0.1` as shares of member, holdout and reference."""
    from fedsynth.data import Shares

    try:
        member, holdout, reference = (float(share) for share in text.split(","))
    except ValueError:
        remedy = "write the shares of member,holdout,reference, such as 0.5,0.4,0.1"
        raise ConfigError("--split cannot be read", value=text, remedy=remedy) from None
    return Shares(member=member, holdout=holdout, reference=reference)


def _summary(made: "ImageSet", out: Path) -> dict[str, Any]:
    patients, header = made.patients, made.header
    told = header.provenance
    return {
        "schema": "fedsynth.import/1",
        "out": str(out),
        "images": len(made),
        "patients": len(patients),
        "size": list(made.size),
        "spacing_mm": list(header.spacing_mm),
        "channels": list(header.channels),
        "mask_labels": list(header.mask_labels),
        "patients_per_site": _counts(patients["site"]),
        "patients_per_class": _counts(patients["class"]),
        "patients_per_role": _counts(patients["role"]),
        "spacing": told["spacing"],
        "patients_warning": told.get("patients-warning", ""),
        "bits_used": told.get("bits", 8) if "bits-of-files" in told else None,
        "bits_of_pictures": told.get("bits-of-pictures", {}),
        "grey_saved_in_colours": told.get("grey-saved-in-colours", 0),
        "files_ignored": told.get("files-ignored", {}),
        "constant_images": told.get("constant-images", []),
        "missing_sequences_of": told.get("missing-sequences-of", {}),
        "lesions_cut_off": told.get("lesions-cut-off", []),
        "left_out": told.get("left-out", []),
    }


def _counts(values: Any) -> dict[str, int]:
    return {str(name) or "-": int(count) for name, count in values.value_counts(sort=False).sort_index().items()}


def _show(summary: dict[str, Any]) -> None:
    size = " x ".join(map(str, summary["size"]))
    whose = f"images of {summary['patients']} patients" if summary["patients"] else "synthetic images"
    typer.echo(f"{summary['out']}: {summary['images']} {whose}, {size}, {', '.join(summary['channels'])}")
    for what in ("site", "class", "role") if summary["patients"] else ():
        counts = ", ".join(f"{name} {count}" for name, count in summary[f"patients_per_{what}"].items())
        typer.echo(f"  patients per {what}: {counts}")
    if isinstance(summary["spacing"], dict):
        spread = summary["spacing"]
        typer.echo(f"  spacing differs: {spread['smallest']:g} to {spread['largest']:g} mm; --spacing makes it equal")
    if summary["patients_warning"] and summary["patients"]:
        typer.echo(f"  one image per patient is {summary['patients_warning']}")
    if used := summary["bits_used"]:
        window = f"--intensity window:0,{(1 << used) - 1}"
        typer.echo(f"  values use {used} of 16 bits; give {window} at every hospital, or one bright pixel changes it")
    if bits := summary["bits_of_pictures"]:
        each = ", ".join(f"{count} of {depth}" for depth, count in bits.items())
        typer.echo(f"  bits per value differ: {each}; every picture is read over its whole range")
    if grey := summary["grey_saved_in_colours"]:
        typer.echo(f"  {grey} grey pictures were saved in colours; they are read as one channel")
    for ending, count in summary["files_ignored"].items():
        typer.echo(f"  {count} {ending} files were left out: they are no pictures")
    if constant := summary["constant_images"]:
        typer.echo(f"  {len(constant)} images are of one value, black for example: {_some(constant)}")
    for channel, who in summary["missing_sequences_of"].items():
        typer.echo(f"  {channel} is a stand-in for {len(who)} patients: {_some(who)}")
    if cut := summary["lesions_cut_off"]:
        typer.echo(f"  {len(cut)} images are cut at a lesion: {_some(cut)}")
    for warning in _warnings(summary):
        typer.echo(f"  careful: {warning}")
    if left_out := summary["left_out"]:
        typer.echo(f"  left out ({len(left_out)}):", err=True)
        for line in left_out:
            typer.echo(f"    {line}", err=True)
    typer.echo(f"next  fedsynth inspect {summary['out']} --sheet {Path(summary['out']).name}.png")


def _warnings(summary: dict[str, Any]) -> list[str]:
    """What will disappoint later: nobody to measure against, patterns that find one patient, tiny images."""
    found = []
    if summary["patients"] == 1:
        found.append("all images are of one patient; is that true? nothing can be measured on others")
    elif summary["patients"] and "holdout" not in summary["patients_per_role"]:
        found.append("no patient is held out, so that neither leakage nor utility can be measured")
    if min(summary["size"]) < SMALLEST:
        found.append(f"most generators need {SMALLEST} pixels or more")
    return found


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
