"""`fedsynth plan`: what a budget can buy for so many patients."""

import typer

from fedsynth.cli.options import Given, takes_settings
from fedsynth.cli.screen import print_json, print_table
from fedsynth.training.settings import PlanSettings


@takes_settings(PlanSettings)
def plan(
    given: Given,
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Compare the private release with DP-SGD for declared numbers, before anything is spent; no patient is read."""
    from fedsynth.api.planning import plan as compare

    found = compare(**given)
    rows = found.reset_index()
    if as_json:
        told = {"ways": rows.to_dict("records"), "recommended": found.attrs["recommended"]}
        print_json({"schema": "fedsynth.plan/1", **told})
        return
    print_table(
        ["way", "generator", "patients read", "noise multiplier", "noise to signal", "can it work"],
        [
            [row["way"], row["generator"], row["reads"], f"{row['noise']:.3g}", f"{row['ratio']:.2g}", row["verdict"]]
            for _, row in rows.iterrows()
        ],
    )
    typer.echo("")
    for _, row in rows.iterrows():
        typer.echo(f"{row['way']}, {row['generator']}: {row['why']}")
    typer.echo(f"\n{found.attrs['recommended']}")
