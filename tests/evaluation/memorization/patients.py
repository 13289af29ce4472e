"""Cohorts of made-up patients with a feature vector per image, as the tests of attacks need them."""

import numpy as np

from fedsynth.evaluation.cohort import Cohort

Rows = np.ndarray


def cohort(n_members: int, n_holdout: int, *, seed: int = 0, sites: int = 1, **changes: object) -> Cohort:
    """Patients whose roles are drawn at random within sites of equal size."""
    rng = np.random.default_rng([seed, *b"cohort"])
    n = n_members + n_holdout
    site = np.arange(n) % sites
    members = np.zeros(n, bool)
    order = rng.permutation(n)
    members[order[:n_members]] = True
    values: dict[str, object] = {
        "names": tuple(f"p{i:05d}" for i in range(n)),
        "member": members,
        "stratum": site,
        "site": site,
        "sites": tuple(f"site {i}" for i in range(sites)),
    }
    return Cohort(**(values | changes))


def features(
    n_patients: int, images: int, *, seed: int, width: int = 16, likeness: float = 0.5
) -> tuple[Rows, Rows, Rows]:
    """Images of a Gaussian population, whose patient each is, and what the images of each patient share."""
    rng = np.random.default_rng([seed, *b"features"])
    shared = rng.normal(size=(n_patients, 1, width)) * np.sqrt(likeness)
    rows = shared + rng.normal(size=(n_patients, images, width)) * np.sqrt(1 - likeness)
    patients = np.repeat(np.arange(n_patients), images)
    return rows.reshape(-1, width).astype(np.float32), patients, shared[:, 0].astype(np.float32)
