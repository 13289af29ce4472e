"""Controls that need real images alone: negative ones, where holdout images pass as output, and the blind baseline.

They follow from the real set, the spaces and the seed, so that runs of one real set hold them once.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from fedsynth.evaluation.blind_baseline import Blind, blind_baseline, facts_of_images, means_of_patients
from fedsynth.evaluation.evidence import Evidence
from fedsynth.evaluation.memorization import negative_controls as negative
from fedsynth.evaluation.memorization.distance_tables import MeasuredSpace, of_whole_images, real_tables
from fedsynth.evaluation.memorization.negative_controls import Control, Shown
from fedsynth.evaluation.memorization.positive_controls import blurred, change_all, noised
from fedsynth.evaluation.score import content_hash
from fedsynth.evaluation.settings import MemorizationSettings
from fedsynth.evaluation.shared_cache import Form, SharedCache

MOST_SHOWN = 300
"""So many real images are passed off as synthetic in controls."""


@dataclass(frozen=True, kw_only=True)
class OfRealImages:
    """The controls on real images passed off as output, and the blind baseline."""

    honest: tuple[Control, ...]
    blind: Blind


def controls_of_real_images(
    evidence: Evidence,
    measured: Mapping[str, MeasuredSpace],
    person: NDArray[np.int64],
    settings: MemorizationSettings,
    kept: SharedCache,
) -> OfRealImages:
    """Hold them, or take them from `kept`, where the spaces must be this package's own.

    `person` numbers the persons behind the patients, which follows from the real set as well.
    """
    if kept.folder is None:
        return _hold(evidence, measured, person, settings)
    facts = {
        "what": "controls of real images",
        "real": content_hash(evidence.real),
        "header": repr(evidence.real.header),
        "spaces": {name: getattr(of.space, "n_orientations", 0) for name, of in measured.items()},
        "seed": settings.seed,
        "repeats": settings.control_repeats,
    }
    return kept.get(facts, lambda: _hold(evidence, measured, person, settings), CONTROLS)


def _hold(
    evidence: Evidence,
    measured: Mapping[str, MeasuredSpace],
    person: NDArray[np.int64],
    settings: MemorizationSettings,
) -> OfRealImages:
    people, owners, seed = evidence.cohort, evidence.patient_of, settings.seed
    whole, real = of_whole_images(measured), real_tables(measured)
    honest = tuple(
        negative.halves_of_holdout(
            name,
            real,
            shown,
            owners,
            people,
            person=person,
            whole=tuple(whole),
            seed=seed,
            repeats=settings.control_repeats,
        )
        for name, shown in _passed_off(evidence, measured, seed).items()
    )
    features = {name: means_of_patients(space.references, owners, len(people)) for name, space in whole.items()}
    blind = blind_baseline(facts_of_images(evidence.real, people), people, seed=seed, features=features)
    return OfRealImages(honest=honest, blind=blind)


def _passed_off(evidence: Evidence, measured: Mapping[str, MeasuredSpace], seed: int) -> dict[str, Shown]:
    """Real images as honest output: as they are, blurred, noisy. Of large sets a sample."""
    rng = np.random.default_rng([seed, *b"shown"])
    rows = np.sort(rng.permutation(len(evidence.real))[:MOST_SHOWN])
    owners = evidence.patient_of[rows]
    held = {"half of the holdout": Shown(tables=negative.rows_of(real_tables(measured), rows), owners=owners)}
    for name, change in (("blurred holdout", blurred), ("noisy holdout", noised)):
        changed = change_all(evidence.real.rows(rows), change, seed=seed)
        found = {space: of.against(changed, exclude=owners) for space, of in measured.items()}
        held[name] = Shown(tables=found, owners=owners)
    return held


def _write(made: OfRealImages) -> bytes:
    return json.dumps(asdict(made), default=lambda value: value.item()).encode()  # numbers of numpy


def _read(kept: bytes) -> OfRealImages:
    facts = json.loads(kept)
    return OfRealImages(honest=tuple(Control(**one) for one in facts["honest"]), blind=Blind(**facts["blind"]))


CONTROLS = Form(ending=".json", write=_write, read=_read)
