"""A whole simulated federation in one run directory: hospitals opened or made, rounds, end products; and resuming.

It knows no screen: whoever wants to watch hands in callbacks.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from fedsynth import atomic_files, config
from fedsynth.data.parallel import Progress as Making
from fedsynth.data.parallel import silent
from fedsynth.data.site_config import SiteEntry, SitesFile
from fedsynth.data.sites import Federation, Site, open_federation
from fedsynth.errors import ConfigError
from fedsynth.federation import site_observers
from fedsynth.federation.client import OnStep
from fedsynth.federation.rounds import Watch
from fedsynth.federation.settings import FederationSettings, length_of
from fedsynth.federation.site_context import SITES
from fedsynth.privacy.lineage import PatientGroup
from fedsynth.runs import RUNS, Run, create_run
from fedsynth.training.lineage import PATIENTS, origin_of
from fedsynth.training.patient_batches import PatientBatches
from fedsynth.training.roles import roles_mark
from fedsynth.training.session import Prepared, default_generator, prepare, refuse_empty_maps, training_members
from fedsynth.training.settings import cpu_threads
from fedsynth.training.site_storage import SiteStorage

Engine = Literal["local", "ray"]
PHANTOMS, ASKED = "phantoms", "sites-asked.toml"


@dataclass(frozen=True, kw_only=True, eq=False)
class Hospitals:
    """The federation as it will stand in the run directory; `made` is where phantoms wait to be moved into it."""

    asked: SitesFile
    file: SitesFile
    federation: Federation
    made: Path | None = None


@contextmanager
def open_hospitals(file: SitesFile, base: Path, *, progress: Making = silent) -> Iterator[Hospitals]:
    """Open the image sets of `file`, or make its phantoms in `base`; those that no run takes are removed."""
    if file.phantom is None:
        federation = open_federation(file, base)
        yield Hospitals(asked=file, file=_resolved(file, federation), federation=federation)
        return
    base.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=".phantoms-", dir=base))
    try:
        federation = open_federation(file, made, progress=progress, every_voxel=False)
        (folder,) = made.iterdir()
        yield Hospitals(asked=file, file=_resolved(file, federation), federation=federation, made=folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def with_generator(table: Mapping[str, Any], hospitals: Hospitals) -> dict[str, Any]:
    """The table of settings with the default generator for these images and its length, where it says nothing."""
    images = hospitals.federation.sites[0].images
    chosen = table.get("generator") or default_generator(images, private="privacy" in table, paired="pairing" in table)
    return {"sites": len(hospitals.federation.sites), "generator": chosen, **length_of(chosen), **table}


def rehearse(settings: FederationSettings, hospitals: Hospitals) -> Prepared:
    """Refuse what cannot work before a run directory exists. Returns the first site's trainer, untrained."""
    sites = hospitals.federation.sites
    if settings.sites != len(sites):
        raise ConfigError(f"{len(sites)} sites were opened, not {settings.sites}", remedy="mend the sites file")
    names = {site.name for site in sites}
    if settings.declared and settings.declared.keys() != names:
        wrong = sorted(settings.declared.keys() ^ names)
        raise ConfigError("--weighting must declare every site and no other", value=wrong)
    for site in sites:
        try:
            holder = PatientBatches(training_members(site.images))
        except ConfigError as error:
            raise ConfigError(f"site {site.name!r}: {error}") from error
        origin_of(holder, settings.training(), None)
    refuse_empty_maps([site.images for site in sites], settings.generator)
    with cpu_threads(1):
        prepared = prepare(sites[0].images, settings.training(), shares=settings.shares)
    for site in sites:  # all lie on this machine; a real site keeps to itself what this says
        try:
            prepared.trainer.family.check_members(site.images)
        except ConfigError as error:
            raise ConfigError(f"site {site.name!r}: {error}") from error
    return prepared


def begin(settings: FederationSettings, hospitals: Hospitals, folder: Path | None, base: Path = RUNS) -> Run:
    """A new run directory with its hospitals in it."""
    run = create_run(settings, generator=settings.generator, seed=settings.seed, folder=folder, base=base)
    if hospitals.made is not None:
        hospitals.made.rename(run.folder / PHANTOMS)
    atomic_files.write_text(run.roles, roles_mark(hospitals.federation.pooled) + "\n")
    groups = [_group(site, settings, run) for site in hospitals.federation.sites]
    config.save_toml(run.folder / PATIENTS, {"group": groups})
    config.save_toml(run.folder / ASKED, hospitals.asked)
    config.save_toml(run.folder / SITES, hospitals.file)
    return run


def _group(site: Site, settings: FederationSettings, run: Run) -> PatientGroup:
    disk = SiteStorage(folder=run.site(site.name), run=run.folder.name, site=site.name)
    return origin_of(PatientBatches(training_members(site.images)), settings.training(), disk).patients


def sites_asked(run: Run) -> SitesFile:
    """The federation as the run was started with it, before phantoms were made and sites were named."""
    return config.load_toml(SitesFile, run.folder / ASKED)


def run_rounds(
    settings: FederationSettings,
    run: Run,
    *,
    engine: Engine = "local",
    workers: int = 1,
    watch: Watch = lambda progress: None,
    on_step: OnStep | None = None,
    beat: Callable[[], None] = lambda: None,
) -> None:
    """From where the run stands to its last round, on the engine of that name."""
    if not (run.folder / SITES).is_file():
        problem = "the run was killed before its hospitals were ready"
        raise ConfigError(problem, file=run.folder, remedy="start a new run")
    table = settings.to_run_config(run.folder.resolve())
    if engine == "ray":
        from fedsynth.federation.engines.ray import run_on_ray

        gpus = 1 / max(1, workers) if settings.device != "cpu" and torch.cuda.is_available() else 0.0
        run_on_ray(table, run.folder, sites=settings.sites, workers=workers, gpus=gpus, beat=beat)
        return
    from fedsynth.federation import client_app, server_app
    from fedsynth.federation.engines.local import run_locally

    with cpu_threads(1), site_observers.steps(on_step):
        run_locally(
            server_app.app, client_app.app, sites=settings.sites, run_config=table, workers=workers, watch=watch
        )


def _resolved(file: SitesFile, federation: Federation) -> SitesFile:
    """The same federation with every hospital named and every path whole."""
    names = [site.name for site in federation.sites]
    if file.phantom is not None:
        entries = tuple(SiteEntry(name=name) for name in names)
        return SitesFile(name=file.name, images=Path(PHANTOMS), site=entries)
    if file.site:
        return file
    return replace(file, sites=None, site=tuple(SiteEntry(name=name) for name in names))
