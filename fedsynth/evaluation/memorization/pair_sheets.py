"""Pair sheets: synthetic images beside the patients they come nearest to, so that a person can judge for himself.

They show patients. Every sheet holds images of one site only and is written to that site's own folder, marked so.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from fedsynth import atomic_files
from fedsynth.data import ImageSet
from fedsynth.data.contact_sheet import note_of
from fedsynth.data.lazy_arrays import take
from fedsynth.data.montage import Cell, Pixels, Section, as_tile, montage
from fedsynth.data.preprocessing import upright
from fedsynth.evaluation.evidence import Evidence
from fedsynth.evaluation.memorization.benchmark import Memorization
from fedsynth.evaluation.memorization.distance_tables import MeasuredSpace, queries, real_tables, tables
from fedsynth.evaluation.memorization.replication import Striking, most_striking
from fedsynth.evaluation.multiple_testing import conformal_p
from fedsynth.evaluation.nearest_neighbours import nearest

SHOWN = 8
HEADS = ("synthetic", "nearest member", "nearest holdout", "difference")
HONEST = ("a holdout image", *HEADS[1:])


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pair:
    """An image with its nearest real ones: rows of the real set and distances; None where the site has no such."""

    space: str
    member: tuple[int, float]
    holdout: tuple[int, float] | None
    ratio: float
    p: float


def write_pairs(found: Memorization, report: Path | None = None) -> list[Path]:
    """One sheet per site whose patients anything comes near to: into the run's site folders, or below `report`."""
    evidence, people = found.evidence, found.evidence.cohort
    output = most_striking(tables(found.measured), found.reference)
    real = most_striking(real_tables(found.measured), found.reference)
    calibration = np.array([_middle(real.surprise, evidence.patient_of == held) for held in _held(evidence)])
    paths = []
    for number, site in enumerate(people.sites):
        path = _folder(found, site, report) / "pairs.png"
        sheet = _sheet(found, number, output, real, calibration)
        if sheet is not None:
            atomic_files.write_bytes(path, sheet)
            paths.append(path)
    return paths


def _sheet(
    found: Memorization, site: int, output: Striking, real: Striking, calibration: NDArray[np.float64]
) -> bytes | None:
    evidence, people = found.evidence, found.evidence.cohort
    of_site = np.flatnonzero(people.site[output.patients] == site)
    held = np.flatnonzero((people.site == site)[evidence.patient_of] & ~people.member[evidence.patient_of])
    if not len(of_site) or not (people.member & (people.site == site)).any():
        return None
    rng = np.random.default_rng([found.settings.seed, *b"pairs"])
    by_surprise = of_site[np.lexsort((-output.surprise[of_site], ~output.copied[of_site]))]
    parts = [
        ("worst: nearest to a patient of this site", evidence.synthetic, output, by_surprise[:SHOWN], False),
        ("drawn at random", evidence.synthetic, output, rng.permutation(of_site)[:SHOWN], False),
    ]
    if len(held):
        worst = held[np.argsort(-real.surprise[held], kind="stable")][:SHOWN]
        parts.append(
            ("honest control, worst: holdout patients, who cannot be copies", evidence.real, real, worst, True)
        )
    sections = []
    for title, images, striking, rows, honest in parts:
        pairs = list(_pairs(found, images, striking, rows, site, calibration, honest))
        cells = [_cell(evidence, images, row, pair) for row, pair in zip(rows.tolist(), pairs, strict=True)]
        sections.append(Section(title=title, cells=cells, heads=HONEST if honest else HEADS))
    channel = evidence.real.header.channels[_channel(evidence.real)]
    title = f"{people.sites[site] or 'one site'}: pairs of synthetic and real images ({channel})"
    picture = montage(sections, title=title, note=note_of(evidence.real.header), columns=2)
    encoded = BytesIO()
    picture.save(encoded, "PNG")
    return encoded.getvalue()


def _pairs(
    found: Memorization,
    images: ImageSet,
    striking: Striking,
    rows: NDArray[np.intp],
    site: int,
    calibration: NDArray[np.float64],
    honest: bool,
) -> Iterable[_Pair]:
    evidence, people = found.evidence, found.evidence.cohort
    here = (people.site == site)[evidence.patient_of]
    is_member = people.member[evidence.patient_of]
    names = list(found.measured)
    p = conformal_p(striking.surprise[rows], calibration)
    for place, row in enumerate(rows.tolist()):
        measured = found.measured[names[striking.spaces[row]]]
        own = evidence.patient_of[row] if honest else -1
        others = here & (evidence.patient_of != own)
        member = _nearest_row(measured, images.rows(np.array([row])), np.flatnonzero(others & is_member))
        holdout = _nearest_row(measured, images.rows(np.array([row])), np.flatnonzero(others & ~is_member))
        assert member is not None
        yield _Pair(
            space=measured.space.name,
            member=member,
            holdout=holdout,
            ratio=float(striking.ratios[row]),
            p=float(p[place]),
        )


def _nearest_row(measured: MeasuredSpace, image: ImageSet, rows: NDArray[np.intp]) -> tuple[int, float] | None:
    if not len(rows):
        return None
    among = take(measured.references, rows)
    found = [nearest(query, among, 1) for query in queries(measured.space, image)]
    distances, indices = min(found, key=lambda one: float(one[0][0, 0]))
    return int(rows[indices[0, 0]]), float(distances[0, 0])


def _cell(evidence: Evidence, images: ImageSet, row: int, pair: _Pair) -> Cell:
    real, channel = evidence.real, _channel(evidence.real)
    shown = _plane(images, row, channel)
    member, turned = _aligned(_plane(real, pair.member[0], channel), shown)
    holdout = np.zeros_like(shown) if pair.holdout is None else _plane(real, pair.holdout[0], channel)
    values = (shown, member, holdout, np.abs(shown - member))
    tiles: list[Pixels] = [as_tile(value) for value in values]
    case, patient = images.cases["case"].iloc[row], real.cases["patient"].iloc[pair.member[0]]
    far = "none" if pair.holdout is None else f"{pair.holdout[1]:.3g}"
    lines = (
        f"{case}, nearest member {patient}{turned}",
        f"{pair.space}: distance {pair.member[1]:.3g}, to holdout {far}; ratio {pair.ratio:.2f}, p = {pair.p:.2g}",
    )
    return Cell(tiles=[tiles], lines=lines)


def _aligned(plane: NDArray[np.float32], to: NDArray[np.float32]) -> tuple[NDArray[np.float32], str]:
    """The picture mirrored as it fits best, and what was done: a mirrored copy would not look like one otherwise."""
    mirrored = {
        "": plane,
        " (mirrored)": plane[:, ::-1],
        " (upside down)": plane[::-1],
        " (turned by half)": plane[::-1, ::-1],
    }
    how = min(mirrored, key=lambda name: float(np.abs(mirrored[name] - to).mean()) - 1e-3 * (name == ""))
    return mirrored[how], how


def _plane(images: ImageSet, row: int, channel: int) -> NDArray[np.float32]:
    """One channel as a picture in [0, 1]; of a volume the middle axial plane."""
    pixels = np.asarray(images.images[row])
    values = np.asarray(pixels / 255 if pixels.dtype == np.uint8 else pixels, np.float32)
    if values.ndim == 4:
        values = np.asarray(upright(values, "axial", values.shape[3] // 2), np.float32)
    return np.asarray(values[channel])


def _channel(images: ImageSet) -> int:
    """The channel with most contrast over a few images."""
    few = np.asarray(images.images[np.linspace(0, len(images) - 1, min(16, len(images))).astype(int)], np.float32)
    return int(np.argmax(few.reshape(*few.shape[:2], -1).std(axis=2).mean(axis=0)))


def _held(evidence: Evidence) -> NDArray[np.intp]:
    return np.flatnonzero(~evidence.cohort.member)


def _middle(surprise: NDArray[np.float64], rows: NDArray[np.bool_]) -> float:
    """Of one holdout patient's images the middle one stands for all: largest would be another kind of draw."""
    own = np.flatnonzero(rows)
    return float(surprise[own[len(own) // 2]])


def _folder(found: Memorization, site: str, report: Path | None) -> Path:
    if report is not None:
        return report / "sites" / quote(site or "one-site", safe=" ")
    run = found.evidence.run
    assert run is not None
    return run.site(site or "one-site") / "memorization"
