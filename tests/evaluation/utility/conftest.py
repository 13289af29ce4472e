"""One real set for all tests of the utility benchmark: forty phantom patients at two hospitals. To be read only."""

import pytest

from fedsynth.data.phantoms.cohort import make_phantoms
from fedsynth.data.phantoms.settings import PhantomSettings
from fedsynth.evaluation.utility import patient_scores


@pytest.fixture(scope="session")
def real(tmp_path_factory):
    settings = PhantomSettings(size=32, patients=40, slices=3, sites=2)
    return make_phantoms(tmp_path_factory.mktemp("set") / "set", settings, workers=1)


@pytest.fixture(scope="session")
def half(real):
    """The same patients, half of the members in the holdout too: enough at each site for a number of its own."""
    members = sorted(set(real.select(role="member").cases["patient"]))
    cases = real.cases
    return real.with_cases(cases.assign(role=cases["role"].mask(cases["patient"].isin(members[::2]), "holdout")))


@pytest.fixture
def few_draws(request, monkeypatch):
    """Intervals by hand are tested with `measure`."""
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr(patient_scores, "REPEATS", 40)
