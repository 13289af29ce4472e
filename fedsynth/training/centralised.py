"""Training by one site: the baseline that every federation is compared with."""

import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import torch

from fedsynth import atomic_files
from fedsynth.data import ImageSet
from fedsynth.data.contact_sheet import contact_sheet
from fedsynth.errors import FedSynthError
from fedsynth.models.base import Family
from fedsynth.runs import Run
from fedsynth.training.checkpoint import Card, load_state, save_generator, save_state
from fedsynth.training.divergence_check import DivergedError
from fedsynth.training.generate import Drawing
from fedsynth.training.loss_log import LossLog
from fedsynth.training.paired_sources import choose_sources
from fedsynth.training.roles import roles_mark
from fedsynth.training.session import Prepared, learns, prepare, refuse_empty_maps, training_members
from fedsynth.training.settings import TrainSettings, cpu_threads
from fedsynth.training.site_storage import CENTRALISED, STATE, SiteStorage
from fedsynth.training.trainer import StepReport, Trainer

SAVE_EVERY_SECONDS = 60.0
SHEET_IMAGES = 12
BLOCK = 25  # steps that are charged together, and lost together in a crash

OnStep = Callable[[StepReport, int], None]
OnPrepared = Callable[[Prepared], None]


def run_training(
    images: ImageSet,
    settings: TrainSettings,
    run: Run,
    *,
    resume: bool = False,
    on_step: OnStep = lambda report, total: None,
    on_prepared: OnPrepared = lambda prepared: None,
) -> Card:
    """Train to the end, writing state, losses and sample sheets as it goes; the run directory is locked meanwhile.

    A diverged run raises after the last good state was kept. `on_step` is called with each report and the total,
    `on_prepared` with the trainer of the images before its first step: an auditor watches from there.
    """
    refuse_empty_maps([images], settings.generator)
    with run.locked(), cpu_threads(settings.threads):
        prepared = prepare(images, settings, storage=SiteStorage.of(run))
        prepared.check_members()
        _keep_roles(run, images)
        on_prepared(prepared)
        return _train(prepared, run, resume=resume, on_step=on_step)


def _keep_roles(run: Run, images: ImageSet) -> None:
    """Write down who had which role; a run does not go on with others."""
    digest = roles_mark(images)
    if run.roles.is_file() and run.roles.read_text(encoding="utf-8").strip() != digest:
        remedy = "bring the set (or the store, which has the key) back to what it was, or start a new run"
        raise FedSynthError(
            "the patients or their roles have changed since the run began", file=run.roles, remedy=remedy
        )
    atomic_files.write_text(run.roles, digest + "\n")


def _train(prepared: Prepared, run: Run, *, resume: bool, on_step: OnStep) -> Card:
    trainer, name = prepared.trainer, prepared.settings.generator
    if resume and (run.site(CENTRALISED) / STATE).exists():
        load_state(run.site(CENTRALISED) / STATE, trainer, name, shown=prepared.shown)
        prepared.check_resumed()
    try:
        _train_to_end(prepared, run, on_step)
    except DivergedError:
        if all(torch.isfinite(value).all() for value in trainer.family.nets.state_dict().values()):
            save_state(run.site(CENTRALISED) / STATE, trainer, name, shown=prepared.shown)
        raise
    prepared.fit()
    card = prepared.card()
    save_generator(run.checkpoints, trainer, card)
    return card


def _train_to_end(prepared: Prepared, run: Run, on_step: OnStep) -> None:
    trainer, settings, samples = prepared.trainer, prepared.settings, run.samples
    if not trainer.total_steps:
        _write_sheet(samples / f"{'fitted' if learns(trainer.family) else 'untrained'}.png", prepared)
        return
    log = LossLog(run.rounds, first=trainer.step, timed=prepared.mechanism is None)
    shown = _sheet_steps(trainer.total_steps, settings.sheets)
    saved, steps = time.monotonic(), -1
    while steps:
        wanted = min(BLOCK - trainer.step % BLOCK, trainer.total_steps - trainer.step)
        steps = prepared.pay(trainer.step, wanted)
        for report in trainer.run(steps):
            on_step(report, trainer.total_steps)
            log.add(report)
            if trainer.step in shown:
                _write_sheet(samples / f"step-{trainer.step:06d}.png", prepared)
        if prepared.mechanism is not None or time.monotonic() - saved > SAVE_EVERY_SECONDS or not steps:
            save_state(run.site(CENTRALISED) / STATE, trainer, settings.generator, shown=prepared.shown)
            log.save()
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
    assert isinstance(trainer.family, Family)
    prepared.fit()
    with trainer.ema.in_place(trainer.family):
        drawing = Drawing(trainer.family, card, count=SHEET_IMAGES, seed=seed, sources=sources)
        drawn = drawing.in_memory(f"{card.generator}, step {trainer.step}")
    buffer = BytesIO()
    contact_sheet(drawn, rows=SHEET_IMAGES).save(buffer, "PNG")
    atomic_files.write_bytes(path, buffer.getvalue())
