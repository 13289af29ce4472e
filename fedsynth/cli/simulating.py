"""`fedsynth simulate`: hospitals that train one generator together, in one run directory, and what came of it."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fedsynth.cli.screen import print_json, progress_bar
from fedsynth.cli.simulated import result_of, say_what_happened
from fedsynth.cli.training import PRIVATE, parse_option, read_stages
from fedsynth.errors import ConfigError, nearest

if TYPE_CHECKING:
    from fedsynth.federation.settings import FederationSettings
    from fedsynth.images.sites_file import SitesFile
    from fedsynth.run import Run

FAILURES, ENGINE = "Failures", "Engine"
ENGINES = ("local", "ray")
PRIVATE_STEPS = 10  # fewer and larger steps: every one of them is paid for
CODED = "render-vae"
SIZE = 32  # of the phantoms: two cores learn them in minutes; a sites file may ask for larger ones
NO_SECURE_AGGREGATION = (
    "secure aggregation is not available: Flower has it only for its legacy interface, and rounds weights to steps of "
    "about 1e-4, near one step of the optimiser"
)


def simulate(
    sites: str | None = typer.Option(None, help="How many hospitals, or a sites file. [default: 4]"),
    data: Path | None = typer.Option(None, metavar="SET", help="Share out this image set instead of phantoms."),
    partition: str | None = typer.Option(
        None, help="How SET is shared out: natural, iid, dirichlet:A or quantity:A. [default: natural]"
    ),
    generator: str | None = typer.Option(
        None, "--generator", "-g", help="Family. [default: two-stage where there are masks, else dcgan]"
    ),
    maps: str | None = typer.Option(None, metavar="NAME", help="Two-stage: what draws label maps. [default: pca-maps]"),
    renderer: str | None = typer.Option(
        None, metavar="NAME", help="Two-stage: what makes images of them. [default: render-vae]"
    ),
    rounds: int | None = typer.Option(None, help="How often the hospitals meet. [default: 40; two-stage: 20]"),
    local_steps: int | None = typer.Option(
        None, help="Steps of each hospital between two meetings. [default: 50; two-stage: 25; private: 10]"
    ),
    strategy: str | None = typer.Option(
        None,
        metavar="NAME[:OPTION=VALUE,...]",
        help="fedavg, fedprox, fedavgm, fedadam, fedmedian or trimmed-mean, as in fedprox:strength=0.1.",
    ),
    share: str | None = typer.Option(None, help="all networks, or generator: critics stay at home. [default: all]"),
    federation: str | None = typer.Option(
        None, help="average, one-shot, none or central-generator. [default: average]"
    ),
    weighting: str | None = typer.Option(
        None, help="auto, uniform, patients or declared:NAME=N,...: public sizes. [default: auto]"
    ),
    batch: int | None = typer.Option(None, help="Images per step (plain runs)."),
    rate: float | None = typer.Option(None, help="Learning rate of every network."),
    pairing: str | None = typer.Option(None, help="What a paired family turns into what: label-to-image, ..."),
    option: list[str] = typer.Option([], metavar="NAME=VALUE", help="A setting of the family itself."),
    count: int | None = typer.Option(None, help="How many synthetic images; a declared number. [default: 400]"),
    seed: int | None = typer.Option(None, help="One seed gives one plain result, to the bit. [default: 0]"),
    run: Path | None = typer.Option(None, help="The run directory; a new one under runs/ if not given."),
    resume: bool = typer.Option(False, "--resume", help="Go on with the run in --run, with its own settings."),
    epsilon: float | None = typer.Option(
        None, help="Train privately, with this budget per patient.", rich_help_panel=PRIVATE
    ),
    delta: float | None = typer.Option(
        None, help="Public, and far below 1 / patients. [default: 1e-5]", rich_help_panel=PRIVATE
    ),
    patients: int | None = typer.Option(
        None, help="The declared public number of patients of each hospital.", rich_help_panel=PRIVATE
    ),
    draw: int | None = typer.Option(None, help="Expected patients per step.", rich_help_panel=PRIVATE),
    views: int | None = typer.Option(None, help="Slices of each drawn patient. [default: 1]", rich_help_panel=PRIVATE),
    clip: float | None = typer.Option(
        None, help="Clip norm of a patient's gradient. [default: 1]", rich_help_panel=PRIVATE
    ),
    store: Path | None = typer.Option(
        None, help="Where the ledgers live; else $FEDSYNTH_STORE.", rich_help_panel=PRIVATE
    ),
    insecure_seed: int | None = typer.Option(
        None, help="Tests only: repeatable randomness. The result is NOT PRIVATE.", rich_help_panel=PRIVATE
    ),
    min_sites: int | None = typer.Option(
        None, help="How many must answer in a round; more than half if not given.", rich_help_panel=FAILURES
    ),
    deadline: float | None = typer.Option(
        None, metavar="SECONDS", help="Who takes longer for a round is left out.", rich_help_panel=FAILURES
    ),
    inject: str | None = typer.Option(
        None, help="Failures on purpose: dropout=0.2,straggler=0.1,nan=0.05.", rich_help_panel=FAILURES
    ),
    engine: str = typer.Option("local", help="local, in this process, or ray.", rich_help_panel=ENGINE),
    workers: int | None = typer.Option(
        None, help="Hospitals at work at a time; one per core if not given.", rich_help_panel=ENGINE
    ),
    device: str | None = typer.Option(None, help="cpu, cuda or auto. [default: cpu]", rich_help_panel=ENGINE),
    secure_aggregation: bool = typer.Option(
        False, "--secure-aggregation", help="Not available, and why.", rich_help_panel=ENGINE
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Train one generator over several hospitals that never exchange an image; phantoms if no data is given."""
    if secure_aggregation:
        raise ConfigError(NO_SECURE_AGGREGATION, remedy="leave --secure-aggregation away")
    given = _given(
        rounds=rounds, local_steps=local_steps, share=share, federation=federation,
        weighting=weighting, batch=batch, rate=rate, count=count, seed=seed, min_sites=min_sites,
        deadline=deadline, inject=inject, device=device,
    )  # fmt: skip
    generator, pairing, options = read_stages(generator, maps, renderer, pairing, option)
    given |= (
        _given(generator=generator, pairing=pairing)
        | _read_strategy(strategy)
        | ({"options": options} if options else {})
    )
    private = _given(epsilon=epsilon, delta=delta, patients=patients, draw=draw, views=views, clip=clip)
    private |= _given(insecure_seed=insecure_seed, store=store and str(store.resolve()))
    given |= _read_privacy(private)
    _check_engine(engine, workers)
    asked = _read_sites(sites, data, partition, given)
    settings, place = _open(given, asked, run, resume=resume)
    from fedsynth.cli.rounds_screen import watch_rounds
    from fedsynth.federation.products import finish
    from fedsynth.federation.simulate import run_rounds

    with watch_rounds(settings, place) as screen:
        run_rounds(
            settings, place, engine=engine, workers=workers or _cores(settings.sites), watch=screen.watch,  # type: ignore[arg-type]
            on_step=screen.on_step, beat=screen.beat,
        )  # fmt: skip
    with progress_bar("drawing images") if settings.count > 50 else nullcontext(lambda done, total: None) as advance:
        products = finish(settings, place, advance)
    if as_json:
        print_json(result_of(settings, place, products))
    else:
        say_what_happened(settings, place, products, screen.seconds)


def _given(**values: Any) -> dict[str, Any]:
    return {name.replace("_", "-"): value for name, value in values.items() if value is not None}


def _read_strategy(text: str | None) -> dict[str, Any]:
    """`fedavg` or `fedprox:strength=0.1`."""
    if text is None:
        return {}
    name, _, options = text.partition(":")
    parsed = dict(map(parse_option, options.split(","))) if options else {}
    return {"strategy": name} | ({"strategy-options": parsed} if parsed else {})


def _read_privacy(given: dict[str, Any]) -> dict[str, Any]:
    if not given:
        return {}
    if "epsilon" not in given:
        raise ConfigError("a setting of private training was given without --epsilon", remedy="give --epsilon")
    if "patients" not in given:
        remedy = "give --patients N, a round public number near the truth at each hospital"
        raise ConfigError("--epsilon needs the declared number of patients of each hospital", remedy=remedy)
    return {"privacy": given}


def _check_engine(engine: str, workers: int | None) -> None:
    if engine not in ENGINES:
        raise ConfigError("unknown --engine", value=engine, remedy=nearest(engine, ENGINES))
    if workers is not None and workers < 1:
        raise ConfigError("--workers must be at least 1", value=workers)
    if engine == "ray":
        from fedsynth.federation.engines.ray import require_ray

        require_ray()


def _read_sites(
    sites: str | None, data: Path | None, partition: str | None, given: dict[str, Any]
) -> "SitesFile | None":
    """The federation as the options describe it; None where none of them was given."""
    from fedsynth.images.sites_file import SitesFile, load_sites

    if sites is None and data is None and partition is None:
        return None
    number = None if sites is None or not sites.lstrip("-").isdecimal() else int(sites)
    if number is not None and number < 1:
        raise ConfigError("--sites must be at least 1", value=number)
    if sites is not None and number is None:
        if data is not None or partition is not None:
            raise ConfigError("a sites file says itself where its images come from", remedy="leave --data away")
        return load_sites(Path(sites))
    if data is None:
        if partition is not None:
            raise ConfigError("--partition shares out an image set", remedy="give --data SET")
        return _phantoms(number or 4, given)
    seed = given.get("seed", 0)
    return SitesFile(name=data.name, images=data.resolve(), partition=partition or "natural", sites=number, seed=seed)


def _phantoms(sites: int, given: dict[str, Any]) -> "SitesFile":
    """A renderer without a code of its own gets the tissues too: from a tumour alone no brain follows."""
    from fedsynth.images.sites_file import default_sites

    file = default_sites(sites)
    assert file.phantom is not None
    phantom = replace(file.phantom, size=SIZE)
    if given.get("options", {}).get("renderer", CODED) != CODED:
        phantom = replace(phantom, labels="tissue+tumour")
    return replace(file, phantom=phantom)


def _open(
    given: dict[str, Any], asked: "SitesFile | None", folder: Path | None, *, resume: bool
) -> "tuple[FederationSettings, Run]":
    """A new run with its hospitals, or the one to go on with."""
    from fedsynth import config
    from fedsynth.federation.settings import FederationSettings, check_family
    from fedsynth.federation.simulate import begin, open_hospitals, rehearse, sites_asked, with_generator
    from fedsynth.run import RUNS, open_run

    if resume:
        if folder is None:
            raise ConfigError("--resume needs the run", remedy="give --run DIR")
        place = open_run(folder)
        settings = config.load_toml(FederationSettings, place.config)
        _refuse_other(config.as_table(settings), given, place)
        if asked is not None:
            _refuse_other(config.as_table(sites_asked(place)), config.as_table(asked), place)
        return settings, place
    if "privacy" in given:
        given = {"local-steps": PRIVATE_STEPS, **given}
    file = asked or _phantoms(4, given)
    known = len(file.hospitals) if file.phantom else file.sites or len(file.site) or given.get("min-sites", 1)
    check_family(config.read_table(FederationSettings, {"sites": known, **given}))  # before phantoms are made
    base = RUNS if folder is None else folder.resolve().parent
    with progress_bar("making phantoms") as advance, open_hospitals(file, base, progress=advance) as hospitals:
        settings = config.read_table(FederationSettings, with_generator(given, hospitals))
        _say_what_privacy_can_do(settings, rehearse(settings, hospitals))
        return settings, begin(settings, hospitals, folder)


def _refuse_other(was: dict[str, Any], now: dict[str, Any], place: "Run", prefix: str = "") -> None:
    for key, value in now.items():
        if isinstance(value, dict) and isinstance(was.get(key), dict):
            _refuse_other(was[key], value, place, f"{prefix}{key}.")
        elif was.get(key) != value:
            problem = f"the run was started with {prefix}{key} = {was.get(key)!r}, not {value!r}"
            raise ConfigError(problem, file=place.folder, remedy="resume with the same settings, or leave them out")


def _cores(sites: int) -> int:
    import os

    return min(sites, os.cpu_count() or 1)


def _say_what_privacy_can_do(settings: "FederationSettings", prepared: Any) -> None:
    from fedsynth.privacy.feasibility import gauge
    from fedsynth.training.private import parameters_behind_the_door

    if prepared.plan is not None:
        typer.echo(str(gauge(prepared.plan, parameters_behind_the_door(prepared.trainer.family))), err=True)
