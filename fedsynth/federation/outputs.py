"""What a simulation ends with: the synthetic image set, and sheets of it beside real images.

A sheet that shows patients stays in the site's folder; phantoms are nobody, and stand with the samples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from fedsynth import atomic_files
from fedsynth.data import ImageSet
from fedsynth.data.contact_sheet import contact_sheet
from fedsynth.data.format import PHANTOM
from fedsynth.data.image_set import concatenate
from fedsynth.data.sites import Site
from fedsynth.errors import FedSynthError
from fedsynth.federation.settings import FederationSettings
from fedsynth.federation.site_context import simulated_federation
from fedsynth.models.generators.catalog import find
from fedsynth.runs import Run
from fedsynth.training.checkpoint import Card, load_generator
from fedsynth.training.generate import NOBODY, Drawing
from fedsynth.training.random_streams import stream_seed
from fedsynth.training.sampler import class_counts
from fedsynth.training.session import training_members

Advance = Callable[[int, int], None]
SHEET, BESIDE = "synthetic.png", "real-and-synthetic.png"
ROWS = 2


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What lies in the run directory at the end; `card` is that of the released generator, or of one of the sites'."""

    card: Card
    images: ImageSet | None
    sheets: tuple[Path, ...]


def finish(settings: FederationSettings, run: Run, advance: Advance = lambda done, total: None) -> Outputs:
    """Draw the synthetic set and the sheets, from what the rounds left; done again after a kill."""
    sites = simulated_federation(run.folder).sites
    alone = settings.federation == "none"
    folder = run.site(sites[0].name) if alone else run.checkpoints
    card = load_generator(folder)[1]
    drawing = drawing_of(folder, count=settings.count, seed=settings.seed)
    if drawing is None:
        return Outputs(card=card, images=None, sheets=())
    with run.locked():
        if alone:
            made = _pooled(settings, run, sites)
        else:
            made = drawing.write(run.synthetic, overwrite=True, progress=advance)
            _draw_nobody(settings, run, card)
        return Outputs(card=card, images=made, sheets=_sheets(run, sites, made))


def _draw_nobody(settings: FederationSettings, run: Run, card: Card) -> None:
    """Images that no patient shaped beside those of a fitted family: what patients added is measured against them."""
    if find(card.generator).kind != "fitted":
        return
    for arm in NOBODY:
        family, _ = load_generator(run.checkpoints)
        seed = stream_seed(settings.seed, "draw", arm)
        Drawing(family, card, count=settings.count, seed=seed, arm=arm).write(run.folder / arm, overwrite=True)


def drawing_of(folder: Path, *, count: int, seed: int) -> Drawing | None:
    """Images by the sampler in `folder`; none where it turns other images into them, and nobody named any."""
    family, card = load_generator(folder)
    return None if card.pairing else Drawing(family, card, count=count, seed=seed)


def _pooled(settings: FederationSettings, run: Run, sites: Sequence[Site]) -> ImageSet:
    """Every site's generator draws its share, of equal size, and the images are pooled once."""
    names = tuple(site.name for site in sites)
    counts = class_counts(settings.count, names, dict.fromkeys(names, 1 / len(names)))
    parts = []
    for name in names:
        if not counts[name]:
            continue
        seed = stream_seed(settings.seed, "draw", name)
        try:
            drawing = drawing_of(run.site(name), count=counts[name], seed=seed)
        except FedSynthError:
            continue  # a site that never finished a round has nothing to share
        if drawing is None:
            continue
        part = drawing.in_memory(name)
        parts.append(part.with_cases(part.cases.assign(case=[f"{name}-{case}" for case in part.cases["case"]])))
    pooled = concatenate(parts, name="synthetic")
    made = {"generator": settings.generator, "federation": "none", "sites": list(names), "seed": settings.seed}
    return pooled.with_cases(pooled.cases, provenance=made).save(run.synthetic, overwrite=True)


def _sheets(run: Run, sites: Sequence[Site], made: ImageSet) -> tuple[Path, ...]:
    """All synthetic ones in one sheet; beside real ones, one sheet of phantoms or one for every real site."""
    written = [write_sheet(run.samples / SHEET, made, rows=4)]
    real = {site.name: training_members(site.images) for site in sites}
    if all(images.header.phantoms for images in real.values()):
        written.append(write_sheet(run.samples / BESIDE, beside(real, made)))
        return tuple(written)
    for name, images in real.items():
        written.append(write_sheet(run.site(name) / BESIDE, beside({name: images}, made)))
    return tuple(written)


def beside(real: dict[str, ImageSet], made: ImageSet) -> ImageSet:
    """Synthetic and real images as one set to look at, in sections of their own. Phantoms stay marked as such."""
    first = next(iter(real.values())).header
    cases = made.cases.assign(site="made by the generator", patient=made.cases["case"])  # real ones name a patient
    phantoms = all(images.header.phantoms for images in real.values())
    shown = made.with_cases(cases, origin=first.origin, provenance={PHANTOM: {}} if phantoms else {})
    parts = [shown]
    for name, images in real.items():
        named = images.cases.assign(site=f"real: {name}", role="")
        parts.append(ImageSet(header=images.header, cases=named, images=_as_bytes(images), masks=images.masks))
    return concatenate(parts, name="generated and real images")


def _as_bytes(images: ImageSet) -> np.ndarray:
    values = images.images[np.arange(len(images))]
    return values if values.dtype == np.uint8 else np.asarray(np.rint(np.clip(values, 0, 1) * 255), np.uint8)


def write_sheet(path: Path, images: ImageSet, *, rows: int = ROWS) -> Path:
    """A contact sheet of the images, as a picture."""
    buffer = BytesIO()
    contact_sheet(images, rows=rows).save(buffer, "PNG")
    atomic_files.write_bytes(path, buffer.getvalue())
    return path
