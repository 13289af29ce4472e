"""The trainings that one run is made of: the generator's and, before it, that of the label maps it will be drawn from.

A label-to-image generator needs maps that are no patient's. As for one holder, a small joint model of them is trained
in the same run: by the same sites, in as many rounds, in a folder of its own at the server and at every site.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from fedsynth.federation.exchange import Facts
from fedsynth.federation.refusals import Code, NeutralError
from fedsynth.federation.settings import FederationSettings
from fedsynth.generators.pairing import read_pairing
from fedsynth.protocol import ImageShape
from fedsynth.run import Run
from fedsynth.training.masks import LABEL_TO_IMAGE, MASKS, mask_settings


@dataclass(frozen=True, kw_only=True)
class Part:
    """One training. Its `name` is empty for the generator that the run is about."""

    name: str = ""
    settings: FederationSettings

    @property
    def masks_only(self) -> bool:
        """Whether it learns label maps and never sees a picture."""
        return self.name == MASKS

    def place(self, run: Run) -> Run:
        """Where the server keeps its rounds and checkpoints."""
        return Run(folder=run.folder / self.name)

    def released(self, run: Run) -> Path:
        """Where its sampler is looked for when images are drawn: where one holder's would be."""
        return run.checkpoints / self.name

    def shape(self, facts: Facts) -> ImageShape:
        """What its family is built for."""
        if self.masks_only:
            return replace(facts.shape, channels=0, channel_names=())
        if not self.settings.pairing:
            return facts.shape
        pairing = read_pairing(self.settings.pairing, facts.channels, facts.mask_labels)
        return pairing.shape(facts.shape, facts.mask_labels)


def parts_of(settings: FederationSettings) -> tuple[Part, ...]:
    """All trainings of a run, in the order in which they are held; the last one is the run's own."""
    own = Part(settings=settings)
    if settings.pairing != LABEL_TO_IMAGE:
        return (own,)
    told = mask_settings(settings.training())
    same = {name: getattr(told, name) for name in ("generator", "pairing", "options", "batch", "rate", "start")}
    return Part(name=MASKS, settings=replace(settings, **same)), own


def part_of(settings: FederationSettings, name: str) -> Part:
    """The training that a message means; one that the run does not have is refused."""
    for part in parts_of(settings):
        if part.name == name:
            return part
    raise NeutralError(Code.SETTINGS)
