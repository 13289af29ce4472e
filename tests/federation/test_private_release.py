"""Several hospitals release one noised sum each: what leaves, what it costs, and what a restart does."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fedsynth.data import ImageSet
from fedsynth.data.phantoms.cohort import make_phantoms
from fedsynth.data.phantoms.settings import PhantomSettings
from fedsynth.errors import ConfigError, FedSynthError, RefusedError
from fedsynth.federation import client_app
from fedsynth.federation.outputs import finish
from fedsynth.federation.settings import FederationSettings
from fedsynth.models.mixture import SiteMixture
from fedsynth.privacy.ledger import Ledger
from fedsynth.runs import Run, create_run
from fedsynth.training.centralised import run_training
from fedsynth.training.checkpoint import load_generator
from fedsynth.training.session import prepare
from fedsynth.training.settings import Privacy, TrainSettings
from fedsynth.training.site_storage import SiteStorage
from tests.federation.releases import POOL, release_settings, unmarked_patients
from tests.federation.tiny import SETTINGS, go, rows, simulated, site_images, start


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return unmarked_patients(tmp_path_factory.mktemp("patients"))


def settings_for(tmp_path: Path, **changes: object) -> FederationSettings:
    return release_settings(tmp_path, **({"sites": 2} | changes))


def alone(tmp_path: Path, *, patients: int = 20) -> TrainSettings:
    privacy = Privacy(epsilon=8.0, patients=patients, store=tmp_path / "store")
    return TrainSettings(generator="fitted-simulator", images=tmp_path, options=POOL, privacy=privacy)


def released(run: Run, site: str) -> dict[str, torch.Tensor]:
    return load_file(run.site(site) / "release.safetensors")


def federated(tmp_path: Path, settings: FederationSettings, images: ImageSet, name: str = "run") -> Run:
    run = start(tmp_path, settings, name, images=images)
    go(run, settings)
    return run


def test_two_hospitals_release_a_noised_sum_each_and_are_charged_once(tmp_path: Path, patients: ImageSet) -> None:
    settings = settings_for(tmp_path)
    run = federated(tmp_path, settings, patients)
    assert [(row["round"], row["site"], row["charged"]) for row in rows(run)] == [
        ("1", "site-0", "1"),
        ("1", "site-1", "1"),
    ]
    assert all(7.9 < float(row["epsilon"]) <= 8 for row in rows(run))
    for site in ("site-0", "site-1"):
        (charge,) = Ledger(site, tmp_path / "store").charges()
        assert (charge.rate, charge.steps) == (1.0, 1)
        sums = released(run, site)
        assert float(sums["simulator.variance"]) == pytest.approx(1.25 * charge.noise**2)
        assert abs(float(sums["simulator.patients"]) - 12) < 6
    family, card = load_generator(run.checkpoints)
    assert "epsilon 8" in card.privacy
    assert family.nets["simulator"].weights.sum() == pytest.approx(1)
    finish(settings, run)
    made = {name: ImageSet.load(run.folder / name).header.provenance for name in ("synthetic", "placebo", "public")}
    assert made["synthetic"]["privacy"] == card.privacy
    assert "a random direction" in made["placebo"]["privacy"]
    assert card.privacy in made["placebo"]["privacy"]
    assert "no patient" in made["public"]["privacy"]


@pytest.mark.slow
def test_a_release_is_sent_again_and_never_taken_again(tmp_path: Path, patients: ImageSet) -> None:
    settings = settings_for(tmp_path)
    run = federated(tmp_path, settings, patients)
    first = released(run, "site-0")
    for path in run.checkpoints.glob("round-*"):
        path.unlink()
    client_app.forget_everything()
    go(run, settings)
    assert all(torch.equal(first[name], value) for name, value in released(run, "site-0").items())
    assert len(Ledger("site-0", tmp_path / "store").charges()) == 1


def test_a_release_that_was_charged_and_lost_is_refused(tmp_path: Path, patients: ImageSet) -> None:
    settings = alone(tmp_path)
    storage = SiteStorage(folder=tmp_path / "site", run="run")
    prepare(patients, settings, storage=storage).fit()
    assert storage.release.is_file()
    prepare(patients, settings, storage=storage).fit()
    storage.release.unlink()
    with pytest.raises(RefusedError, match="charged and is not here"):
        prepare(patients, settings, storage=storage).fit()
    storage.release.write_bytes(b"cut short")
    with pytest.raises(RefusedError, match="cannot be read"):
        prepare(patients, settings, storage=storage).fit()
    assert len(Ledger("centralised", tmp_path / "store").charges()) == 1


def test_a_kept_release_counts_as_charged_where_there_is_no_ledger(tmp_path: Path) -> None:
    made = make_phantoms(tmp_path / "made", PhantomSettings(patients=12, slices=1, size=16, sites=1), workers=1)
    phantoms = made.with_cases(made.cases.assign(role="member"))
    storage = SiteStorage(folder=tmp_path / "site", run="run")
    for _ in range(2):
        prepared = prepare(phantoms, alone(tmp_path), storage=storage)
        prepared.sums(0)
        assert prepared.mechanism is not None
        assert prepared.mechanism.remaining == 0


def test_nothing_is_charged_where_the_pool_cannot_be_made(tmp_path: Path, patients: ImageSet) -> None:
    header = replace(patients.header, channels=("ct", "t2", "flair", "t1ce"))
    images = ImageSet(header=header, cases=patients.cases, images=patients.images, masks=patients.masks)
    storage = SiteStorage(folder=tmp_path / "site", run="run")
    with pytest.raises(ConfigError, match="public pool"):
        prepare(images, alone(tmp_path), storage=storage).fit()
    assert not (tmp_path / "store").exists()


def test_too_few_patients_are_told_what_to_do(tmp_path: Path, patients: ImageSet) -> None:
    few = alone(tmp_path, patients=9)
    with pytest.raises(ConfigError, match="fewer than 10 patients"):
        prepare(patients, few)


@pytest.mark.slow
def test_hospitals_apart_release_to_themselves(tmp_path: Path, patients: ImageSet) -> None:
    settings = settings_for(tmp_path, federation="one-shot")
    run = federated(tmp_path, settings, patients)
    family, _ = load_generator(run.checkpoints)
    assert isinstance(family, SiteMixture)
    finish(settings, run)
    assert (run.folder / "placebo" / "imageset.toml").is_file()
    for site in ("site-0", "site-1"):
        assert len(Ledger(site, tmp_path / "store").charges()) == 1


def test_without_privacy_the_sum_is_exact(tmp_path: Path, patients: ImageSet) -> None:
    settings = settings_for(tmp_path, privacy=None)
    run = federated(tmp_path, settings, patients)
    assert "without differential privacy" in load_generator(run.checkpoints)[1].privacy
    assert not (run.site("site-0") / "release.safetensors").exists()
    assert "charged" not in rows(run)[0]


def test_sums_over_images_never_leave_a_private_run(tmp_path: Path, patients: ImageSet) -> None:
    prepared = prepare(patients, alone(tmp_path))
    prepared.trainer.family.per_patient = False
    with pytest.raises(RefusedError, match="no bound per patient"):
        prepared.sums(0)


def test_other_families_have_no_placebo(tmp_path: Path) -> None:
    from fedsynth.training.generate import Drawing

    run = simulated(tmp_path, replace(SETTINGS, rounds=1))
    family, card = load_generator(run.checkpoints)
    with pytest.raises(FedSynthError, match="only a fitted family"):
        Drawing(family, card, count=2, arm="placebo")


def test_what_cannot_be_fitted_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to train apart"):
        settings_for(tmp_path, federation="none")
    with pytest.raises(ConfigError, match="goes on from nothing"):
        settings_for(tmp_path, start=tmp_path)


def test_repeatable_sites_add_noise_of_their_own_and_are_stamped(tmp_path: Path, patients: ImageSet) -> None:
    privacy = Privacy(epsilon=8.0, patients=12, store=tmp_path / "store", insecure_seed=3)
    run = federated(tmp_path, settings_for(tmp_path, privacy=privacy), patients)
    images = [site_images(tmp_path, number) for number in (0, 1)]
    noise = []
    for site, own in zip(("site-0", "site-1"), images, strict=True):
        exact = prepare(own, replace(alone(tmp_path), privacy=None)).sums(0)["simulator.total"]
        noise.append(released(run, site)["simulator.total"] - exact)
        (charge,) = Ledger(site, tmp_path / "store").charges()
        assert charge.insecure
    assert not torch.allclose(noise[0], noise[1], atol=1e-3)


def test_an_insecure_training_of_one_site_is_stamped_in_the_ledger(tmp_path: Path, patients: ImageSet) -> None:
    privacy = Privacy(epsilon=8.0, patients=20, store=tmp_path / "store", insecure_seed=3)
    settings = replace(alone(tmp_path), privacy=privacy, sheets=1)
    run = create_run(settings, generator=settings.generator, folder=tmp_path / "run")
    run_training(patients, settings, run)
    (charge,) = Ledger("centralised", tmp_path / "store").charges()
    assert charge.insecure
    assert (tmp_path / "store").stat().st_mode & 0o077 == 0
