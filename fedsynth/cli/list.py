"""`fedsynth list ...`: what there is to choose from."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsynth.cli.screen import print_json, print_table

if TYPE_CHECKING:
    import pandas as pd

    from fedsynth.data.site_config import SitesFile

SITES = Path("sites")

listing = typer.Typer(no_args_is_help=True, help="List what there is to choose from.")


@listing.command("sites")
def list_sites(
    file: Annotated[
        str | None, typer.Argument(help="A sites file, or a number of phantom hospitals.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show the hospitals that FILE gives: patients, images, roles and classes of each. Nothing is made or changed.

    Without FILE, the files in the folder `sites` are listed.
    """
    if file is None:
        _list_files(as_json)
        return
    from fedsynth.data.sites import federation_cases

    described = _sites_file(file)
    cases = federation_cases(described)
    sites = [_counts(name, cases[cases["site"] == name]) for name in cases["site"].unique()]
    total = _counts("all", cases)
    if as_json:
        print_json({"schema": "fedsynth.sites/1", "name": described.name, "sites": sites, "all": total})
        return
    typer.echo(f"{described.name}: {len(sites)} hospitals")
    roles, classes = list(total["roles"]), list(total["classes"])
    print_table(
        [
            "site",
            "patients",
            "images",
            *(name or "no role" for name in roles),
            *(name or "no class" for name in classes),
        ],
        [
            [one["name"], one["patients"], one["images"], *_row(one["roles"], roles), *_row(one["classes"], classes)]
            for one in [*sites, total]
        ],
    )
    typer.echo("Roles and classes count patients.")


def _sites_file(text: str) -> "SitesFile":
    from fedsynth.data.site_config import default_sites, load_sites

    if text.isdecimal() and not Path(text).exists():
        return default_sites(int(text))
    return load_sites(Path(text))


def _counts(name: str, cases: "pd.DataFrame") -> dict[str, Any]:
    from fedsynth.data.roles import ROLES
    from fedsynth.data.split import strata

    role_of = [role for (role,) in strata(cases, ["role"]).values()]
    class_of = [label for (label,) in strata(cases, ["class"]).values()]
    return {
        "name": name,
        "patients": len(role_of),
        "images": len(cases),
        "roles": _tally(role_of, ROLES),
        "classes": _tally(class_of, sorted(set(class_of))),
    }


def _tally(values: list[str], names: Iterable[str]) -> dict[str, int]:
    """Counts in the order of `names`; what has no name stands last, and only if there is any."""
    counted = {name: values.count(name) for name in names if name}
    return counted | ({"": values.count("")} if "" in values else {})


def _row(counts: dict[str, int], names: list[str]) -> list[int]:
    return [counts.get(name, 0) for name in names]


def _list_files(as_json: bool) -> None:
    """A damaged file is listed with what is wrong with it: it must not hide the others."""
    from fedsynth.data.site_config import load_sites
    from fedsynth.errors import ConfigError, FedSynthError

    paths = sorted(SITES.glob("*.toml"))
    if not paths:
        raise ConfigError("there are no sites files here", file=SITES, remedy="give a file, or a number of hospitals")
    found = []
    for path in paths:
        try:
            described = load_sites(path)
            found.append({"file": str(path), "name": described.name, "images": described.source, "error": None})
        except FedSynthError as error:
            found.append({"file": str(path), "name": path.stem, "images": None, "error": str(error)})
    if as_json:
        print_json({"schema": "fedsynth.sites-files/1", "files": found})
        return
    print_table(["file", "images"], [[one["file"], one["images"] or one["error"]] for one in found])
    typer.echo("See the hospitals of one with: fedsynth list sites FILE")


@listing.command("generators")
def list_generators(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Show every generator family: what it makes, from what, in how many dimensions, and whether privately."""
    from fedsynth.models.facts import stated_facts

    rows = [one.row() for one in stated_facts().values()]
    if as_json:
        print_json({"generators": rows})
        return
    heads = ["name", "conditioning", "dimensions", "private", "how", "summary"]
    print_table(heads, [[_plain(row[head]) for head in heads] for row in rows])


def _plain(value: Any) -> str:
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
