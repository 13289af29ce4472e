"""Pseudo-patients of the public phantom, seen in wide random styles: what an image set's names mean to the phantom.

Knows no patients: everything is drawn from seeds and public ranges.
"""

from dataclasses import asdict, dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedsynth.data.phantoms.acquisition import CHANNELS, draw_scan
from fedsynth.data.phantoms.anatomy import from_atlas
from fedsynth.data.phantoms.appearance import Head
from fedsynth.data.phantoms.atlas import load_atlas
from fedsynth.data.phantoms.head import framed
from fedsynth.data.phantoms.patient import Patient, show_plane, style_patient
from fedsynth.data.phantoms.random_fields import Viewport
from fedsynth.data.phantoms.scanner import CLASSES, CaseMix
from fedsynth.data.phantoms.settings import LABELS, SMALLEST, Labels
from fedsynth.data.phantoms.style import from_vector, limits, names
from fedsynth.errors import ConfigError
from fedsynth.models.base import ImageShape
from fedsynth.models.image_statistics import Layout
from fedsynth.models.pseudo_patient import PseudoPatient, Shown, Vector, all_known, near

SAME_CHANNEL = {"t1c": "t1ce", "t1gd": "t1ce", "t1-gd": "t1ce", "t1post": "t1ce", "t1n": "t1", "t1w": "t1"}
SAME_CHANNEL |= {"t2w": "t2", "t2f": "flair", "t2-flair": "flair"}
SAME_LABEL = {"gray": "grey", "gm": "grey", "grey-matter": "grey", "wm": "white", "white-matter": "white"}
SAME_LABEL |= {"oedema": "edema", "ed": "edema", "necrosis": "core", "ncr": "core", "et": "enhancing"}
SAME_LABEL |= dict.fromkeys(("tumor", "whole-tumour", "whole-tumor", "lesion", "glioma", "wt"), "tumour")
SAME_CLASS = {"hgg": "high-grade", "lgg": "low-grade", "normal": "healthy"}
LESIONS = ("edema", "core", "enhancing", "tumour")

FRAMING = {"zoom": (0.8, 1.2), "aspect": (0.9, 1.1), "right_mm": (-8.0, 8.0), "front_mm": (-10.0, 10.0)}
FRAMING |= {"nod_degrees": (-12.0, 8.0)}
"""How a skull-stripped brain lies in the picture; where there is a head it is part of the style."""
EXPOSURE, SPREAD, SPREAD_WITH_CLASSES = (0.35, 1.0), (0.8, 5.0), (0.3, 1.0)
"""What share of the range of stored values a scan fills: sets are stored under any window. How far slices are spread
about the lesion, as a multiple of its reach: sets hold anything from the lesion's slices to all. Where classes are told
apart by their lesions, slices that miss them would teach that every class looks healthy."""
DISTRACTORS = (0.0, 5.0)
"""Spots without a label: from none at all, as most real sets have few that look like a lesion in every channel."""
HEIGHTS_MM = (-45.0, 70.0)
"""Of the slices above the centre: from the skull base to the vertex."""
UNKNOWN_CLASSES = (0.1, 0.45, 0.45)
"""Shares of `CLASSES` where classes have other names: sets with masks are mostly of patients with a tumour."""
JITTER = 0.05
"""How far each scan departs from its patient's style (standard deviation, as a share of the range)."""


@dataclass(frozen=True, kw_only=True)
class PhantomSimulator:
    """Draws pseudo-patients and their slices as images of `shape`; `head` shows skull and scalp.

    `remedy` is what to do instead where the phantom cannot stand for such images.
    """

    shape: ImageShape
    head: bool = False
    seed: int = 0
    remedy: str = "name public images of that kind with --public SET, or choose another generator"

    name, content = "phantoms", b""
    code = ("data/phantoms", "models/phantom_simulator.py", "models/pseudo_patient.py")

    def __post_init__(self) -> None:
        _ = self._channels, self._labels  # unknown names are refused before anything is drawn

    @property
    def source(self) -> tuple[object, ...]:
        """See `Simulator`."""
        return (sorted(asdict(self.shape).items()), self.head)

    @cached_property
    def layout(self) -> Layout:
        """What the statistics of images need to know."""
        kind, table = self._labels
        lesion = {int(table[i]) for i, name in enumerate(LABELS[kind]) if name in LESIONS}
        return Layout(
            channels=self.shape.channels,
            size=self.shape.size,
            n_labels=self.shape.n_labels,
            lesion=tuple(sorted(lesion)),
        )

    @cached_property
    def limits(self) -> Vector:
        """Lowest and highest value of every part of a style vector: (2, parts)."""
        spread = SPREAD_WITH_CLASSES if self.knows_classes else SPREAD
        own = [*(() if self.head else FRAMING.values()), EXPOSURE, spread]
        styles = limits(head=self.head)
        styles[:, names(head=self.head).index(("lesions", "distractors"))] = DISTRACTORS
        return np.concatenate([styles, np.array(own).T], 1)

    @cached_property
    def classes(self) -> tuple[int | None, ...]:
        """Which of `CLASSES` each class of the shape is; None where the name is not known, and any may be drawn."""
        spelled = [name.lower().replace("_", "-") for name in self.shape.class_names]
        known = [SAME_CLASS.get(name, name) for name in spelled] or [""] * self.shape.n_classes
        return tuple(CLASSES.index(name) if name in CLASSES else None for name in known)

    @property
    def knows_classes(self) -> bool:
        """Whether the shape has classes, and the phantom knows all of them."""
        return all_known(self.classes)

    @cached_property
    def shares(self) -> Vector:
        """How often each of `CLASSES` is drawn: those that the shape names equally often."""
        if not self.knows_classes:
            return np.array(UNKNOWN_CLASSES)
        counts = np.array([label in self.classes for label in range(len(CLASSES))], np.float64)
        return np.asarray(counts / counts.sum(), np.float64)

    def draw(self, rng: np.random.Generator, label: int | None = None) -> PseudoPatient:
        """A new pseudo-patient from the wide family, of that class or of any."""
        drawn = int(rng.choice(len(CLASSES), p=self.shares))
        return PseudoPatient.draw(drawn if label is None else label, self.limits, rng)

    def slices(self, patient: PseudoPatient, rng: np.random.Generator, count: int) -> list[Shown]:
        """`count` slices of a new scan, spread about the lesion: noise and a small departure from the style are new."""
        style, view = near(patient.style, self.limits, rng, JITTER), self._view
        found = self._patient(patient, style, rng)
        middle = float(from_atlas(found.anatomy, found.lesion.centre_mm)[2])
        heights = (np.arange(count) + rng.random(count)) / count - 0.5
        places = (middle + heights * style[-1] * found.lesion.reach_mm) / view.spacing_mm + (view.size - 1) / 2
        allowed = np.flatnonzero((view.offsets_mm >= HEIGHTS_MM[0]) & (view.offsets_mm <= HEIGHTS_MM[1]))
        planes = allowed[(np.rint(places).astype(int) - allowed[0]) % len(allowed)]
        return [self._slice(found, int(plane), float(style[-2])) for plane in planes]

    def _slice(self, found: Patient, plane: int, exposure: float) -> Shown:
        kind, table = self._labels
        image, mask = show_plane(found, load_atlas(self._view.spacing_mm), self._view, plane, kind)
        exposed = np.asarray(np.rint(image[list(self._channels)] * np.float32(exposure)), np.uint8)
        return exposed, table[mask]

    def _patient(self, patient: PseudoPatient, style: Vector, rng: np.random.Generator) -> Patient:
        parts = len(style) - 2 - (0 if self.head else len(FRAMING))
        shares = np.eye(len(CLASSES))[patient.label].tolist()
        mix = CaseMix(healthy=shares[0], low_grade=shares[1], high_grade=shares[2])
        shown, atlas = from_vector(style[:parts], head=self.head), load_atlas(self._view.spacing_mm)
        found = style_patient(self.seed, patient.number, mix, shown, atlas, scan=draw_scan(rng))
        found = replace(found, seed=int(rng.integers(2**31)))  # noise is seeded by it from here on
        if self.head:
            return found
        frame = Head(**dict(zip(FRAMING, style[parts:-2].tolist(), strict=True)))
        return replace(found, anatomy=framed(found.anatomy, frame))

    @cached_property
    def _view(self) -> Viewport:
        return Viewport(size=self.shape.size[0])

    @cached_property
    def _channels(self) -> tuple[int, ...]:
        spelled = [name.lower().replace("_", "-") for name in self.shape.channel_names]
        known = [SAME_CHANNEL.get(name, name) for name in spelled]
        unknown = [given for given, name in zip(self.shape.channel_names, known, strict=True) if name not in CHANNELS]
        if unknown or len(known) != self.shape.channels:
            raise self._unknown(
                "shows the channels " + ", ".join(CHANNELS), ", ".join(unknown) or "channels without names"
            )
        return tuple(CHANNELS.index(name) for name in known)

    @cached_property
    def _labels(self) -> tuple[Labels, NDArray[np.uint8]]:
        """What masks hold, and the shape's label for each of the phantom's."""
        if self.shape.n_labels < 2:
            raise self._unknown("needs masks to be fitted to", "a set without masks")
        spelled = [name.lower().replace("_", "-") for name in self.shape.label_names[1:]]
        own = [SAME_LABEL.get(name, name) for name in spelled]
        for kind, known in LABELS.items():
            if len(known) == self.shape.n_labels and (not own or sorted(own) == sorted(known[1:])):
                order = [0, *(1 + own.index(name) if own else i for i, name in enumerate(known[1:], 1))]
                return kind, np.array(order, np.uint8)
        known_labels = " or ".join(", ".join(labels[1:]) for labels in LABELS.values())
        raise self._unknown(f"labels masks as {known_labels}", ", ".join(spelled))

    def _unknown(self, knows: str, found: str) -> ConfigError:
        problem = f"there is no public pool of such images: the phantom {knows}"
        return ConfigError(problem, value=found, remedy=self.remedy)


def check_size(size: tuple[int, ...]) -> str:
    """Why the phantom cannot be drawn at this size, or an empty text."""
    if len(size) != 2:
        return "the public pool holds slices, no volumes"
    if size[0] != size[1] or size[0] < SMALLEST:
        return f"slices of the public pool are square, with sides of {SMALLEST} or more"
    return ""
