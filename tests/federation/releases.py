"""Sites that release statistics of pictures: the smallest pool, and patients who are kept a ledger of."""

from pathlib import Path

from fedsynth.data import ImageSet
from fedsynth.data.phantoms.cohort import make_phantoms
from fedsynth.data.phantoms.settings import PhantomSettings
from fedsynth.federation.settings import FederationSettings
from fedsynth.training.settings import Privacy

POOL = {"pool": 30, "slices": 1, "children": 20, "generations": 1}


def unmarked_patients(folder: Path) -> ImageSet:
    """Phantoms that are not marked as such, so that a ledger is kept."""
    made = make_phantoms(folder / "made", PhantomSettings(patients=24, slices=2, size=16, sites=1), workers=1)
    return made.with_cases(made.cases.assign(role="member"), provenance={"source": "a test"})


def release_settings(tmp_path: Path, **changes: object) -> FederationSettings:
    privacy = Privacy(epsilon=8.0, patients=12, store=tmp_path / "store")
    table = {"rounds": 1, "local_steps": 1, "options": POOL, "privacy": privacy, "count": 6}
    return FederationSettings(generator="fitted-simulator", **(table | changes))  # type: ignore[arg-type]
