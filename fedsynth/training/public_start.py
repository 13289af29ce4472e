"""Where networks that were trained on simulated heads are kept, and what they follow from: `--start phantoms`.

Public settings and the shape of the images alone decide on them, so that a server, its sites and later runs have the
same. They are a run like any other, whose images show nobody. `pretraining.py` makes it.
"""

import hashlib
from dataclasses import asdict

import numpy as np
import scipy
import torch

from fedsynth import config
from fedsynth.code_digest import code_digest
from fedsynth.errors import FedSynthError
from fedsynth.models.base import ImageShape
from fedsynth.models.generators.catalog import find
from fedsynth.models.kept_arrays import kept_folder
from fedsynth.runs import Run, open_run
from fedsynth.training.settings import SIMULATED, SIMULATED_MAPS, TWO_STAGE, TrainSettings

CODE = ("data/phantoms", "models", "training")


def pretraining(settings: TrainSettings) -> TrainSettings:
    """How the networks that this run goes on from are trained, whoever its patients are.

    Maps that are fitted afterwards are not fitted to simulated heads first.
    """
    options = settings.options
    if settings.generator == TWO_STAGE and find(options["maps"]).kind == "maps":
        options = options | {"maps": SIMULATED_MAPS}
    return TrainSettings(
        generator=settings.generator,
        images=SIMULATED,
        steps=settings.start_steps,
        pairing=settings.pairing,
        private_networks=settings.private_networks or settings.privacy is not None,
        sheets=1,
        options=options,
    )


def kept_start(settings: TrainSettings, shape: ImageShape) -> Run:
    """The run directory of those networks for images of this shape, whether or not it is there."""
    versions = np.__version__, scipy.__version__, torch.__version__
    facts = (sorted(asdict(shape).items()), config.as_table(pretraining(settings)), code_digest(CODE), versions)
    digest = hashlib.sha256(repr(facts).encode()).hexdigest()
    return Run(folder=kept_folder("public-starts") / f"simulated-heads-{digest[:16]}")


def start_run(settings: TrainSettings, shape: ImageShape) -> Run:
    """The run that these settings go on from, with images of this shape."""
    assert settings.start is not None
    if settings.start != SIMULATED:
        return open_run(settings.start)
    kept = kept_start(settings, shape)
    if not kept.config.is_file():
        problem = "the networks trained on simulated heads are not there"
        raise FedSynthError(problem, file=kept.folder, remedy="give the command again, which makes them")
    return kept
