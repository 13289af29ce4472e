"""`fedsynth train`: a generator from the images of one site."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from fedsynth.cli.options import PUBLIC, Given, takes_settings
from fedsynth.cli.privacy import say_spent_over_all, spent_over_all
from fedsynth.cli.screen import ScreenProgress, print_json
from fedsynth.training.settings import TrainSettings

if TYPE_CHECKING:
    from fedsynth.runs import Run
    from fedsynth.training.checkpoint import Card


@takes_settings(TrainSettings, leave_out=("images",))
def train(
    given: Given,
    images: Path = typer.Argument(..., metavar="SET", help="The image set; its members, if roles were drawn."),
    maps: str | None = typer.Option(
        None, metavar="NAME", help="Two-stage: what draws label maps; pca-maps if not given."
    ),
    renderer: str | None = typer.Option(
        None, metavar="NAME", help="Two-stage: what makes images of them; render-vae if not given."
    ),
    public: str | None = PUBLIC,
    run: Path | None = typer.Option(None, help="The run directory; a new one under runs/ if not given."),
    resume: bool = typer.Option(False, "--resume", help="Go on with the run in --run."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Train one generator on one image set: the centralised baseline that a federation is compared with."""
    from fedsynth.api.training import train as run_train

    screen = ScreenProgress()
    place = run_train(
        images, maps=maps, renderer=renderer, public=public, run=run, resume=resume, progress=screen, **given
    )
    from fedsynth.training.checkpoint import load_card

    card = load_card(place.checkpoints)
    if as_json:
        told = {"run": str(place.folder), "generator": card.generator, "steps": card.steps, "privacy": card.privacy}
        print_json(told | {"lineage": card.lineage.history(), "epsilon_over_all_runs": spent_over_all(place, card)})
    else:
        _say_what_happened(card, place)


def _say_what_happened(card: "Card", place: "Run") -> None:
    typer.echo(f"trained {card.generator} for {card.steps} steps on {card.trained_on}")
    typer.echo(f"privacy  {card.privacy}")
    say_spent_over_all(place, card, column=9)
    for line in card.lineage.history()[:-1]:
        typer.echo(f"from     {line}")
    typer.echo(f"run      {place.folder}")
    typer.echo(f"look at  {place.samples}")
    more = " --source SET" if card.pairing else ""
    typer.echo(f"next     fedsynth synthesize {place.folder}{more}")
