"""From tissue to grey values: what each MR sequence shows, and what a hospital's scanner makes of it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fedsynth.data.phantoms.anatomy import Tissue
from fedsynth.data.phantoms.appearance import Lesions
from fedsynth.data.phantoms.random_fields import Lattice, Plane, Viewport, draw_lattice
from fedsynth.data.phantoms.scanner import Scanner
from fedsynth.data.phantoms.tumour_growth import Growth, Tumour

CHANNELS = ("t1", "t2", "flair", "t1ce")

_SHOWN = {
    "csf": (0.12, 0.95, 0.07, 0.13),
    "grey": (0.50, 0.56, 0.50, 0.52),
    "white": (0.72, 0.40, 0.41, 0.73),
    "caps": (0.62, 0.58, 0.72, 0.62),
    "vessel": (0.25, 0.60, 0.15, 0.85),
    "oedema": (0.42, 0.78, 0.86, 0.42),
    "solid": (0.36, 0.82, 0.82, 0.37),
    "low-grade": (0.32, 0.90, 0.80, 0.40),
    "enhancing": (0.46, 0.66, 0.70, 1.70),
    "necrosis": (0.20, 0.95, 0.42, 0.17),
}
"""Relaxed public values of each tissue in the order of `CHANNELS`, before any scanner."""

_MEAN = np.array([0.55, 0.5, 0.45, 0.55], np.float32)[:, None, None]
"""The grey value about which a scanner's contrast stretches."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scan:
    """What differs between two visits to one scanner: the coil's unevenness and small shifts of every tissue.

    `coil` has one map for all channels and one for each; `gains` is per channel, `tissues` per tissue and channel.
    `soft` is how fat and muscle mix around the brain, `grain` the fine unevenness of the tissue itself, `vessels`
    where contrast agent shows in the sulci.
    """

    coil: Lattice
    soft: Lattice
    grain: Lattice
    vessels: Lattice
    gains: NDArray[np.float32]
    tissues: NDArray[np.float32]


def draw_scan(rng: np.random.Generator) -> Scan:
    """One visit."""
    return Scan(
        coil=draw_lattice(rng, 70.0, 1 + len(CHANNELS)),
        soft=draw_lattice(rng, 11.0),
        grain=draw_lattice(rng, 5.0),
        vessels=draw_lattice(rng, 5.0),
        gains=np.exp(np.clip(rng.normal(0.0, 0.03, len(CHANNELS)), -0.08, 0.08)).astype(np.float32),
        tissues=(1 + np.clip(rng.normal(0.0, 0.02, (3, len(CHANNELS))), -0.05, 0.05)).astype(np.float32),
    )


def show_tissue(tissue: Tissue, scan: Scan, caps: float, view: Viewport, plane: int) -> Plane:
    """The healthy brain in the four sequences, before any scanner: (channels, rows, columns)."""
    names, shares = ("csf", "grey", "white"), (tissue.csf, tissue.grey, tissue.white)
    shown = np.zeros((len(CHANNELS), *tissue.csf.shape), np.float32)
    for name, share, factor in zip(names, shares, scan.tissues, strict=True):
        shown += _value(name) * factor[:, None, None] * share
    ventricle = tissue.surroundings[2]
    shown = _blend(shown, "caps", tissue.white * np.clip(4 * ventricle, 0, 1) * caps)
    vessels = np.clip(scan.vessels.plane(view, plane)[0] - 1.2, 0, 0.8) * np.clip(3 * tissue.csf, 0, 1)
    shown = _blend(shown, "vessel", vessels * (ventricle < 0.05))
    return shown * (1 + 0.03 * scan.grain.plane(view, plane))


def show_lesion(shown: Plane, tumour: Tumour, growth: Growth, lesions: Lesions) -> Plane:
    """The lesion in the picture of its brain: partial volume throughout, the anatomy shines through the oedema."""
    uneven = np.clip(1 + lesions.texture * growth.texture, 0.3, 1.7)
    seen = np.array([lesions.t1, lesions.t2, lesions.flair, lesions.t1], np.float32) * tumour.shows
    strength = np.clip(seen, 0.15, 1.5)[:, None, None] * uneven
    shown = _blend(shown, "oedema", 0.85 * np.clip(growth.whole - growth.core, 0, 1) * strength)
    solid = "solid" if tumour.grade == "high-grade" else "low-grade"
    shown = _blend(shown, solid, growth.core * tumour.core_shows * strength)
    shown[CHANNELS.index("flair")] -= 0.35 * tumour.mismatch * seen[2] * np.clip(2 * growth.core - 1.1, 0, 1)
    shown = _blend(shown, "necrosis", growth.necrosis * np.clip(0.9 + 0.2 * growth.texture, 0, 1))
    rim = np.array([0.8, 0.8, 0.6, lesions.rim], np.float32)[:, None, None] * tumour.rim_shows * growth.enhancing
    return _blend(shown, "enhancing", rim * np.clip(0.9 + 0.25 * growth.texture, 0, 1.1))


def scan_plane(
    shown: Plane, filled: Plane, scanner: Scanner, scan: Scan, view: Viewport, plane: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """What the hospital stores of one plane: (channels, rows, columns), 0 to 255; `filled` is where there is tissue."""
    gain, contrast = (
        np.array([getattr(scanner, f"{name}_{what}") for name in CHANNELS], np.float32)[:, None, None]
        for what in ("gain", "contrast")
    )
    signal = np.clip(_MEAN * filled + contrast * (shown - _MEAN * filled), 0, None)
    signal = signal ** np.float32(scanner.gamma)
    signal = signal * np.float32(1 + scanner.shoulder) / (1 + np.float32(scanner.shoulder) * signal)
    signal = signal * gain * scan.gains[:, None, None]
    coil = scan.coil.plane(view, plane)
    signal = signal * np.exp(np.float32(scanner.bias) * (0.9 * coil[:1] + 0.3 * coil[1:]))
    sigma = scanner.blur_mm / 2.355 / view.spacing_mm
    signal = ndimage.gaussian_filter(signal, (0, sigma, sigma), truncate=3)
    noise = rng.standard_normal((2, *signal.shape), dtype=np.float32) * np.float32(scanner.noise)
    stored = np.hypot(signal + noise[0], noise[1])
    return np.asarray(np.round(np.clip(stored, 0, 1) * 255), np.uint8)


def _value(name: str) -> Plane:
    return np.array(_SHOWN[name], np.float32)[:, None, None]


def _blend(shown: Plane, name: str, share: Plane) -> Plane:
    """Part of the picture becomes `name`: partial volume, never a cut-out."""
    return shown + (_value(name) - shown) * share
