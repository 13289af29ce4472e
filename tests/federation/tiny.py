"""A smallest simulated federation on disk: a run directory whose hospitals share out a tiny set."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np

from fedsynth.data import ImageSet
from fedsynth.data.site_config import Select, SiteEntry, SitesFile
from fedsynth.federation import client_app
from fedsynth.federation.rounds import Watch
from fedsynth.federation.settings import FederationSettings
from fedsynth.federation.simulation import begin, open_hospitals, run_rounds
from fedsynth.runs import Run
from fedsynth.training.settings import Privacy
from tests.training.tiny import tiny_set

SETTINGS = FederationSettings(
    generator="mlp",
    sites=2,
    rounds=3,
    local_steps=2,
    batch=4,
    options={"latent": 4, "hidden": [8, 8], "discriminator_hidden": [8]},
)
INSECURE = Privacy(epsilon=8.0, patients=6, expected_batch_size=3, fakes=4, delta=1e-3, insecure_seed=5)


def private(tmp_path: Path, *, insecure: bool = True) -> FederationSettings:
    seed = 5 if insecure else None
    privacy = replace(INSECURE, insecure_seed=seed, store=tmp_path / "store")
    return replace(SETTINGS, batch=None, privacy=privacy)


def hospitals(folder: Path, sites: int = 2, patients: int = 9, images: ImageSet | None = None) -> SitesFile:
    """The set on disk and a sites file that gives patient i to site i modulo their number."""
    if not (folder / "set").exists():
        (tiny_set(patients=patients) if images is None else images).save(folder / "set")
    held = ImageSet.load(folder / "set")
    people = sorted(set(held.cases["patient"]))
    entries = [SiteEntry(name=f"site-{i}", select=Select(patient=tuple(people[i::sites]))) for i in range(sites)]
    return SitesFile(name="tiny", images=folder / "set", site=tuple(entries))


def site_images(tmp_path: Path, site: int, sites: int = 2) -> ImageSet:
    """What `hospitals` gave to that site."""
    held = ImageSet.load(tmp_path / "set")
    return held.select(patient=sorted(set(held.cases["patient"]))[site::sites])


def start(tmp_path: Path, settings: FederationSettings, name: str = "run", **options: object) -> Run:
    with open_hospitals(hospitals(tmp_path, settings.sites, **options), tmp_path) as opened:  # type: ignore[arg-type]
        return begin(settings, opened, tmp_path / name)


def go(run: Run, settings: FederationSettings, *, workers: int = 1, watch: Watch = lambda progress: None) -> None:
    run_rounds(settings, run, workers=workers, watch=watch)


def simulated(tmp_path: Path, settings: FederationSettings, name: str = "run", *, workers: int = 1) -> Run:
    run = start(tmp_path, settings, name)
    go(run, settings, workers=workers)
    return run


def killed_after(tmp_path: Path, settings: FederationSettings, rounds: int, name: str = "broken") -> Run:
    """A run whose server died after the replies of a round, and whose sites forgot what was in memory."""
    run = start(tmp_path, settings, name)

    class Killed(Exception):
        pass

    def watch(progress) -> None:  # type: ignore[no-untyped-def]
        if progress.replies and progress.round == rounds:
            raise Killed

    try:
        go(run, settings, watch=watch)
    except Killed:
        client_app.forget_everything()
        return run
    raise AssertionError("nobody was killed")


def weights(run: Run) -> dict[str, np.ndarray]:
    """Everything that the run released."""
    from safetensors.numpy import load_file

    files = sorted(run.checkpoints.glob("*.safetensors"))
    return {f"{file.stem} {name}": value for file in files for name, value in load_file(file).items()}


def assert_same(one: Run, other: Run) -> None:
    here, there = weights(one), weights(other)
    assert here.keys() == there.keys()
    assert here
    for name, value in here.items():
        assert np.array_equal(value, there[name]), name


def rows(run: Run) -> list[dict[str, str]]:
    with run.rounds.open(newline="") as file:
        return list(csv.DictReader(file))
