"""`fedsynth synthesize`, images from a trained generator, and `fedsynth export`, image sets for other tools."""

from pathlib import Path

import typer

from fedsynth.cli.options import Given, takes_settings
from fedsynth.cli.screen import ScreenProgress, print_json, progress_bar
from fedsynth.config import read_table
from fedsynth.training.settings import GenerateSettings


@takes_settings(GenerateSettings)
def synthesize(
    given: Given,
    run: Path | None = typer.Argument(None, help="The run; the newest if not given."),
    out: Path | None = typer.Option(
        None, help="Where to write them. Default: into the run, which keeps results of that set.", show_default=False
    ),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace OUT if it exists."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Draw images from a trained generator."""
    from fedsynth.api.generation import generate
    from fedsynth.runs import newest_run

    read = read_table(GenerateSettings, given)
    folder = newest_run().folder if run is None else run
    made = generate(folder, out=out, overwrite=overwrite, progress=ScreenProgress(), **given)
    if as_json:
        print_json({"run": str(folder), "out": str(made), "images": read.count, "format": read.format})
        return
    typer.echo(f"wrote {read.count} images of {folder} to {made}")
    if read.format == "imageset":
        typer.echo(f"look at  fedsynth inspect {made} --sheet {made.name}.png")
        typer.echo(f"next     fedsynth benchmark memorization {folder}{'' if out is None else f' --synthetic {made}'}")


def export_set(
    images: Path = typer.Argument(..., metavar="SET", help="The image set."),
    out: Path = typer.Argument(..., help="Where to write it."),
    form: str = typer.Option("nifti", "--format", help="nifti (BIDS-like), png or huggingface."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace OUT if it exists."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Write an image set for other tools: NIfTI in a BIDS-like layout, PNG by class, or a Hugging Face folder."""
    from fedsynth.data import ImageSet
    from fedsynth.data.export import export

    opened = ImageSet.load(images)
    with progress_bar("writing images") as advance:
        export(opened, out, form, overwrite=overwrite, progress=advance)  # type: ignore[arg-type]
    if as_json:
        print_json({"out": str(out), "format": form, "images": len(opened)})
    else:
        typer.echo(f"wrote {len(opened)} images to {out}")
