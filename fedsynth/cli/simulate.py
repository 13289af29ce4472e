"""`fedsynth simulate`: hospitals that train one generator together, in one run directory, and what came of it."""

from pathlib import Path

import typer

from fedsynth.cli.options import PUBLIC, Given, takes_settings
from fedsynth.cli.screen import ScreenProgress, print_json
from fedsynth.federation.settings import ENGINE, FederationSettings


@takes_settings(FederationSettings, leave_out=("sites",))
def simulate(
    given: Given,
    sites: str | None = typer.Option(None, help="How many hospitals, or a sites file; 4 if not given."),
    data: Path | None = typer.Option(None, metavar="SET", help="Share out this image set instead of phantoms."),
    partition: str | None = typer.Option(
        None, help="How SET is shared out: natural (if not given), iid, dirichlet:A or quantity:A."
    ),
    maps: str | None = typer.Option(
        None, metavar="NAME", help="Two-stage: what draws label maps; pca-maps if not given."
    ),
    renderer: str | None = typer.Option(
        None, metavar="NAME", help="Two-stage: what makes images of them; render-vae if not given."
    ),
    public: str | None = PUBLIC,
    run: Path | None = typer.Option(None, help="The run directory; a new one under runs/ if not given."),
    resume: bool = typer.Option(False, "--resume", help="Go on with the run in --run, with its own settings."),
    engine: str = typer.Option("local", help="local, in this process, or ray.", rich_help_panel=ENGINE),
    workers: int | None = typer.Option(
        None, help="Hospitals at work at a time; one per core if not given.", rich_help_panel=ENGINE
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Train one generator over several hospitals that never exchange an image; phantoms if no data is given."""
    from fedsynth.api.public_images import with_public
    from fedsynth.api.signature import as_given
    from fedsynth.api.simulation import check_engine, open_simulation, read_sites, run_simulation
    from fedsynth.api.stages import with_stages
    from fedsynth.cli.simulate_summary import result_of, say_what_happened

    progress = ScreenProgress()
    check_engine(engine, workers)
    given = with_public(with_stages(as_given(given), maps, renderer), public)
    asked = read_sites(sites, data, partition, given)
    settings, place = open_simulation(given, asked, run, resume=resume, progress=progress)
    outputs = run_simulation(settings, place, engine=engine, workers=workers, progress=progress)  # type: ignore[arg-type]
    if as_json:
        print_json(result_of(settings, place, outputs))
    else:
        say_what_happened(settings, place, outputs, progress.seconds)
