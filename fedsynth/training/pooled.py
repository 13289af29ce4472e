"""Training by one holder of data: the baseline that every federation is compared with."""

import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import torch

from fedsynth import files
from fedsynth.images import ImageSet
from fedsynth.images.sheet import contact_sheet
from fedsynth.run import Run
from fedsynth.training.checkpoint import Card, load_state, save_generator, save_state
from fedsynth.training.preparing import HOLDER, STATE, Prepared, prepare, training_members
from fedsynth.training.record import LossRecord
from fedsynth.training.settings import TrainSettings
from fedsynth.training.sources import choose_sources
from fedsynth.training.synthetic import Drawing
from fedsynth.training.trainer import StepReport, Trainer
from fedsynth.training.watch import DivergedError

SAVE_EVERY_SECONDS = 60.0
SHEET_IMAGES = 12
BLOCK = 25  # steps that are charged together, and lost together in a crash

OnStep = Callable[[StepReport, int], None]


def run_training(
    images: ImageSet,
    settings: TrainSettings,
    run: Run,
    *,
    resume: bool = False,
    on_step: OnStep = lambda report, total: None,
) -> Card:
    """Train to the end, writing state, losses and sample sheets as it goes; the run directory is locked meanwhile.

    A diverged run raises after the last good state was kept. `on_step` is called with each report and the total.
    """
    with run.locked():
        prepared = prepare(images, settings, run=run)
        trainer, state = prepared.trainer, run.site(HOLDER) / STATE
        if resume and state.exists():
            load_state(state, trainer, settings.generator)
        try:
            _train_to_end(prepared, run, on_step)
        except DivergedError:
            if all(torch.isfinite(value).all() for value in trainer.family.nets.state_dict().values()):
                save_state(state, trainer, settings.generator)
            raise
        card = prepared.card()
        save_generator(run.checkpoints, trainer, card)
        return card


def _train_to_end(prepared: Prepared, run: Run, on_step: OnStep) -> None:
    trainer, settings = prepared.trainer, prepared.settings
    if not trainer.total_steps:
        _write_sheet(run.samples / "untrained.png", prepared)
        return
    record = LossRecord(run.rounds, first=trainer.step)
    shown = _sheet_steps(trainer.total_steps, settings.sheets)
    saved, steps = time.monotonic(), -1
    while steps:
        wanted = min(BLOCK - trainer.step % BLOCK, trainer.total_steps - trainer.step)
        steps = prepared.pay(trainer.step, wanted)
        for report in trainer.run(steps):
            on_step(report, trainer.total_steps)
            record.add(report)
            if trainer.step in shown:
                _write_sheet(run.samples / f"step-{trainer.step:06d}.png", prepared)
        if prepared.door is not None or time.monotonic() - saved > SAVE_EVERY_SECONDS or not steps:
            save_state(run.site(HOLDER) / STATE, trainer, settings.generator)
            record.save()
            saved = time.monotonic()


def _sheet_steps(total: int, count: int) -> set[int]:
    return {round(total * (i + 1) / count) for i in range(count)} if count else set()


def _write_sheet(path: Path, prepared: Prepared) -> None:
    """The moving average's output for a noise (and sources) that stay the same from sheet to sheet."""
    card, sources, images = prepared.card(), None, prepared.images
    seed = prepared.settings.seed
    if card.pairing:
        roles = set(images.cases["role"])
        shown = images.select(role="reference") if "reference" in roles else training_members(images)
        sources = choose_sources(card, shown, SHEET_IMAGES, seed=seed)
    trainer: Trainer = prepared.trainer
    with trainer.average.in_place(trainer.family):
        drawing = Drawing(trainer.family, card, count=SHEET_IMAGES, seed=seed, sources=sources)
        drawn = drawing.in_memory(f"{card.generator}, step {trainer.step}")
    buffer = BytesIO()
    contact_sheet(drawn, rows=SHEET_IMAGES).save(buffer, "PNG")
    files.write_bytes(path, buffer.getvalue())
