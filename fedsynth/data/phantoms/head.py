"""What surrounds a brain: fluid, bone with its marrow, scalp, face and eyes. Knows nothing of scanners.

The layers lie at given distances from the atlas brain's outer surface; the face is an ellipsoid below and before it.
All of it bends with the patient's anatomy.
"""

from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fedsynth.data.phantoms.anatomy import Anatomy, Tissue, rotation
from fedsynth.data.phantoms.appearance import Head
from fedsynth.data.phantoms.atlas import Atlas, Grid
from fedsynth.data.phantoms.random_fields import Plane

_STEP_MM = 4.0
_LOW, _HIGH = np.array([-132.0, -164.0, -140.0]), np.array([132.0, 140.0, 148.0])
_FACE, _FACE_RADII = (0.0, 34.0, -56.0), (68.0, 58.0, 66.0)
_EYES, _EYE_MM, _ORBIT_MM = ((-31.0, 61.0, -27.0), (31.0, 61.0, -27.0)), 12.0, 19.0

_SHOWN = {
    "fluid": (0.12, 0.95, 0.07, 0.13),
    "bone": (0.05, 0.05, 0.04, 0.05),
    "marrow": (0.80, 0.60, 0.60, 0.85),
    "fat": (1.00, 0.80, 0.85, 1.00),
    "muscle": (0.42, 0.28, 0.32, 0.55),
    "eye": (0.14, 0.92, 0.08, 0.15),
    "lens": (0.45, 0.25, 0.35, 0.50),
}
"""Values of each tissue in the order of the channels, before any scanner."""


def framed(anatomy: Anatomy, head: Head) -> Anatomy:
    """The same head, lying in the picture as `head` says."""
    scale = 1 / (head.zoom * np.array([head.aspect, 1 / head.aspect, 1.0]) ** 0.5)
    nod = rotation(np.radians([head.nod_degrees, 0.0, 0.0]))
    to_atlas = anatomy.to_atlas @ nod @ np.diag(scale)
    shift = anatomy.shift_mm - to_atlas @ np.array([head.right_mm, head.front_mm, 0.0])
    return replace(anatomy, to_atlas=to_atlas.astype(np.float32), shift_mm=shift.astype(np.float32))


@lru_cache(maxsize=1)
def _distances(atlas: Atlas) -> Grid:
    """Millimetres outside the brain's hull, on a coarse grid that holds every head."""
    line = [np.arange(low, high + 1, _STEP_MM, dtype=np.float32) for low, high in zip(_LOW, _HIGH, strict=True)]
    brain = atlas.tissue.at(np.stack(np.meshgrid(*line, indexing="ij")))[3]
    hull = ndimage.gaussian_filter(ndimage.binary_closing(brain > 0.4, iterations=4), 1.0, output=np.float32) > 0.5
    out, within = (ndimage.distance_transform_edt(part, sampling=_STEP_MM) for part in (~hull, hull))
    distance = np.where(hull, _STEP_MM / 2 - within, out - _STEP_MM / 2)
    return Grid(maps=distance.astype(np.float32)[..., None], step_mm=_STEP_MM, low=_LOW)


def show_head(shown: Plane, tissue: Tissue, head: Head, atlas: Atlas, uneven: Plane) -> tuple[Plane, Plane]:
    """The picture with all that surrounds its brain, and where there is any tissue at all (0 to 1).

    `uneven` is a smooth random map: it mixes fat, muscle and air in the face and makes the bone vary.
    """
    points = tissue.outline
    clipped = np.clip(points, _LOW[:, None, None], _HIGH[:, None, None]).astype(np.float32)
    outside = _distances(atlas).at(clipped)[0]
    level = np.sqrt(sum(((points[i] - _FACE[i]) / np.float32(_FACE_RADII[i])) ** 2 for i in range(3)))
    face = (1 - level) * np.float32(58)
    skin = head.gap_mm + head.skull_mm + head.scalp_mm
    layers = _layers(_soft_tissue(points, face, head, uneven), outside, head, uneven)
    layers = _orbits(layers, points, _value("fat") * np.float32(head.fat))
    there = np.maximum(_ramp(skin - outside, 1.0), _ramp(face, 1.0))
    whole = shown + layers * (there * (1 - tissue.brain))
    return whole.astype(np.float32, copy=False), np.maximum(there, tissue.brain).astype(np.float32, copy=False)


def _soft_tissue(points: Plane, face: Plane, head: Head, uneven: Plane) -> Plane:
    """Muscle and fat, with air in the middle of the face and fat beneath its skin."""
    fat, muscle = _value("fat") * np.float32(head.fat), _value("muscle")
    hollow = _ramp(face - 14, 3) * _ramp(36 - np.abs(points[0]), 5)
    air = hollow * _ramp(np.float32(head.air - 0.85) + np.float32(0.6) * uneven**2, 0.15)
    mixed = _mix(muscle, fat, _ramp(uneven + np.float32(0.2), 0.3)) * (1 - air)
    return np.where(face < 8, fat, mixed)


def _layers(soft: Plane, outside: Plane, head: Head, uneven: Plane) -> Plane:
    """Scalp, bone and fluid over the soft tissue, from the skin inwards."""
    inner = np.float32(head.gap_mm)
    outer = inner + np.float32(head.skull_mm) * (1 + np.float32(0.2) * uneven)
    skin = np.float32(head.gap_mm + head.skull_mm + head.scalp_mm)
    fat, muscle = _value("fat") * np.float32(head.fat), _value("muscle")
    deep = _ramp(skin - np.float32(0.45 * head.scalp_mm) - outside, 1.5) * _ramp(uneven + np.float32(0.2), 0.3)
    scalp = _mix(fat, muscle, deep)
    scalp = np.where(outside > skin - np.float32(1.2), np.float32(0.6) * scalp, scalp)
    middle = np.exp(-(((outside - (inner + outer) / 2) / np.float32(0.22 * head.skull_mm + 0.3)) ** 2))
    bone = _mix(_value("bone"), _value("marrow") * np.float32(head.marrow), middle)
    layers = _mix(soft, scalp, _ramp(skin - outside, 1.0))
    layers = _mix(layers, bone, _ramp(outer - outside, 0.8))
    return _mix(layers, _value("fluid"), _ramp(inner - outside, 0.8))


def _orbits(layers: Plane, points: Plane, fat: Plane) -> Plane:
    for x, y, z in _EYES:
        away = np.sqrt((points[0] - x) ** 2 + (points[1] - y) ** 2 + (points[2] - z) ** 2)
        behind = np.sqrt((points[0] - 0.8 * x) ** 2 + (points[1] - y + 16) ** 2 + (points[2] - z) ** 2)
        layers = _mix(layers, fat, _ramp(_ORBIT_MM - behind, 1.0))
        nerve = np.hypot(points[0] - 0.8 * x + (points[1] - y + 16) * 0.2 * np.sign(-x), points[2] - z)
        layers = _mix(layers, _value("muscle"), _ramp(2.5 - nerve, 0.8) * _ramp(_ORBIT_MM - behind, 1.0))
        layers = _mix(layers, _value("lens"), _ramp(_EYE_MM + 1.5 - away, 0.6))
        layers = _mix(layers, _value("eye"), _ramp(_EYE_MM - 0.8 - away, 0.6))
        lens = np.sqrt((points[0] - x) ** 2 + ((points[1] - y - 8) * 2) ** 2 + (points[2] - z) ** 2)
        layers = _mix(layers, _value("lens"), _ramp(4.5 - lens, 0.6))
    return layers


def _mix(below: Plane, above: Plane, share: Plane) -> Plane:
    return below + (above - below) * share


def _ramp(margin: Plane, soft: float) -> Plane:
    """0 outside, 1 inside, soft over a few `soft`."""
    share: Plane = 1 / (1 + np.exp(np.clip(-margin / np.float32(soft), -30, 30)))
    return share


def _value(name: str) -> NDArray[np.float32]:
    return np.array(_SHOWN[name], np.float32)[:, None, None]
