"""`--start phantoms`: networks are trained on simulated heads before the run, where no earlier run has left them."""

from dataclasses import replace
from typing import TYPE_CHECKING

from fedsynth.api.progress import Progress
from fedsynth.training.settings import SIMULATED, TrainSettings

if TYPE_CHECKING:
    from fedsynth.data import ImageSet


def make_start(images: "ImageSet", settings: TrainSettings, progress: Progress) -> None:
    """Train them if the run begins with them; what is wrong with images or settings shows before."""
    if settings.start != SIMULATED:
        return
    from fedsynth.training.patient_batches import PatientBatches
    from fedsynth.training.pretraining import check_shape, pretrain
    from fedsynth.training.session import prepare, training_members

    shape = PatientBatches(training_members(images)).shape
    check_shape(shape)
    prepare(images, replace(settings, start=None, start_steps=None))
    with progress.bar("training on simulated heads; kept for later runs") as advance:
        pretrain(settings, shape, on_step=lambda report, total: advance(report.step + 1, total))
