"""Several hospitals that train one generator together, in one run directory."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from fedsynth import config
from fedsynth.api.progress import Progress
from fedsynth.api.public_images import with_public
from fedsynth.api.signature import as_given, takes_keywords
from fedsynth.api.simulated_start import make_start
from fedsynth.api.stages import with_stages
from fedsynth.errors import ConfigError, nearest
from fedsynth.federation.settings import FederationSettings, check_family
from fedsynth.runs import RUNS, Run, open_run
from fedsynth.training.trackers import require_trackers

if TYPE_CHECKING:
    from fedsynth.data.site_config import SitesFile
    from fedsynth.federation.outputs import Outputs

Engine = Literal["local", "ray"]
SITES, CODED = 4, "render-vae"


@takes_keywords(FederationSettings)
def simulate(
    sites: int | Path | str | None = None,
    data: Path | str | None = None,
    *,
    partition: str | None = None,
    maps: str | None = None,
    renderer: str | None = None,
    public: Path | str | None = None,
    run: Path | str | None = None,
    resume: bool = False,
    engine: Engine = "local",
    workers: int | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Run:
    """Train one generator over several hospitals and draw its synthetic set.

    Args:
        sites: How many hospitals (4 if not given), or a sites file.
        data: The image set that is shared out; without it the hospitals hold phantoms.
        partition: How `data` is shared out: natural, iid, dirichlet:A or quantity:A.
        maps: The first stage of a two-stage generator, which draws label maps: pca-maps if not given.
        renderer: The second stage, which makes images of them: render-vae if not given.
        public: What a private release compares patients with: `phantoms`, or the folder of a public image set.
        run: The run directory; a new one under runs/ if not given.
        resume: Go on with the run in `run`, with its own settings.
        engine: local (in this process) or ray.
        workers: Hospitals at work at a time; one per core if not given.
        progress: Told how far the work is; log lines if not given.

    Returns:
        The run directory with the generator, the synthetic set and sample sheets.

    Example:
        >>> import fedsynth
        >>> run = fedsynth.simulate(sites=2, rounds=1, local_steps=1, count=4)  # doctest: +SKIP
    """
    progress = progress or Progress()
    check_engine(engine, workers)
    given = with_public(with_stages(as_given(settings), maps, renderer), public)
    asked = read_sites(sites, data, partition, given)
    read, place = open_simulation(given, asked, None if run is None else Path(run), resume=resume, progress=progress)
    run_simulation(read, place, engine=engine, workers=workers, progress=progress)
    return place


def run_simulation(
    settings: FederationSettings, run: Run, *, engine: Engine, workers: int | None, progress: Progress
) -> "Outputs":
    """All rounds that are missing, then the synthetic set. Ctrl-C leaves a run that `resume` goes on with."""
    from fedsynth.federation.outputs import finish
    from fedsynth.federation.simulation import run_rounds

    try:
        with progress.rounds(settings) as told:
            run_rounds(
                settings,
                run,
                engine=engine,
                workers=workers or min(settings.sites, os.cpu_count() or 1),
                watch=told.watch,
                on_step=told.on_step,
                beat=told.beat,
            )
        with progress.bar("drawing images") as advance:
            return finish(settings, run, advance)
    except KeyboardInterrupt:
        progress.note(f"stopped; go on with: fedsynth simulate --resume --run {run.folder}")
        raise


def check_engine(engine: str, workers: int | None) -> None:
    """Refuse an unknown engine, and Ray where it is not installed."""
    if engine not in get_args(Engine):
        raise ConfigError("unknown --engine", value=engine, remedy=nearest(engine, get_args(Engine)))
    if workers is not None and workers < 1:
        raise ConfigError("--workers must be at least 1", value=workers)
    if engine == "ray":
        from fedsynth.federation.engines.ray import require_ray

        require_ray()


def read_sites(
    sites: int | Path | str | None, data: Path | str | None, partition: str | None, given: dict[str, Any]
) -> "SitesFile | None":
    """The federation as it was asked for; None where nothing was said. Settings are checked first: it is quick."""
    number = int(str(sites)) if sites is not None and _is_number(str(sites)) else None
    _check_settings(given, number)
    from fedsynth.data.site_config import SitesFile, load_sites

    if sites is None and data is None and partition is None:
        return None
    if sites is not None and number is None:
        if data is not None or partition is not None:
            raise ConfigError("a sites file says itself where its images come from", remedy="leave --data away")
        return load_sites(Path(str(sites)))
    if data is None:
        if partition is not None:
            raise ConfigError("--partition shares out an image set", remedy="give --data SET")
        return phantoms(SITES if number is None else number, given)
    images, seed = Path(data).resolve(), given.get("seed", 0)
    return SitesFile(name=images.name, images=images, partition=partition or "natural", sites=number, seed=seed)


def _is_number(text: str) -> bool:
    return text.lstrip("-").isdecimal()


def _check_settings(given: dict[str, Any], sites: int | None) -> None:
    """Before anything heavy is imported. The number of sites may be known later only."""
    if sites is not None and sites < 1:
        raise ConfigError("--sites must be at least 1", value=sites)
    known = sites or max(SITES, int(given.get("min-sites", 1)))
    settings = config.read_table(FederationSettings, {**given, "sites": known})
    require_trackers(settings.trackers)
    if "generator" in given:
        check_family(settings)


def phantoms(sites: int, given: dict[str, Any]) -> "SitesFile":
    """Phantom hospitals. A renderer without a code of its own gets tissues too: no brain follows from a tumour."""
    from fedsynth.data.site_config import default_sites

    file = default_sites(sites)
    assert file.phantom is not None
    if given.get("options", {}).get("renderer", CODED) == CODED:
        return file
    return replace(file, phantom=replace(file.phantom, labels="tissue+tumour"))


def open_simulation(
    given: dict[str, Any], asked: "SitesFile | None", folder: Path | None, *, resume: bool, progress: Progress
) -> tuple[FederationSettings, Run]:
    """A new run with its hospitals, or the one to go on with."""
    from fedsynth.federation.simulation import begin, open_hospitals, rehearse, sites_asked, with_generator

    if resume:
        if folder is None:
            raise ConfigError("--resume needs the run", remedy="give --run DIR")
        place = open_run(folder)
        settings = config.load_toml(FederationSettings, place.config)
        refuse_other(config.as_table(settings), given, place)
        if asked is not None:
            refuse_other(config.as_table(sites_asked(place)), config.as_table(asked), place)
        return settings, place
    base = RUNS if folder is None else folder.resolve().parent
    file = asked or phantoms(SITES, given)
    with progress.bar("making phantoms") as advance, open_hospitals(file, base, progress=advance) as hospitals:
        settings = config.read_table(FederationSettings, with_generator(given, hospitals))
        check_family(settings)
        if not settings.rounds_of_training:
            progress.note("making the public pool; it is kept for later runs")
        make_start(hospitals.federation.sites[0].images, settings.training(), progress)
        prepared = rehearse(settings, hospitals)
        if prepared.feasibility is not None:
            progress.note(str(prepared.feasibility))
        return settings, begin(settings, hospitals, folder)


def refuse_other(was: dict[str, Any], now: dict[str, Any], run: Run, prefix: str = "") -> None:
    """A run does not go on with other settings than it began with."""
    for key, value in now.items():
        if isinstance(value, dict) and isinstance(was.get(key), dict):
            refuse_other(was[key], value, run, f"{prefix}{key}.")
        elif was.get(key) != value:
            problem = f"the run was started with {prefix}{key} = {was.get(key)!r}, not {value!r}"
            raise ConfigError(problem, file=run.folder, remedy="resume with the same settings, or leave them out")
