"""Real and synthetic images so small that a sheet of them is read by hand."""

from dataclasses import replace

import numpy as np

from fedsynth.data import ImageSet
from tests.training.tiny import tiny_set


def real_and_synthetic(patients: int = 12, slices: int = 2) -> tuple[ImageSet, ImageSet]:
    """Half of the patients are members; every second image of a synthetic set has no tumour."""
    images = tiny_set(patients=patients, slices=slices)
    number = images.cases["patient"].str[1:].astype(int)
    role = np.where(number < patients // 2, "member", "holdout")
    real = images.with_cases(images.cases.assign(role=role, case="real-" + images.cases["case"]))
    rng = np.random.default_rng(1)
    masks = rng.integers(0, 2, images.masks.shape, dtype=np.uint8)
    masks[::2] = 0
    cases = images.cases.assign(patient="", site="", role="", case="made-" + images.cases["case"])
    made = replace(
        images,
        header=replace(images.header, origin="synthetic", split=None),
        cases=cases,
        images=rng.integers(0, 256, images.images.shape, dtype=np.uint8),
        masks=masks,
    )
    return real, made
