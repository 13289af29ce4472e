"""One uninterrupted run of the smallest federation, which those that were broken off are compared with."""

import pytest

from fedsynth.federation import client_app
from fedsynth.runs import Run
from tests.federation.tiny import SETTINGS, simulated


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """To be read only."""
    run = simulated(tmp_path_factory.mktemp("uninterrupted"), SETTINGS)
    client_app.forget_everything()
    return run
