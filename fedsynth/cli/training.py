"""`fedsynth train`: a generator from the images of one holder."""

from pathlib import Path

import typer

from fedsynth.cli.screen import print_json, progress_bar
from fedsynth.errors import ConfigError


def train(
    images: Path = typer.Argument(
        ..., metavar="SET", help="The image set to train on; its members, if roles were drawn."
    ),
    generator: str = typer.Option(..., "--generator", "-g", help="Family; `fedsynth list generators` shows them."),
    steps: int | None = typer.Option(None, help="How many steps; the family's own number if not given."),
    batch: int | None = typer.Option(None, help="Images per step."),
    rate: float | None = typer.Option(None, help="Learning rate of every network."),
    pairing: str = typer.Option("", help="What a paired family turns into what, as in label-to-image or t1-to-flair."),
    seed: int = typer.Option(0, help="One seed gives one result, to the bit, on one CPU thread."),
    device: str = typer.Option("auto", help="auto, cpu or cuda."),
    precision: str = typer.Option("float32", help="float32 or bfloat16."),
    option: list[str] = typer.Option(
        [], metavar="NAME=VALUE", help="A setting of the family itself, such as width=32."
    ),
    sheets: int = typer.Option(5, help="How many sample sheets to write on the way."),
    run: Path | None = typer.Option(None, help="The run directory; a new one under runs/ if not given."),
    resume: bool = typer.Option(False, help="Go on with the run in --run."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Train one generator on one image set: the pooled baseline that a federation is compared with."""
    from fedsynth import config
    from fedsynth.images import ImageSet
    from fedsynth.run import create_run, open_run
    from fedsynth.training.pooled import make_trainer, run_training
    from fedsynth.training.settings import TrainSettings, open_device

    table = {"generator": generator, "images": str(images.resolve()), "pairing": pairing, "seed": seed}
    table |= {"device": device}
    table |= {"precision": precision, "sheets": sheets, "options": dict(_parse_option(text) for text in option)}
    table |= {name: value for name, value in (("steps", steps), ("batch", batch), ("rate", rate)) if value is not None}
    settings = config.read_table(TrainSettings, table)
    opened = ImageSet.load(images)
    if resume:
        if run is None:
            raise ConfigError("--resume needs the run", remedy="give --run DIR")
        place = open_run(run)
        _refuse_other_settings(config.load_toml(TrainSettings, place.config), settings)
    else:
        make_trainer(opened, settings)  # bad input shows here, before a run directory exists
        name = open_device(settings.device).type
        place = create_run(settings, generator=generator, seed=seed, device=name, folder=run)
    with progress_bar(f"training {generator}") as advance:
        card = run_training(
            opened, settings, place, resume=resume, on_step=lambda report, total: advance(report.step + 1, total)
        )
    if as_json:
        print_json({"run": str(place.folder), "steps": card.steps, "generator": generator})
        return
    typer.echo(f"trained {generator} for {card.steps} steps on {len(opened)} images of {card.trained_on}")
    typer.echo(f"privacy  {card.privacy}")
    typer.echo(f"run      {place.folder}")
    typer.echo(f"look at  {place.samples}")
    typer.echo(f"next     fedsynth synthesize {place.folder} --count 100 --out SET")


def _parse_option(text: str) -> tuple[str, object]:
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


def _refuse_other_settings(kept: object, given: object) -> None:
    from fedsynth.config import as_table

    was, now = as_table(kept), as_table(given)
    for key in sorted(was.keys() | now.keys()):
        if was.get(key) != now.get(key):
            problem = f"the run was started with {key} = {was.get(key)!r}, not {now.get(key)!r}"
            raise ConfigError(problem, remedy="resume with the same settings")
