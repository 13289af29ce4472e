"""What a phantom cohort will hold, told in a moment without drawing a single image."""

from collections.abc import Sequence

import pandas as pd

from fedsynth.images.check import COLUMNS
from fedsynth.images.phantom.cohort import PhantomSettings
from fedsynth.images.phantom.patient import draw_class
from fedsynth.images.phantom.scanner import Hospital
from fedsynth.images.split import draw_roles


def expected_cases(settings: PhantomSettings, hospitals: Sequence[Hospital]) -> pd.DataFrame:
    """The table that `make_phantoms` will write, in its order; only case names and slice numbers are not known yet."""
    rows = []
    for index in range(settings.patients):
        hospital = hospitals[index % len(hospitals)]
        label, _ = draw_class(settings.seed, index, hospital.case_mix)
        named = {"patient": f"phantom-{index:05d}", "site": hospital.name, "role": "", "class": label, "slice": ""}
        count = settings.slices if settings.dimensions == 2 else 1
        rows += [named | {"case": f"phantom-{index:05d} image {k + 1}"} for k in range(count)]
    return draw_roles(pd.DataFrame(rows, columns=list(COLUMNS), dtype=str), settings.shares, settings.seed)[0]
