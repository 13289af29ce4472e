"""How a glioma grows in a brain: its extent, its parts and how it pushes. Knows nothing of grey values or files.

The extent is a level, in millimetres from the centre, made uneven by smooth noise and raised where growth is resisted:
oedema runs along white matter and spares the cortex, nothing grows into the ventricles. Every part is a soft share.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedsynth.data.phantoms.anatomy import Tissue
from fedsynth.data.phantoms.appearance import Lesions
from fedsynth.data.phantoms.atlas import Atlas
from fedsynth.data.phantoms.random_fields import Lattice, Plane, Viewport, draw_lattice

Grade = Literal["low-grade", "high-grade"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Tumour:
    """One lesion. Lengths are millimetres.

    `centre_mm` is an atlas point, `stretch` (3 x 3) makes the ball an ellipsoid. The core ends `core_mm` from the
    centre, the oedema `oedema_mm` (none: 0). The enhancing rim is `rim_mm` thick (none: 0) and dark inside; a
    low-grade core may hold an enhancing nodule of `nodule_mm` (none: 0) at `nodule_at`. `edge_mm` is how gradually
    the core ends. `push` (0 to 1) is the mass effect. `shape` is broad and `detail` fine unevenness (core, oedema,
    rim). The remaining shares say how strongly it shows in each channel (`shows`) and part.
    """

    grade: Grade
    centre_mm: NDArray[np.float32]
    stretch: NDArray[np.float32]
    core_mm: float
    oedema_mm: float
    rim_mm: float
    nodule_mm: float
    nodule_at: NDArray[np.float32]
    edge_mm: float
    push: float
    shape: Lattice
    detail: Lattice
    shows: NDArray[np.float32]
    core_shows: float
    rim_shows: float
    mismatch: float

    @property
    def reach_mm(self) -> float:
        """How far the lesion extends from its centre, about."""
        return max(self.core_mm, 0.6 * self.oedema_mm)


@dataclass(frozen=True, kw_only=True, eq=False)
class Growth:
    """A lesion on one plane: soft shares of 0 to 1, each (rows, columns), the later parts inside the earlier ones.

    `whole` is oedema and core together; of the core, `enhancing` and `necrosis` are parts, the rest is solid tumour.
    `texture` is uneven about 0 with variance about 1.
    """

    whole: Plane
    core: Plane
    enhancing: Plane
    necrosis: Plane
    texture: Plane


def draw_tumour(rng: np.random.Generator, grade: Grade, atlas: Atlas, lesions: Lesions) -> Tumour:
    """One lesion of the grade, somewhere in the white matter of a hemisphere."""
    high = grade == "high-grade"
    core_mm = lesions.size * float(rng.uniform(14.0, 26.0) if high else rng.uniform(19.0, 32.0))
    nodule = not high and rng.random() < 0.06
    direction = rng.standard_normal(3)
    return Tumour(
        grade=grade,
        centre_mm=atlas.deep_white[rng.integers(len(atlas.deep_white))],
        stretch=_draw_stretch(rng),
        core_mm=core_mm,
        oedema_mm=core_mm + lesions.size * float(rng.uniform(8.0, 22.0)) if high else 0.0,
        rim_mm=float(np.clip(rng.uniform(6.5, 10.0), 0, 0.55 * core_mm)) if high else 0.0,
        nodule_mm=float(rng.uniform(3.0, 5.0)) if nodule else 0.0,
        nodule_at=(direction / np.linalg.norm(direction) * 0.4 * core_mm).astype(np.float32),
        edge_mm=lesions.edge * float(rng.uniform(0.8, 1.4) if high else rng.uniform(1.5, 3.2)),
        push=float(rng.uniform(0.45, 0.85) if high else rng.uniform(0.05, 0.35)),
        shape=draw_lattice(rng, 18.0, 3),
        detail=draw_lattice(rng, 6.0, 4),
        shows=(rng.uniform(0.8, 1.05) * rng.uniform(0.85, 1.15, 4)).astype(np.float32),
        core_shows=float(rng.uniform(0.85, 1.0)),
        rim_shows=float(rng.uniform(0.75, 1.05)),
        mismatch=float(rng.uniform(0.3, 0.7)) if not high and rng.random() < 0.3 else 0.0,
    )


def push_tissue(tumour: Tumour, points: Plane, depth: Plane) -> Plane:
    """Where the tissue at `points` was before the mass pushed it outwards; the skull does not give way."""
    away = points - tumour.centre_mm[:, None, None]
    reach = 1.4 * tumour.core_mm
    squeezed = tumour.push * np.exp(-np.sum(away**2, axis=0) / reach**2)
    moved: Plane = points - away * squeezed * np.clip(depth / 14, 0, 1)
    return moved


def grow(tumour: Tumour, tissue: Tissue, view: Viewport, plane: int) -> Growth:
    """The lesion on one plane of its patient."""
    away = tissue.points - tumour.centre_mm[:, None, None]
    distance = np.sqrt(np.sum(np.einsum("ij,jrc->irc", tumour.stretch, away) ** 2, axis=0))
    broad, detail = tumour.shape.plane(view, plane), tumour.detail.plane(view, plane)
    _, white, ventricle = tissue.surroundings
    grey_resists = np.maximum(0.75 - white, 0)
    level = distance + tumour.core_mm * (0.2 * broad[0] + 0.09 * detail[0]) + 4 * grey_resists + 25 * ventricle
    core = _inside(tumour.core_mm - level, tumour.edge_mm)
    rim = tumour.rim_mm * (1 + 0.5 * np.tanh(0.8 * broad[2] + 0.5 * detail[2]))
    necrosis = _inside(tumour.core_mm - rim - level, 1.0)
    if tumour.grade == "high-grade":
        spread = distance + tumour.oedema_mm * 0.16 * broad[1] + 1.5 * detail[1] + 22 * grey_resists + 25 * ventricle
        whole = np.maximum(_inside(tumour.oedema_mm - spread, 2.0), core)
        enhancing = core * (1 - necrosis)
    else:
        whole, necrosis = core, np.zeros_like(core)
        nodule = np.sqrt(np.sum((away - tumour.nodule_at[:, None, None]) ** 2, axis=0)) + detail[2]
        enhancing = core * _inside(tumour.nodule_mm - nodule, 0.8) * (tumour.nodule_mm > 0)
    alive = tissue.brain * (1 - tissue.csf)
    solid = tissue.brain
    return Growth(
        whole=np.maximum(whole * alive, core * solid),
        core=core * solid,
        enhancing=enhancing * solid,
        necrosis=core * necrosis * solid,
        texture=detail[3],
    )


def _inside(margin_mm: Plane, edge_mm: float) -> Plane:
    share: Plane = 1 / (1 + np.exp(np.clip(-margin_mm / np.float32(edge_mm), -30, 30)))
    return share


def _draw_stretch(rng: np.random.Generator) -> NDArray[np.float32]:
    """A symmetric matrix of determinant 1: an ellipsoid in a random direction, axes within a third of each other."""
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    axes = np.exp(np.clip(rng.normal(0.0, 0.18, 3), -0.35, 0.35))
    stretch: NDArray[np.float32] = (turn * (axes / np.prod(axes) ** (1 / 3)) @ turn.T).astype(np.float32)
    return stretch
