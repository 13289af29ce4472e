"""What a simulated federation came to, and what to run next: in one screen, or as JSON."""

from typing import TYPE_CHECKING, Any

import typer

from fedsynth.cli.privacy import say_spent_over_all, spent_over_all

if TYPE_CHECKING:
    from fedsynth.federation.products import Products
    from fedsynth.federation.settings import FederationSettings
    from fedsynth.run import Run


def result_of(settings: "FederationSettings", place: "Run", products: "Products") -> dict[str, Any]:
    """For programs."""
    from fedsynth.federation.record import summary

    return {
        "schema": "fedsynth/simulation/1",
        "run": str(place.folder),
        "generator": settings.generator,
        "sites": settings.sites,
        "rounds": settings.rounds,
        "steps": settings.total_steps,
        "privacy": products.card.privacy,
        "lineage": products.card.lineage.history(),
        "epsilon_over_all_runs": spent_over_all(place, products.card),
        "synthetic": None if products.images is None else str(place.synthetic),
        "images": 0 if products.images is None else len(products.images),
        "sheets": [str(sheet) for sheet in products.sheets],
        **summary([place.rounds]),
    }


def say_what_happened(settings: "FederationSettings", place: "Run", products: "Products", seconds: float) -> None:
    """For people, in one screen."""
    from fedsynth.federation.record import summary
    from fedsynth.privacy.accounting import rounded_up

    told = summary([place.rounds])
    how = {"none": "each on its own", "central-generator": "one generator at the server"}
    typer.echo(
        f"trained    {settings.generator} for {settings.rounds} rounds of {settings.local_steps} steps at "
        f"{_sites(len(told['trained']), settings.sites)}, {how.get(settings.federation, settings.strategy)}, "
        f"in {_minutes(seconds)}"
    )
    left_out = ", ".join(f"{one['site']} {one['rounds']}x ({one['reason']})" for one in told["left_out"])
    typer.echo(
        f"answered   {told['answered']} of {told['asked']} times" + (f"; left out: {left_out}" if left_out else "")
    )
    typer.echo(f"traffic    {_size(told['bytes'])} in all, {_size(told['bytes_per_site_round'])} per site and round")
    typer.echo(f"privacy    {products.card.privacy}")
    for line in products.card.lineage.history()[:-1]:
        typer.echo(f"from       {line}")
    say_spent_over_all(place, products.card, column=11)
    if told["epsilon"]:
        spent = ", ".join(f"{site} {rounded_up(value, 3):g}" for site, value in told["epsilon"].items())
        typer.echo(f"spent      epsilon by site: {spent}")
    typer.echo(f"run        {place.folder}")
    for sheet in products.sheets:
        typer.echo(f"look at    {sheet}")
    if products.images is None:
        typer.echo(f"next       fedsynth synthesize {place.folder} --source SET --count {settings.count} --out OUT")
        return
    masks = " with masks" if products.images.masks is not None else ""
    typer.echo(f"synthetic  {place.synthetic}: {len(products.images)} images{masks}")
    typer.echo(f"next       fedsynth inspect {place.synthetic}")
    typer.echo(f"           fedsynth benchmark memorization {place.folder}")


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
