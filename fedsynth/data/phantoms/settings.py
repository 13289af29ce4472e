"""What a phantom cohort is: settings alone, read by the command line before anything heavy is imported."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from fedsynth.config import setting
from fedsynth.data.roles import Shares
from fedsynth.errors import ConfigError, nearest

Labels = Literal["tumour", "whole-tumour", "tissue+tumour"]
LABELS: dict[Labels, tuple[str, ...]] = {
    "tumour": ("background", "edema", "core", "enhancing"),
    "whole-tumour": ("background", "tumour"),
    "tissue+tumour": ("background", "csf", "grey", "white", "edema", "core", "enhancing"),
}
Styles = Literal["hospitals", "public"]
SMALLEST = 16


@dataclass(frozen=True, kw_only=True)
class PhantomSettings:
    """What to make. `slices` per patient count in two dimensions only; `size` is the edge of an image in pixels.

    With `head` pictures show skull, scalp and eyes. With the styles `public` every patient is seen in a style of its
    own from a wide family that knows nothing of the hospitals.
    """

    patients: int = setting(200, "How many patients.")
    slices: int = setting(5, "Slices per patient (in two dimensions).")
    size: int = setting(64, "Edge of an image in pixels.")
    sites: int = setting(4, "How many hospitals, each with a scanner and a case mix of its own.")
    seed: int = setting(0, "The same seed gives the same bytes.")
    dimensions: Literal[2, 3] = setting(2, "2 for slices, 3 for volumes.")
    labels: Labels = setting("tumour", "What the masks hold.")
    head: bool = setting(False, "Show skull, scalp and eyes; else skull-stripped.")
    styles: Styles = setting("hospitals", "Those of hospitals, or public, wide random styles that know no hospital.")
    shares: Shares = field(default_factory=Shares)

    def __post_init__(self) -> None:
        for key in ("patients", "slices", "sites"):
            if getattr(self, key) < 1:
                raise ConfigError(f"{key!r} must be at least 1", value=getattr(self, key))
        if self.size < SMALLEST:
            raise ConfigError(f"'size' must be at least {SMALLEST} pixels: a brain needs them", value=self.size)
        if self.seed < 0:
            raise ConfigError("'seed' must not be negative", value=self.seed)
        if self.dimensions not in (2, 3):
            raise ConfigError("'dimensions' must be 2 or 3", value=self.dimensions)
        if self.labels not in LABELS:
            raise ConfigError("'labels' has an unknown value", value=self.labels, remedy=nearest(self.labels, LABELS))
        if self.styles not in get_args(Styles):
            remedy = nearest(self.styles, get_args(Styles)) or "hospitals or public"
            raise ConfigError("'styles' has an unknown value", value=self.styles, remedy=remedy)
        if self.sites > self.patients:
            problem = f"there are more sites ({self.sites}) than patients ({self.patients})"
            raise ConfigError(problem, remedy="every site needs a patient")
        from fedsynth.data.phantoms.random_fields import Viewport

        planes = len(Viewport(size=self.size).planes)
        if self.dimensions == 2 and self.slices > planes:
            problem = f"a brain of {self.size} pixels has {planes} slices to choose from"
            raise ConfigError(problem, value=self.slices, remedy="ask for fewer slices or a larger size")
