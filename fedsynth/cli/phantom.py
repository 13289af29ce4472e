"""`fedsynth phantom`: make a cohort of brain phantoms."""

from pathlib import Path
from typing import Annotated

import typer

from fedsynth.cli.screen import print_json, progress_bar


def phantom(
    out: Annotated[Path, typer.Argument(help="The image set to write.")],
    patients: Annotated[int, typer.Option(help="How many patients.")] = 200,
    slices: Annotated[int, typer.Option(help="Slices per patient (in two dimensions).")] = 5,
    size: Annotated[int, typer.Option(help="Edge of an image in pixels.")] = 64,
    sites: Annotated[int, typer.Option(help="How many hospitals, each with a scanner and a case mix of its own.")] = 4,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    dimensions: Annotated[int, typer.Option(help="2 for slices, 3 for volumes.")] = 2,
    labels: Annotated[str, typer.Option(help="tumour, whole-tumour or tissue+tumour.")] = "tumour",
    head: Annotated[bool, typer.Option("--head", help="Show skull, scalp and eyes; else skull-stripped.")] = False,
    styles: Annotated[str, typer.Option(help="hospitals, or public: wide random styles that know no hospital.")] = (
        "hospitals"
    ),
    workers: Annotated[int | None, typer.Option(help="Processes; one per core unless given.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it is an image set.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make brain phantoms: real anatomy, grown tumours, four MR sequences, several hospitals.

    Healthy, low-grade and high-grade patients with T1, T2, FLAIR and contrast-enhanced T1, with masks. Spots
    that are no tumour carry no label.
    """
    from fedsynth.data.phantoms.cohort import PhantomSettings, make_phantoms

    settings = PhantomSettings(
        patients=patients,
        slices=slices,
        size=size,
        sites=sites,
        seed=seed,
        dimensions=dimensions,  # type: ignore[arg-type]  # the settings check both texts
        labels=labels,  # type: ignore[arg-type]
        head=head,
        styles=styles,  # type: ignore[arg-type]
    )
    with progress_bar("phantoms") as progress:
        made = make_phantoms(out, settings, workers=workers, overwrite=overwrite, progress=progress)
    by_site = made.patients.groupby("site")["patient"].size()
    if as_json:
        counts = {"images": len(made), "patients": patients, "patients_per_site": by_site.to_dict()}
        print_json({"schema": "fedsynth.phantom/1", "out": str(out), **counts, "seed": seed, "labels": labels})
        return
    listed = ", ".join(f"{site} {count}" for site, count in by_site.items())
    typer.echo(f"{out}: {len(made)} images of {patients} patients ({listed})")
