"""`fedsynth train`: a generator from the images of one holder."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fedsynth.cli.screen import print_json, progress_bar
from fedsynth.errors import ConfigError

if TYPE_CHECKING:
    from fedsynth.run import Run
    from fedsynth.training.checkpoint import Card
    from fedsynth.training.preparing import Prepared
    from fedsynth.training.settings import TrainSettings

PRIVATE = "Privacy"


def train(
    images: Path = typer.Argument(..., metavar="SET", help="The image set; its members, if roles were drawn."),
    generator: str | None = typer.Option(
        None, "--generator", "-g", help="Family, as in `list generators`. [default: two-stage with masks, else dcgan]"
    ),
    maps: str | None = typer.Option(None, metavar="NAME", help="Two-stage: what draws label maps. [default: pca-maps]"),
    renderer: str | None = typer.Option(
        None, metavar="NAME", help="Two-stage: what makes images of them. [default: render-vae]"
    ),
    steps: int | None = typer.Option(None, help="How many steps; the family's own number if not given."),
    batch: int | None = typer.Option(None, help="Images per step (plain runs)."),
    rate: float | None = typer.Option(None, help="Learning rate of every network."),
    pairing: str = typer.Option("", help="What a paired family turns into what: label-to-image, t1-to-flair, ..."),
    start: Path | None = typer.Option(
        None, "--from", metavar="RUN", help="Go on from another run's networks: with public images, at no privacy cost."
    ),
    public_start: bool = typer.Option(
        False, "--public-start", help="Declare that the images behind --from are public."
    ),
    private_networks: bool = typer.Option(
        False,
        "--private-networks",
        help="Build a plain run's networks as a private run's are, for one that goes on --from it.",
    ),
    seed: int = typer.Option(0, help="One seed gives one plain result, to the bit, on one CPU thread."),
    device: str = typer.Option("auto", help="auto, cpu or cuda."),
    threads: int = typer.Option(1, help="CPU threads; one repeats to the bit and is as fast for small networks."),
    precision: str | None = typer.Option(None, help="float32 or bfloat16 (plain runs); the family's own if not given."),
    option: list[str] = typer.Option([], metavar="NAME=VALUE", help="A setting of the family itself, as in latent=32."),
    sheets: int = typer.Option(5, help="How many sample sheets to write on the way."),
    run: Path | None = typer.Option(None, help="The run directory; a new one under runs/ if not given."),
    resume: bool = typer.Option(False, "--resume", help="Go on with the run in --run."),
    epsilon: float | None = typer.Option(
        None, help="Train privately, with this budget per patient.", rich_help_panel=PRIVATE
    ),
    delta: float = typer.Option(1e-5, help="Public, and far below 1 / patients.", rich_help_panel=PRIVATE),
    patients: int | None = typer.Option(
        None, help="The declared public number of patients, never counted from the data.", rich_help_panel=PRIVATE
    ),
    draw: int | None = typer.Option(
        None, help="Expected patients per step; a quarter of the declared if not given.", rich_help_panel=PRIVATE
    ),
    views: int = typer.Option(
        1, help="Slices of each drawn patient, averaged before the clip.", rich_help_panel=PRIVATE
    ),
    clip: float = typer.Option(1.0, help="Clip norm of a patient's gradient.", rich_help_panel=PRIVATE),
    store: Path | None = typer.Option(
        None, help="Where the ledger lives; else $FEDSYNTH_STORE.", rich_help_panel=PRIVATE
    ),
    insecure_seed: int | None = typer.Option(
        None, help="Tests only: repeatable randomness. The result is NOT PRIVATE.", rich_help_panel=PRIVATE
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Train one generator on one image set: the pooled baseline that a federation is compared with."""
    from fedsynth import config
    from fedsynth.images import ImageSet
    from fedsynth.training.pooled import run_training
    from fedsynth.training.preparing import default_generator, prepare
    from fedsynth.training.settings import TrainSettings, cpu_threads

    generator, paired, options = read_stages(generator, maps, renderer, pairing or None, option)
    opened = ImageSet.load(images)
    generator = generator or default_generator(opened, private=epsilon is not None, paired=bool(paired))
    table: dict[str, Any] = {
        "generator": generator,
        "images": str(images.resolve()),
        "pairing": paired or "",
        "seed": seed,
    }
    table |= {"public-start": public_start, "private-networks": private_networks}
    table |= {
        "device": device,
        "threads": threads,
        "sheets": sheets,
        "options": options,
    }
    table |= _given(precision=precision, steps=steps, batch=batch, rate=rate, start=start and str(start.resolve()))
    privacy = _given(epsilon=epsilon, patients=patients, draw=draw, insecure_seed=insecure_seed)
    if privacy:
        table["privacy"] = (
            privacy | {"delta": delta, "views": views, "clip": clip} | _given(store=store and str(store.resolve()))
        )
        _refuse_half_private(epsilon, patients)
    settings = config.read_table(TrainSettings, table)
    with cpu_threads(threads):
        rehearsed = prepare(opened, settings)  # bad input shows here, before a run directory exists
    _say_what_privacy_can_do(rehearsed)
    place = _open_run(run, settings, resume=resume)
    with progress_bar(f"training {generator}") as advance:
        card = run_training(
            opened, settings, place, resume=resume, on_step=lambda report, total: advance(report.step + 1, total)
        )
    if as_json:
        print_json({"run": str(place.folder), "generator": generator, "steps": card.steps, "privacy": card.privacy})
    else:
        _say_what_happened(card, place)


def read_stages(
    generator: str | None, maps: str | None, renderer: str | None, pairing: str | None, option: list[str]
) -> tuple[str | None, str | None, dict[str, Any]]:
    """Family, pairing and options; --maps and --renderer are options of two stages.

    A renderer that is named as the generator of label-to-image is the second of two: maps are drawn in the same run.
    """
    from fedsynth.generators.catalog import find
    from fedsynth.generators.pairing import LABEL_TO_IMAGE

    if pairing == LABEL_TO_IMAGE and generator is not None and find(generator).kind != "training-free":
        generator, renderer, pairing = None, generator, None
    stages = {name: value for name, value in (("maps", maps), ("renderer", renderer)) if value is not None}
    if stages and generator not in (None, "two-stage"):
        problem = "--maps and --renderer are the stages of two-stage, and another family was named"
        raise ConfigError(problem, value=generator, remedy="leave --generator away")
    return "two-stage" if stages else generator, pairing, dict(map(parse_option, option)) | stages


def _given(**values: Any) -> dict[str, Any]:
    return {name.replace("_", "-"): value for name, value in values.items() if value is not None}


def _refuse_half_private(epsilon: float | None, patients: int | None) -> None:
    if epsilon is None:
        raise ConfigError("a setting of private training was given without --epsilon", remedy="give --epsilon")
    if patients is None:
        remedy = "give --patients N, a round public number near the truth"
        raise ConfigError("--epsilon needs the declared number of patients", remedy=remedy)


def _open_run(folder: Path | None, settings: "TrainSettings", *, resume: bool) -> "Run":
    from fedsynth import config
    from fedsynth.run import create_run, open_run
    from fedsynth.training.settings import TrainSettings, open_device

    if not resume:
        name = open_device(settings.device).type
        return create_run(settings, generator=settings.generator, seed=settings.seed, device=name, folder=folder)
    if folder is None:
        raise ConfigError("--resume needs the run", remedy="give --run DIR")
    place = open_run(folder)
    was = config.as_table(config.load_toml(TrainSettings, place.config))
    now = config.as_table(settings)
    for key in sorted(was.keys() | now.keys()):
        if was.get(key) != now.get(key):
            problem = f"the run was started with {key} = {was.get(key)!r}, not {now.get(key)!r}"
            raise ConfigError(problem, remedy="resume with the same settings")
    return place


def _say_what_privacy_can_do(prepared: "Prepared") -> None:
    from fedsynth.privacy.feasibility import gauge
    from fedsynth.training.private import parameters_behind_the_door

    if prepared.plan is None:
        return
    judged = gauge(prepared.plan, parameters_behind_the_door(prepared.trainer.family))
    typer.echo(str(judged), err=True)


def _say_what_happened(card: "Card", place: "Run") -> None:
    typer.echo(f"trained {card.generator} for {card.steps} steps on {card.trained_on}")
    typer.echo(f"privacy  {card.privacy}")
    if card.started_from:
        typer.echo(f"from     {card.started_from}")
    typer.echo(f"run      {place.folder}")
    typer.echo(f"look at  {place.samples}")
    more = " --source SET" if card.pairing else ""
    typer.echo(f"next     fedsynth synthesize {place.folder} --count 100{more} --out OUT")


def parse_option(text: str) -> tuple[str, object]:
    """`width=32`, `wide=true` or `hidden=64,64`."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigError("--option needs NAME=VALUE", value=text)
    parts = [_parse_value(part) for part in value.split(",")]
    return name, parts if len(parts) > 1 else parts[0]


def _parse_value(text: str) -> int | float | bool | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text, text)
