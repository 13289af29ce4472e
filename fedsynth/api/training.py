"""One generator from the images of one site: the centralised baseline of a federation."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsynth import config
from fedsynth.api.progress import Progress
from fedsynth.api.public_images import with_public
from fedsynth.api.signature import as_given, takes_keywords
from fedsynth.api.simulated_start import make_start
from fedsynth.api.simulation import refuse_other
from fedsynth.api.stages import with_stages
from fedsynth.errors import ConfigError
from fedsynth.models.facts import is_fitted, known_family
from fedsynth.runs import Run, create_run, open_run
from fedsynth.training.settings import TrainSettings
from fedsynth.training.trackers import open_trackers, require_trackers

if TYPE_CHECKING:
    from fedsynth.training.trainer import StepReport


@takes_keywords(TrainSettings)
def train(
    images: Path | str,
    *,
    maps: str | None = None,
    renderer: str | None = None,
    public: Path | str | None = None,
    run: Path | str | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> Run:
    """Train one generator on one image set; its members, if roles were drawn.

    Args:
        images: The folder of the image set.
        maps: The first stage of a two-stage generator, which draws label maps: pca-maps if not given.
        renderer: The second stage, which makes images of them: render-vae if not given.
        public: What a private release compares patients with: `phantoms`, or the folder of a public image set.
        run: The run directory; a new one under runs/ if not given.
        resume: Go on with the run in `run`.
        progress: Told how far the work is; log lines if not given.

    Returns:
        The run directory with the generator and sample sheets.

    Example:
        >>> import fedsynth
        >>> run = fedsynth.train("hospitals", generator="dcgan", steps=100)  # doctest: +SKIP
    """
    progress = progress or Progress()
    given = {
        **with_public(with_stages(as_given(settings), maps, renderer), public),
        "images": str(Path(images).resolve()),
    }
    read, place = _resumed(run, given) if resume else (config.read_table(TrainSettings, given), None)
    if "generator" in given:
        known_family(read.generator)
    require_trackers(read.trackers)
    from fedsynth.data import ImageSet
    from fedsynth.training.centralised import run_training
    from fedsynth.training.session import default_generator, prepare
    from fedsynth.training.settings import cpu_threads, open_device

    opened = ImageSet.load(images)
    if read.generator is None:
        chosen = default_generator(opened, private=read.privacy is not None, paired=bool(read.pairing))
        read = replace(read, generator=chosen)
    if is_fitted(read.generator):
        progress.note("making the public pool; it is kept for later runs")
    with cpu_threads(read.threads):
        make_start(opened, read, progress)
        prepared = prepare(opened, read)  # bad input shows here, before a run directory exists
        prepared.check_members()
    if prepared.feasibility is not None:
        progress.note(str(prepared.feasibility))
    if place is None:
        name, folder = open_device(read.device).type, None if run is None else Path(run)
        place = create_run(read, generator=read.generator, seed=read.seed, device=name, folder=folder)
    try:
        with open_trackers(read.trackers, place) as trackers, progress.bar(f"training {read.generator}") as advance:

            def on_step(report: "StepReport", total: int) -> None:
                advance(report.step + 1, total)
                trackers.on_step(report, total)

            run_training(opened, read, place, resume=resume, on_step=on_step)
    except KeyboardInterrupt:
        progress.note(f"stopped; go on with the same command and --resume --run {place.folder}")
        raise
    return place


def _resumed(run: Path | str | None, given: dict[str, Any]) -> tuple[TrainSettings, Run]:
    if run is None:
        raise ConfigError("--resume needs the run", remedy="give --run DIR")
    place = open_run(Path(run))
    settings = config.load_toml(TrainSettings, place.config)
    refuse_other(config.as_table(settings), given, place)
    return settings, place
