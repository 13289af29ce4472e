"""The whole benchmark, as a user runs it, on honest phantom output: which verdict it gives.

A hundred patients with three slices and 300 images keep a repetition at some ten seconds; positive controls and
controls are those of every run.
"""

import zlib

import numpy as np
from leakage import pictures
from leakage.pictures import as_output, hospitals, with_roles

from fedsynth.data import ImageSet
from fedsynth.evaluation.evidence import gather
from fedsynth.evaluation.memorization.benchmark import run_memorization
from fedsynth.evaluation.settings import MemorizationSettings

PATIENTS, IMAGES, SYNTHETIC = 100, 3, 300
TOLERANCE = 0.02
"""Of 300 images without a copy, up to 1.2 % may be copies: a smaller tolerance could never be met."""
SCENARIOS = tuple(name for name in pictures.SCENARIOS if name.startswith("honest"))
COLUMNS = ("verdict", "p_value", "copied", "control", "controls_rejected", "broken", "blind_p", "power", "bound")


def one_run(pool: ImageSet, repetition: int) -> tuple[str, dict[str, object]]:
    """The benchmark on another real set and output, the fidelities in turn."""
    scenario = SCENARIOS[repetition % len(SCENARIOS)]
    of = hospitals(pool, repetition)
    rng = np.random.default_rng([repetition, zlib.crc32(scenario.encode())])
    kept = rng.permutation(np.unique(of.owner))[:PATIENTS]
    rows = np.flatnonzero(np.isin(of.owner, kept))
    place = np.array([np.sum(of.owner[rows][:i] == who) for i, who in enumerate(of.owner[rows])])
    rows = rows[place < IMAGES]
    real = with_roles(of.real.rows(rows), repetition)
    voxels, _ = pictures.SCENARIOS[scenario](of, rng)
    output = as_output(pool, voxels[rng.permutation(len(voxels))[:SYNTHETIC]])
    found = run_memorization(
        gather(ImageSet(header=real.header, cases=real.cases, images=np.asarray(real.images)), output),
        MemorizationSettings(seed=repetition, tolerance=TOLERANCE),
    )
    controls = found.controls.values()
    return scenario, {
        "verdict": found.verdict.verdict,
        "p_value": found.dependence.p_value,
        "copied": found.copies.of(found.evidence.cohort.member),
        "control": found.copies.of(~found.evidence.cohort.member),
        "controls_rejected": "/".join(str(control.fired) for control in controls),
        "broken": sum(not control.holds for control in controls),
        "blind_p": found.blind.p_value,
        "power": found.powers[found.weakest].share if found.weakest else None,
        "bound": found.bound,
    }
