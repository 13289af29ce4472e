"""`fedsynth phantom`: make a cohort of brain phantoms."""

from pathlib import Path

import typer

from fedsynth.cli.options import Given, takes_settings
from fedsynth.cli.screen import ScreenProgress, print_json
from fedsynth.data.phantoms.settings import PhantomSettings


@takes_settings(PhantomSettings, leave_out=("shares",))
def phantom(
    given: Given,
    out: Path = typer.Argument(..., help="The image set to write."),
    workers: int | None = typer.Option(None, help="Processes; one per core unless given."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace OUT if it is an image set."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Make brain phantoms: real anatomy, grown tumours, four MR sequences, several hospitals.

    Healthy, low-grade and high-grade patients with T1, T2, FLAIR and contrast-enhanced T1, with masks. Spots
    that are no tumour carry no label.
    """
    from fedsynth.api.data import phantoms

    made = phantoms(out, workers=workers, overwrite=overwrite, progress=ScreenProgress(), **given)
    by_site = made.patients.groupby("site")["patient"].size()
    patients, phantom_facts = int(by_site.sum()), made.header.provenance["phantom"]
    if as_json:
        counts = {"images": len(made), "patients": patients, "patients_per_site": by_site.to_dict()}
        facts = {key: phantom_facts[key] for key in ("seed", "labels")}
        print_json({"schema": "fedsynth.phantom/1", "out": str(out), **counts, **facts})
        return
    listed = ", ".join(f"{site} {count}" for site, count in by_site.items())
    typer.echo(f"{out}: {len(made)} images of {patients} patients ({listed})")
    typer.echo(f"next  fedsynth simulate --data {out}")
