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
    from fedsynth.atomic_files import refuse_existing
    from fedsynth.data import ROLES, ImageSet
    from fedsynth.data.format import HEADER
    from fedsynth.data.split import draw_roles, rows_with_fewer_members
    from fedsynth.errors import RefusedError

    wanted = read_shares(shares)
    refuse_existing(out, marker=HEADER, overwrite=overwrite)
    read = ImageSet.load(source)
    if keep_members is not None:
        if again:
            raise RefusedError(
                "--again and --keep-members exclude each other", remedy="draw first, then leave some out"
            )
        made = read.rows(rows_with_fewer_members(read.cases, keep_members, seed)).save(out, overwrite=overwrite)
    else:
        if not again and (read.cases["role"] != "").any():
            raise RefusedError("the patients have roles already", file=source, remedy="give --again to draw new ones")
        cases, drawn = draw_roles(read.cases, wanted, seed, replace=True)
        made = read.with_cases(cases, split=drawn).save(out, overwrite=overwrite)
    counts = {role: int((made.patients["role"] == role).sum()) for role in ROLES}
    if as_json:
        print_json({"schema": "fedsynth.split/1", "out": str(out), "patients": counts, "seed": seed})
        return
    typer.echo(f"{out}: {', '.join(f'{count} {role}' for role, count in counts.items())} patients")
