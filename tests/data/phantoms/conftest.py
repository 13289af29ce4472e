"""One cohort for all tests that look at many patients: 100 of them, five slices each, made once."""

from pathlib import Path

import pytest

from fedsynth.data import ImageSet
from fedsynth.data.phantoms.cohort import make_phantoms
from fedsynth.data.phantoms.settings import PhantomSettings


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    folder: Path = tmp_path_factory.mktemp("phantoms") / "cohort"
    return make_phantoms(folder, PhantomSettings(patients=100), workers=1)
