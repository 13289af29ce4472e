"""`fedsynth deploy`: what real hospitals and their server need, and the commands that their start scripts call."""

from datetime import datetime
from pathlib import Path

import typer

from fedsynth.errors import ConfigError

deploy = typer.Typer(no_args_is_help=True, help="Real hospitals: certificates, folders, server and nodes.")

OUT = typer.Argument(..., help="The folder that `fedsynth deploy init` wrote.")
FOLDER = typer.Argument(..., help="The server's folder.")


TURNED_DOWN = 3


@deploy.command()
def init(
    out: Path = typer.Argument(..., metavar="OUT", help="A new folder for everybody's folders."),
    sites: int | None = typer.Option(None, help="How many hospitals; they are called hospital-1, hospital-2, ..."),
    name: list[str] = typer.Option([], metavar="NAME", help="A hospital by name instead, once for each."),
    server: str = typer.Option(..., metavar="HOST", help="The server as hospitals reach it: a name or an address."),
    port: int = typer.Option(8443, help="The server's port, the only one that is open."),
    days: int = typer.Option(730, help="How long the server's certificates are valid."),
    at: str = typer.Option("/srv/fedsynth", help="Where the folders will lie on each machine: for the service units."),
) -> None:
    """Write what each party needs, offline: one folder per hospital, one for the server, one for the authority."""
    from fedsynth.federation.deploy.folders import Plan
    from fedsynth.federation.deploy.folders import init as write

    if bool(name) == (sites is not None):
        raise ConfigError("give either --sites N or --name NAME for each hospital")
    if sites is not None and sites < 1:
        raise ConfigError("--sites must be at least 1", value=sites)
    names = tuple(name) or tuple(f"hospital-{number}" for number in range(1, (sites or 0) + 1))
    folders = write(out, names, Plan(host=server, port=port, days=days, at=at.rstrip("/") or "/"))
    typer.echo(f"{out}: the server's folder and {len(folders) - 1} hospitals'; each has a README")
    typer.echo(f"Keep {out / 'authority'} offline: its key signs the server's certificates. Give each party its own")
    typer.echo("folder by a way that you trust: the keys in them are all that stands between a stranger and the run.")
    typer.echo(f"Next: sh {folders[0] / 'start.sh'}, and at each hospital: sh {folders[1].name}/start.sh")


@deploy.command()
def add(
    out: Path = OUT,
    name: str = typer.Argument(..., help="The new hospital."),
    at: str = typer.Option("/srv/fedsynth", help="Where its folder will lie."),
) -> None:
    """Write a folder for one more hospital; its public key goes where a running server finds it."""
    from fedsynth.federation.deploy.folders import add_hospital

    folder = add_hospital(out, name, at=at)
    typer.echo(f"{folder} is for {name}; copy {out / 'server/hospitals' / f'{name}.pub'} to the server's hospitals/")
    typer.echo("It takes part from the next run on: set `sites` in the server's federation.toml.")


@deploy.command()
def renew(out: Path = OUT, days: int = typer.Option(730, help="How long they are valid.")) -> None:
    """New certificates for the server from the same authority; hospitals need do nothing."""
    from fedsynth.federation.deploy.folders import renew as write

    folder = write(out, days=days)
    typer.echo(
        f"Copy {folder / 'certificates'} to the server, whose embedded proxy reads it at once; nginx: -s reload."
    )


@deploy.command()
def cost(
    folder: Path = FOLDER,
    like: Path = typer.Option(..., metavar="SET", help="An image set like the hospitals': phantoms of their size do."),
) -> None:
    """Count what each hospital will send and receive, before anyone joins."""
    from fedsynth.config import load_toml
    from fedsynth.data import ImageSet
    from fedsynth.federation.deploy.cost_estimate import POLLING, count_cost
    from fedsynth.federation.deploy.server_files import load_server
    from fedsynth.federation.exchange import Facts
    from fedsynth.federation.settings import FederationSettings

    settings = load_toml(FederationSettings, load_server(folder).settings)
    found = count_cost(settings, Facts.of(ImageSet.load(like, every_voxel=False)))
    typer.echo(f"Each hospital, each round: {_size(found.bytes_down)} down, {_size(found.bytes_up)} up")
    typer.echo(f"  ({' and '.join(found.networks) or 'nothing'}); {found.rounds} rounds")
    if found.exchanges:
        what = "sums and, last, its whole sampler" if settings.federation == "one-shot" else "sums"
        typer.echo(f"After them {what}: {_size(found.after_down)} down, {_size(found.after_up)} up")
    everybody = settings.sites * found.total_bytes
    typer.echo(f"In all {_size(found.total_bytes)} for each hospital, {_size(everybody)} at the server")
    least, most = ((found.rounds + found.exchanges) * seconds / 60 for seconds in POLLING)
    typer.echo(f"Waiting besides training: {least:.1f} to {most:.1f} minutes; fewer and longer rounds wait less.")


@deploy.command()
def serve(
    folder: Path = FOLDER,
    run: bool = typer.Option(False, "--run", help="Train what federation.toml says, or resume it; then end."),
) -> None:
    """Start the server: Flower on loopback, the proxy before it, the hospitals' keys, and with --run the run."""
    from fedsynth.federation.deploy.run_supervisor import TurnedDownError
    from fedsynth.federation.deploy.server_files import load_server
    from fedsynth.federation.deploy.start_server import serve as start

    try:
        trained = start(folder, _say, run=run)
    except TurnedDownError as error:  # an exit code of its own, on which the service unit does not start again
        typer.echo(f"fedsynth: {error}", err=True)
        raise typer.Exit(TURNED_DOWN) from error
    place = load_server(folder)
    typer.echo(f"{'The run is' if trained else 'The run was already'} complete: {place.run}")
    typer.echo(f"Next: fedsynth synthesize {place.run}")


@deploy.command()
def proxy(
    folder: Path = FOLDER,
    inner_port: int = typer.Option(..., help="The port of loopback on which Flower's server listens."),
) -> None:
    """Start the proxy alone: it passes what hospitals' nodes need and answers 403 to everything else."""
    import signal

    from fedsynth.federation.deploy.proxy import running_proxy
    from fedsynth.federation.deploy.server_files import load_server
    from fedsynth.federation.deploy.start_server import check_server, proxy_settings

    place = load_server(folder)
    check_server(place)
    with running_proxy(proxy_settings(place, inner_port), _say):
        _say(f"open at {place.file.host}:{place.file.port}, before port {inner_port}")
        signal.pause()


@deploy.command()
def join(folder: Path = typer.Argument(..., help="The hospital's folder, or its site file.")) -> None:
    """Start a hospital's node, after the checks of `fedsynth site check`."""
    from fedsynth.federation.deploy.start_client import join as start

    start(folder, _say)


def _size(n_bytes: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.1f} {unit}"
    return f"{n_bytes} bytes"


def _say(line: str) -> None:
    """For a person and for a service's journal: at once, with the time."""
    typer.echo(f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S} {line}", err=True)
