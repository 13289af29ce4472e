"""`fedsynth split`: draw the roles of a set that was made elsewhere, or draw them again."""

from pathlib import Path
from typing import Annotated

import typer

from fedsynth.cli.import_files import read_shares
from fedsynth.cli.screen import print_json


def split(
    source: Annotated[Path, typer.Argument(metavar="SET", help="The image set to read.")],
    out: Annotated[Path, typer.Argument(help="The image set to write.")],
    shares: Annotated[
        str, typer.Option("--split", help="Shares of member, holdout and reference patients.")
    ] = "0.5,0.4,0.1",
    seed: Annotated[int, typer.Option(help="The same seed gives the same roles.")] = 0,
    keep_members: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Keep the roles of SET and leave only N of its member patients in."),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Replace the roles that stand in SET.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it is an image set.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Draw member, holdout and reference patients at random within site and class.

    With --keep-members nothing is drawn anew: members are left out, and holdout and reference stay as they are, so that
    what depends on the number of patients trained on can be measured on the same patients.
    """
    from fedsynth.api.data import split as run_split
    from fedsynth.data import ROLES

    wanted = read_shares(shares)
    made = run_split(source, out, shares=wanted, seed=seed, keep_members=keep_members, again=again, overwrite=overwrite)
    counts = {role: int((made.patients["role"] == role).sum()) for role in ROLES}
    if as_json:
        print_json({"schema": "fedsynth.split/1", "out": str(out), "patients": counts, "seed": seed})
        return
    typer.echo(f"{out}: {', '.join(f'{count} {role}' for role, count in counts.items())} patients")
