"""Training by one holder of data: the baseline that every federation is compared with."""

import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import torch

from fedsynth import files
from fedsynth.errors import ConfigError
from fedsynth.generators.augment import Augmentation
from fedsynth.generators.catalog import Recipe, build, find
from fedsynth.generators.pairing import Pairing, read_pairing
from fedsynth.images import ImageSet
from fedsynth.images.sheet import contact_sheet
from fedsynth.run import Run
from fedsynth.training.checkpoint import Card, load_state, save_generator, save_state
from fedsynth.training.holder import Holder
from fedsynth.training.record import LossRecord
from fedsynth.training.settings import TrainSettings, open_device
from fedsynth.training.sources import choose_sources
from fedsynth.training.synthetic import Drawing
from fedsynth.training.trainer import PlainGradients, StepReport, Trainer
from fedsynth.training.watch import DivergedError

STATE, HOLDER = "state.safetensors", "pooled"
SAVE_EVERY_SECONDS = 60.0
SHEET_IMAGES = 12
PLAIN = "none: trained without differential privacy"
UNTRAINED = "nothing was learnt from patients; images depend on the label maps they are drawn from"


def training_members(images: ImageSet) -> ImageSet:
    """The images that may be trained on: the members, or everything where no roles were drawn."""
    roles = set(images.cases["role"])
    if roles == {""}:
        return images
    if "member" not in roles:
        raise ConfigError("the image set has no members to train on", file=images.folder, value=sorted(roles))
    return images.select(role="member")


def pairing_of(images: ImageSet, settings: TrainSettings) -> Pairing | None:
    """What is turned into what, or None for joint training."""
    if not settings.pairing:
        return None
    return read_pairing(settings.pairing, images.header.channels, images.header.mask_labels)


def make_trainer(images: ImageSet, settings: TrainSettings) -> Trainer:
    """Networks, data and optimisers of a plain run, ready to take its first step."""
    entry = find(settings.generator)
    recipe: Recipe = settings.over(entry.recipe)
    device = open_device(settings.device)
    holder = Holder(training_members(images), device=device)
    pairing = pairing_of(images, settings)
    shape = holder.shape if pairing is None else pairing.shape(holder.shape, images.header.mask_labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        family = build(settings.generator, shape, **settings.options)
    augmentation = Augmentation(image_channels=shape.channels) if recipe.augment else None
    gradients = PlainGradients(
        family,
        holder,
        seed=settings.seed,
        batch=recipe.batch,
        augmentation=augmentation,
        pairing=pairing,
        precision=torch.bfloat16 if settings.precision == "bfloat16" else None,
    )
    steps = recipe.steps if family.turns else 0  # a family without turns has nothing to learn
    return Trainer(family, recipe, seed=settings.seed, total_steps=steps, gradients=gradients, device=device)


def describe(images: ImageSet, settings: TrainSettings, trainer: Trainer) -> Card:
    """The card of the sampler as it stands."""
    header = images.header
    holder = Holder(training_members(images))
    shares = holder.class_shares if header.classes else np.zeros(0)
    return Card(
        generator=settings.generator,
        shape=trainer.family.shape,
        options=settings.options,
        pairing=settings.pairing,
        channels=header.channels,
        classes=header.classes,
        mask_labels=header.mask_labels,
        spacing_mm=header.spacing_mm,
        class_shares=tuple(round(float(share), 6) for share in shares),
        steps=trainer.step,
        trained_on=header.name,
        privacy=PLAIN if trainer.family.turns else UNTRAINED,
    )


def run_training(
    images: ImageSet,
    settings: TrainSettings,
    run: Run,
    *,
    resume: bool = False,
    on_step: Callable[[StepReport, int], None] = lambda report, total: None,
) -> Card:
    """Train to the end, writing state, losses and sample sheets as it goes; the run directory is locked meanwhile.

    A diverged run raises after the last good state was kept. `on_step` is called with each report and the total.
    """
    with run.locked():
        trainer = make_trainer(images, settings)
        state = run.site(HOLDER) / STATE
        if resume and state.exists():
            load_state(state, trainer, settings.generator)
        try:
            _train_to_end(images, settings, run, trainer, on_step)
        except DivergedError:
            if all(torch.isfinite(value).all() for value in trainer.family.nets.state_dict().values()):
                save_state(state, trainer, settings.generator)
            raise
        card = describe(images, settings, trainer)
        save_generator(run.checkpoints, trainer, card)
        return card


def _train_to_end(
    images: ImageSet, settings: TrainSettings, run: Run, trainer: Trainer, on_step: Callable[[StepReport, int], None]
) -> None:
    if not trainer.total_steps:
        _write_sheet(run.samples / "untrained.png", images, settings, trainer)
        return
    record = LossRecord(run.rounds, first=trainer.step)
    shown = _sheet_steps(trainer.total_steps, settings.sheets)
    saved = time.monotonic()
    for report in trainer.run(trainer.total_steps - trainer.step):
        on_step(report, trainer.total_steps)
        record.add(report)
        if trainer.step in shown:
            _write_sheet(run.samples / f"step-{trainer.step:06d}.png", images, settings, trainer)
        if time.monotonic() - saved > SAVE_EVERY_SECONDS or trainer.step == trainer.total_steps:
            save_state(run.site(HOLDER) / STATE, trainer, settings.generator)
            record.save()
            saved = time.monotonic()


def _sheet_steps(total: int, count: int) -> set[int]:
    return {round(total * (i + 1) / count) for i in range(count)} if count else set()


def _write_sheet(path: Path, images: ImageSet, settings: TrainSettings, trainer: Trainer) -> None:
    """The moving average's output for a noise (and sources) that stay the same from sheet to sheet."""
    card, sources = describe(images, settings, trainer), None
    if card.pairing:
        roles = set(images.cases["role"])
        shown = images.select(role="reference") if "reference" in roles else training_members(images)
        sources = choose_sources(card, shown, SHEET_IMAGES, seed=settings.seed)
    with trainer.average.in_place(trainer.family):
        drawing = Drawing(trainer.family, card, count=SHEET_IMAGES, seed=settings.seed, sources=sources)
        drawn = drawing.in_memory(f"{settings.generator}, step {trainer.step}")
    buffer = BytesIO()
    contact_sheet(drawn, rows=SHEET_IMAGES).save(buffer, "PNG")
    files.write_bytes(path, buffer.getvalue())
