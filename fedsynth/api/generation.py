"""Images from a trained generator."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsynth import config
from fedsynth.api.benchmark_sets import RunLike
from fedsynth.api.progress import Progress
from fedsynth.api.signature import as_given, takes_keywords
from fedsynth.errors import ConfigError
from fedsynth.training.settings import GenerateSettings

if TYPE_CHECKING:
    from fedsynth.models.base import Family
    from fedsynth.training.checkpoint import Card
    from fedsynth.training.paired_sources import Sources


@takes_keywords(GenerateSettings)
def generate(
    run: RunLike = None,
    *,
    out: Path | str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> Path:
    """Draw images from a trained generator.

    Args:
        run: The run; the newest if not given.
        out: Where to write them; the run's own synthetic set if not given.
        overwrite: Replace `out` if it exists.
        progress: Told how far the work is, and what went otherwise than asked; log lines if not given.

    Returns:
        The folder with the images; `fedsynth.load` opens it where the format is imageset.

    Example:
        >>> import fedsynth
        >>> made = fedsynth.load(fedsynth.generate("runs/first", count=100, out="made"))  # doctest: +SKIP
    """
    read, progress = config.read_table(GenerateSettings, as_given(settings)), progress or Progress()
    from fedsynth.atomic_files import refuse_existing
    from fedsynth.data.export import TABLES, export
    from fedsynth.data.format import HEADER
    from fedsynth.runs import Run, newest_run, open_run
    from fedsynth.training.checkpoint import load_generator
    from fedsynth.training.generate import Drawing
    from fedsynth.training.settings import cpu_threads

    place = newest_run() if run is None else run if isinstance(run, Run) else open_run(Path(run))
    if out is None and (read.format != "imageset" or read.arm != "fitted" or read.source or read.edit):
        raise ConfigError("a run keeps an image set of its own generator alone", remedy="give --out")
    out = place.synthetic if out is None else Path(out)
    family, card = load_generator(place.checkpoints)
    with cpu_threads(1):
        sources = _open_sources(family, card, read)
    drawing = Drawing(family, card, count=read.count, mix=read.mix, seed=read.seed, sources=sources, arm=read.arm)
    refuse_existing(out, marker=TABLES.get(read.format, HEADER), overwrite=overwrite)
    with cpu_threads(1), progress.bar("drawing images") as advance:
        if read.format == "imageset":
            drawing.write(out, overwrite=overwrite, progress=advance)
        else:
            with tempfile.TemporaryDirectory(prefix="fedsynth-") as scratch:
                drawn = drawing.write(Path(scratch) / out.name, progress=advance)
                export(drawn, out, read.format, overwrite=overwrite)
    if sources is not None and sources.lost:
        count = len(sources.lost)
        progress.note(f"in {count} of them the edited tumour found room for less than half of itself")
    return out


def _open_sources(family: "Family", card: "Card", read: GenerateSettings) -> "Sources | None":
    from fedsynth.data import ImageSet
    from fedsynth.data.mask_editing import read_edit
    from fedsynth.training.label_map_stage import drawn_to_edit
    from fedsynth.training.paired_sources import choose_sources

    wanted = [read_edit(text, card.shape.dimensions) for text in read.edit]
    asked: dict[str, Any] = {"mix": read.mix, "seed": read.seed, "edits": wanted, "transplanting": read.transplant}
    if card.two_stage and read.source is None:
        if not wanted and not read.transplant:
            return None
        return drawn_to_edit(family, card, read.count, **asked)
    if not card.pairing and not card.two_stage:
        if read.source is not None or wanted or read.transplant:
            problem = "this generator draws image and mask from noise: there is nothing to start from or to edit"
            raise ConfigError(problem, remedy="leave out --source, --edit and --transplant")
        return None
    if read.source is not None:
        return choose_sources(card, ImageSet.load(read.source), read.count, **asked)
    problem = f"this generator does {card.pairing} and needs something to start from"
    raise ConfigError(problem, remedy="give --source SET, or train two stages: --renderer in place of --generator")
