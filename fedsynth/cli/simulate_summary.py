"""What a simulated federation came to, and what to run next: in one screen, or as JSON."""

from typing import TYPE_CHECKING, Any

import typer

from fedsynth.cli.privacy import say_spent_over_all, spent_over_all

if TYPE_CHECKING:
    from fedsynth.federation.outputs import Outputs
    from fedsynth.federation.settings import FederationSettings
    from fedsynth.runs import Run


def result_of(settings: "FederationSettings", place: "Run", outputs: "Outputs") -> dict[str, Any]:
    """For programs."""
    from fedsynth.federation.round_log import summary

    return {
        "schema": "fedsynth/simulation/1",
        "run": str(place.folder),
        "generator": settings.generator,
        "sites": settings.sites,
        "rounds": settings.rounds,
        "steps": settings.total_steps,
        "privacy": outputs.card.privacy,
        "lineage": outputs.card.lineage.history(),
        "epsilon_over_all_runs": spent_over_all(place, outputs.card),
        "synthetic": None if outputs.images is None else str(place.synthetic),
        "images": 0 if outputs.images is None else len(outputs.images),
        "sheets": [str(sheet) for sheet in outputs.sheets],
        **summary([place.rounds]),
    }


def say_what_happened(settings: "FederationSettings", place: "Run", outputs: "Outputs", seconds: float) -> None:
    """For people, in one screen."""
    from fedsynth.federation.round_log import summary
    from fedsynth.privacy.accounting import rounded_up

    told = summary([place.rounds])
    how = {"none": "each on its own", "central-generator": "one generator at the server"}
    sites = _sites(len(told["trained"]), settings.sites)
    if settings.rounds_of_training:
        typer.echo(
            f"trained    {settings.generator} for {settings.rounds} rounds of {settings.local_steps} steps at {sites}, "
            f"{how.get(settings.federation, settings.strategy)}, in {_minutes(seconds)}"
        )
    else:
        alone = ", each its own" if settings.federation == "one-shot" else ""
        typer.echo(
            f"fitted     {settings.generator} to one sum over patients of {sites}{alone}, in {_minutes(seconds)}"
        )
    left_out = ", ".join(f"{one['site']} {one['rounds']}x ({one['reason']})" for one in told["left_out"])
    typer.echo(
        f"answered   {told['answered']} of {told['asked']} times" + (f"; left out: {left_out}" if left_out else "")
    )
    typer.echo(f"traffic    {_size(told['bytes'])} in all, {_size(told['bytes_per_site_round'])} per site and round")
    typer.echo(f"privacy    {outputs.card.privacy}")
    for line in outputs.card.lineage.history()[:-1]:
        typer.echo(f"from       {line}")
    say_spent_over_all(place, outputs.card, column=11)
    if told["epsilon"]:
        spent = ", ".join(f"{site} {rounded_up(value, 3):g}" for site, value in told["epsilon"].items())
        typer.echo(f"spent      epsilon by site: {spent}")
    typer.echo(f"run        {place.folder}")
    for sheet in outputs.sheets:
        typer.echo(f"look at    {sheet}")
    if outputs.images is None:
        typer.echo(f"next       fedsynth synthesize {place.folder} --source SET")
        return
    masks = " with masks" if outputs.images.masks is not None else ""
    typer.echo(f"synthetic  {place.synthetic}: {len(outputs.images)} images{masks}")
    if not settings.rounds_of_training:
        typer.echo(f"beside it  {place.folder / 'public'} and {place.folder / 'placebo'}: to compare with")
        typer.echo(f"decides    fedsynth benchmark segmentation {place.folder}   # did patients add anything?")
    typer.echo(f"look at    fedsynth inspect {place.synthetic} --sheet {place.folder.name}.png")
    typer.echo(f"next       fedsynth benchmark memorization {place.folder}")


def _sites(trained: int, expected: int) -> str:
    return f"{expected} sites" if trained == expected else f"{trained} of {expected} sites"


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def _size(n: float) -> str:
    for unit in ("B", "kB", "MB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} GB"
