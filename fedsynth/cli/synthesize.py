"""`fedsynth synthesize`, images from a trained generator, and `fedsynth export`, image sets for other tools."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from fedsynth.cli.screen import print_json, progress_bar
from fedsynth.errors import ConfigError, nearest

if TYPE_CHECKING:
    from fedsynth.models.base import Family
    from fedsynth.training.checkpoint import Card
    from fedsynth.training.paired_sources import Sources

FORMATS = ("imageset", "nifti", "png")


def synthesize(
    run: Path | None = typer.Argument(None, help="The run; the newest if not given."),
    count: int = typer.Option(..., help="How many images."),
    out: Path = typer.Option(..., help="Where to write them."),
    mix: str | None = typer.Option(None, help="Shares of the classes, as in high-grade=0.5,healthy=0.5."),
    source: Path | None = typer.Option(None, help="The image set that a paired generator starts from."),
    edit: list[str] = typer.Option([], help="Edit the label maps: grow=1.5, shrink=0.7 or shift=10,0 (mm)."),
    transplant: bool = typer.Option(False, "--transplant", help="Put the source's tumours into its healthy brains."),
    seed: int = typer.Option(0, help="Image i depends on the seed and i only."),
    form: str = typer.Option("imageset", "--format", help="imageset, nifti (BIDS-like) or png."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace OUT if it exists."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Draw images from a trained generator."""
    from fedsynth.atomic_files import refuse_existing
    from fedsynth.data.export import TABLES, export
    from fedsynth.data.format import HEADER
    from fedsynth.runs import newest_run, open_run
    from fedsynth.training.checkpoint import load_generator
    from fedsynth.training.generate import Drawing
    from fedsynth.training.settings import cpu_threads

    if form not in FORMATS:
        raise ConfigError("unknown --format", value=form, remedy=nearest(form, FORMATS))
    place = newest_run() if run is None else open_run(run)
    family, card = load_generator(place.checkpoints)
    with cpu_threads(1):
        sources = _open_sources(family, card, source, count, mix, seed, edit, transplant)
    drawing = Drawing(family, card, count=count, mix=mix, seed=seed, sources=sources)
    refuse_existing(out, marker=TABLES.get(form, HEADER), overwrite=overwrite)
    with cpu_threads(1), progress_bar("drawing images") as advance:
        if form == "imageset":
            drawing.write(out, overwrite=overwrite, progress=advance)
        else:
            with tempfile.TemporaryDirectory(prefix="fedsynth-") as scratch:
                drawn = drawing.write(Path(scratch) / out.name, progress=advance)
                export(drawn, out, form, overwrite=overwrite)  # type: ignore[arg-type]
    if as_json:
        print_json({"run": str(place.folder), "out": str(out), "images": count, "format": form})
        return
    typer.echo(f"wrote {count} images of {place.folder} to {out}")
    if sources is not None and sources.lost:
        typer.echo(f"in {len(sources.lost)} of them the edited tumour found room for less than half of itself")
    if form == "imageset":
        typer.echo(f"next     fedsynth inspect {out} --sheet {out.name}.png")


def _open_sources(
    family: "Family",
    card: "Card",
    source: Path | None,
    count: int,
    mix: str | None,
    seed: int,
    edits: list[str],
    transplanting: bool,
) -> "Sources | None":
    from fedsynth.data import ImageSet
    from fedsynth.data.mask_editing import read_edit
    from fedsynth.training.label_map_stage import drawn_to_edit
    from fedsynth.training.paired_sources import choose_sources

    wanted = [read_edit(text, card.shape.dimensions) for text in edits]
    if card.two_stage and source is None:
        if not wanted and not transplanting:
            return None
        return drawn_to_edit(family, card, count, mix=mix, seed=seed, edits=wanted, transplanting=transplanting)
    if not card.pairing and not card.two_stage:
        if source is not None or edits or transplanting:
            problem = "this generator draws image and mask from noise: there is nothing to start from or to edit"
            raise ConfigError(problem, remedy="leave out --source, --edit and --transplant")
        return None
    if source is not None:
        opened = ImageSet.load(source)
        return choose_sources(card, opened, count, mix=mix, seed=seed, edits=wanted, transplanting=transplanting)
    problem = f"this generator does {card.pairing} and needs something to start from"
    raise ConfigError(problem, remedy="give --source SET, or train two stages: --renderer in place of --generator")


def export_set(
    images: Path = typer.Argument(..., metavar="SET", help="The image set."),
    out: Path = typer.Argument(..., help="Where to write it."),
    form: str = typer.Option("nifti", "--format", help="nifti (BIDS-like) or png."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace OUT if it exists."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Write an image set for other tools: NIfTI in a BIDS-like layout, or PNG in a folder per class."""
    from fedsynth.data import ImageSet
    from fedsynth.data.export import export

    opened = ImageSet.load(images)
    with progress_bar("writing images") as advance:
        export(opened, out, form, overwrite=overwrite, progress=advance)  # type: ignore[arg-type]
    if as_json:
        print_json({"out": str(out), "format": form, "images": len(opened)})
    else:
        typer.echo(f"wrote {len(opened)} images to {out}")
