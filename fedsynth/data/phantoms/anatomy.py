"""The healthy anatomy of one patient: the atlas, bent. Knows nothing of tumours' looks, scanners or files."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsynth.data.phantoms.atlas import Atlas
from fedsynth.data.phantoms.random_fields import CENTRE_MM, Lattice, Plane, Viewport, draw_lattice

Push = Callable[[Plane, Plane], Plane]
"""What a growing mass does to the tissue around it: atlas points and depth below the surface to atlas points."""

_CENTRE = np.array(CENTRE_MM, np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class Anatomy:
    """Everything that makes one head differ from the next.

    `to_atlas` turns and scales (3 x 3), `shift_mm` moves; `broad` and `fine` bend by `broad_mm` and `fine_mm`
    (standard deviations). `ventricles` above 0 widens the ventricles, `atrophy` the sulci; `folding` draws sulci and
    the grey ribbon anew (maps: fluid, white); `caps` is how bright the white matter beside the ventricles has become.
    """

    to_atlas: NDArray[np.float32]
    shift_mm: NDArray[np.float32]
    broad: Lattice
    fine: Lattice
    folding: Lattice
    broad_mm: float
    fine_mm: float
    ventricles: float
    atrophy: float
    caps: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Tissue:
    """One plane of a patient: shares of csf, grey, white and brain (rows, columns), and where each pixel lies.

    `points` are atlas millimetres before a mass pushed, `outline` those of the head around the brain, which bends less;
    `surroundings` are the atlas' maps there (depth, smooth white,
    smooth ventricles).
    """

    csf: Plane
    grey: Plane
    white: Plane
    brain: Plane
    points: Plane
    outline: Plane
    surroundings: Plane


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """One head of the population."""
    size = 1 / (rng.normal(1.0, 0.035) * (1 + rng.normal(0.0, 0.025, 3)))
    turn = rotation(np.radians(rng.normal(0.0, (2.5, 2.0, 4.0))))
    return Anatomy(
        to_atlas=(np.clip(size, 0.88, 1.15)[:, None] * turn).astype(np.float32),
        shift_mm=np.clip(rng.normal(0.0, (1.5, 2.0, 2.5)), -5, 5).astype(np.float32),
        broad=draw_lattice(rng, 44.0, 3),
        fine=draw_lattice(rng, 17.0, 3),
        folding=draw_lattice(rng, 6.5, 2),
        broad_mm=float(rng.uniform(2.0, 3.5)),
        fine_mm=float(rng.uniform(1.0, 1.7)),
        ventricles=float(np.clip(rng.normal(0.25, 0.55), -0.8, 1.6)),
        atrophy=float(np.clip(rng.normal(0.0, 0.5), -1.0, 1.2)),
        caps=float(np.clip(rng.normal(0.1, 0.25), 0.0, 0.8)),
    )


def tissue_plane(anatomy: Anatomy, atlas: Atlas, view: Viewport, plane: int, push: Push | None = None) -> Tissue:
    """The patient's tissues on one axial plane, with a mass pushing them if there is one."""
    broad, linear = anatomy.broad_mm * anatomy.broad.plane(view, plane), _linear(anatomy, view.points(plane))
    points = linear + broad + anatomy.fine_mm * anatomy.fine.plane(view, plane)
    around = atlas.surroundings.at(points)
    points = points + np.float32(VENTRICLE_MM2 * anatomy.ventricles) * around[3:]
    seen = points if push is None else push(points, around[0])
    csf, grey, white, brain = atlas.tissue.at(seen)
    fluid, myelin = anatomy.folding.plane(view, plane)
    near_surface = np.exp(-around[0] / 12)
    csf = csf * np.exp((anatomy.atrophy + 0.8 * fluid) * near_surface)
    white = white * np.exp(0.25 * myelin)
    shares = np.stack([csf, grey, white]) ** 1.6
    shares *= brain / np.maximum(shares.sum(axis=0), 1e-6)
    return Tissue(
        csf=shares[0],
        grey=shares[1],
        white=shares[2],
        brain=brain,
        points=points,
        outline=linear + 0.7 * broad,
        surroundings=around[:3],
    )


VENTRICLE_MM2 = 40.0
"""How far one unit of `Anatomy.ventricles` moves the walls, per unit of slope of the smoothed ventricles."""


def from_atlas(anatomy: Anatomy, target: NDArray[np.float32]) -> NDArray[np.float64]:
    """The position in the viewport whose tissue comes from the atlas point `target`, to a fraction of a millimetre.

    Solved by fixed point: the bend is gentle. Ventricles and masses are left out, they hardly move what this is for
    (which planes show the tumour).
    """
    inverse = np.linalg.inv(anatomy.to_atlas.astype(np.float64))
    point = np.zeros(3)
    for _ in range(12):
        bent = anatomy.broad_mm * anatomy.broad.at(point) + anatomy.fine_mm * anatomy.fine.at(point)
        point = inverse @ (target - _CENTRE - anatomy.shift_mm - bent)
        point = np.clip(point, -100, 100)
    return point


def _linear(anatomy: Anatomy, points: Plane) -> Plane:
    moved: Plane = np.einsum("ij,jrc->irc", anatomy.to_atlas, points)
    moved += (_CENTRE + anatomy.shift_mm)[:, None, None]
    return moved


def rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turns about x (nod), y (tilt) and z (yaw), in radians, one after the other."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    nod = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    tilt = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    yaw = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    turn: NDArray[np.float64] = yaw @ tilt @ nod
    return turn
