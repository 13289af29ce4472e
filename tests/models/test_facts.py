"""What a family states of itself agrees with what building it shows."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from fedsynth.errors import FedSynthError
from fedsynth.models import facts
from fedsynth.models.base import ImageShape, global_randomness
from fedsynth.models.facts import stated_facts
from fedsynth.models.generators.catalog import catalog, find
from fedsynth.privacy.plan import PrivateSettings
from fedsynth.training.dp_gradients import PrivateParts, private_phases

FACTS = stated_facts()


def built_privately(name: str) -> str:
    """The path of each network that reads patients, tried on made-up samples."""
    entry = find(name)
    shape = ImageShape(channels=1, size=(32, 32), n_classes=2, n_labels=2, channel_names=("t1",))
    with global_randomness(0):
        family = entry.build(shape, private=True)
    settings = PrivateSettings(epsilon=8.0, delta=1e-5, patients=1000, batch=250)
    parts = PrivateParts(family, settings, augmentation=None)
    paths = {phase.net: parts.real[phase.net].path(family.stages()[-1]).name for phase in private_phases(family)}
    return ", ".join(f"{net}: {path}" for net, path in paths.items())


def test_every_family_is_listed_with_its_texts() -> None:
    assert list(FACTS) == list(catalog())
    for name, entry in catalog().items():
        facts = FACTS[name]
        assert (facts.summary, facts.kind) == (entry.summary, entry.kind)
        assert (facts.private, facts.not_private) == (entry.private, entry.not_private)
        assert bool(facts.private) + bool(facts.not_private) == (entry.kind != "paired" or name == "render-vae"), name


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name, facts in FACTS.items() if "map" in facts.private or "path" in facts.private]
)
def test_private_families_train_as_they_state(name: str) -> None:
    assert built_privately(name) == FACTS[name].private


@pytest.mark.parametrize("name", [name for name, facts in FACTS.items() if facts.not_private])
def test_families_that_are_not_private_are_refused_with_their_reason(name: str) -> None:
    from fedsynth.models.generators.catalog import build

    shape = ImageShape(channels=1, size=(32, 32), source_channels=1)
    with pytest.raises(FedSynthError, match=FACTS[name].not_private):
        build(name, shape, private=True)


def test_listing_loads_no_network_library() -> None:
    code = "import sys; from fedsynth.cli import app; app(['list', 'generators'], standalone_mode=False)"
    code += "; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "stylegan3" in done.stdout


def test_sites_asking_in_threads_at_once_read_each_file_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.11 raises SystemError where two threads parse at a time."""
    read: list[Path] = []
    parse = facts._read
    monkeypatch.setattr(facts, "_read", lambda file: read.append(file) or parse(file))
    facts._stated_in.cache_clear()
    together = Barrier(8)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: together.wait() * 0 + len(stated_facts()), range(8)))
    assert set(found) == {len(FACTS)}
    assert sorted(read) == sorted(facts.FAMILIES.glob("*.py"))
