"""A federation that goes on from another run: what that run cost patients is not forgotten, site by site."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedsynth.data import ImageSet
from fedsynth.errors import ConfigError, RefusedError
from fedsynth.federation.settings import FederationSettings, Way
from fedsynth.federation.simulation import open_hospitals, rehearse
from fedsynth.privacy.accounting import compose
from fedsynth.privacy.lineage import Lineage
from fedsynth.runs import Run, create_run
from fedsynth.training import pretraining
from fedsynth.training.centralised import run_training
from fedsynth.training.checkpoint import load_generator, load_tensors
from fedsynth.training.patient_batches import PatientBatches
from fedsynth.training.settings import SIMULATED, Privacy, TrainSettings
from tests.federation.tiny import SETTINGS, assert_same, go, hospitals, killed_after, simulated, site_images, weights
from tests.training.tiny import tiny_set

FIRST, SECOND = 4.0, 2.0


def told(tmp_path: Path, epsilon: float | None, start: str | None = None, **changes: object) -> FederationSettings:
    store = tmp_path / "store"
    private = epsilon and Privacy(epsilon=epsilon, patients=6, expected_batch_size=6, fakes=4, delta=1e-3, store=store)
    begin = None if start is None else tmp_path / start
    settings = replace(SETTINGS, rounds=1, batch=None if private else 4, privacy=private or None, start=begin)
    return replace(settings, **changes)  # type: ignore[arg-type]


def pooled(tmp_path: Path, images: ImageSet, epsilon: float | None, start: str | None = None, name: str = "one") -> Run:
    federated = told(tmp_path, epsilon, start)
    settings = replace(federated.training(), private_networks=epsilon is None, steps=2)
    run = create_run(settings, generator="mlp", folder=tmp_path / name)
    run_training(images, settings, run)
    return run


def lineage(run: Run) -> Lineage:
    return load_generator(run.checkpoints)[1].lineage


def phantoms() -> ImageSet:
    images = tiny_set(patients=9)
    return replace(images, header=replace(images.header, provenance={"phantom": {}}))


def test_each_site_is_promised_what_its_own_patients_were_in(tmp_path: Path) -> None:
    """The first run read the patients of one site alone."""
    hospitals(tmp_path)
    pooled(tmp_path, site_images(tmp_path, 0), FIRST)
    found = lineage(simulated(tmp_path, told(tmp_path, SECOND, "one"), "two"))
    first, second = found.runs
    here, elsewhere = second.patients
    assert elsewhere.disjoint_from == (first.patients[0].digest,)
    both = compose([*first.patients[0].mechanisms, *here.mechanisms], 1e-3).epsilon
    assert found.promised(second, here).epsilon == found.guarantee().epsilon == both > FIRST + 0.1
    assert found.promised(second, elsewhere).epsilon == elsewhere.epsilon <= SECOND


def test_a_federation_begins_with_the_networks_that_it_goes_on_from(tmp_path: Path) -> None:
    hospitals(tmp_path)
    one = pooled(tmp_path, site_images(tmp_path, 0), FIRST)
    settings = replace(told(tmp_path, SECOND, "one"), rate=1e-12)
    begun = weights(simulated(tmp_path, settings, "two"))
    fresh = weights(simulated(tmp_path, replace(settings, start=None), "new"))
    assert all(np.allclose(value, begun[name], atol=1e-3) for name, value in released(one).items())
    assert not all(np.allclose(value, fresh[name], atol=1e-3) for name, value in released(one).items())


@pytest.mark.parametrize("way", ["average", "one-shot"])
def test_every_site_begins_with_networks_trained_on_simulated_heads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Way
) -> None:
    """Also sites that train apart, which are sent nothing else; and only where they begin, not in later rounds."""
    monkeypatch.setenv("FEDSYNTH_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(pretraining, "PATIENTS", 4)
    settings = replace(told(tmp_path, None), start=SIMULATED, start_steps=2, rounds=2, federation=way)
    people = tiny_set(patients=9, size=16)
    hospitals(tmp_path, images=people)
    kept = pretraining.pretrain(settings.training(), PatientBatches(people).shape)
    assert kept is not None
    begun = load_tensors(kept.site("centralised") / "state.safetensors")[0]
    run = simulated(tmp_path, replace(settings, rate=1e-12))
    for name, value in load_tensors(run.checkpoints / "generator.safetensors")[0].items():
        first = name.removeprefix("0-").removeprefix("1-")
        assert torch.allclose(value, begun[f"nets.{first}"], atol=1e-3), name
    assert [(one.images, one.public) for one in lineage(run).runs][:1] == [("simulated heads", "phantoms")]
    whole, broken = simulated(tmp_path, settings, "whole"), killed_after(tmp_path, settings, 1)
    go(broken, settings)
    assert_same(whole, broken)


def released(run: Run) -> dict[str, np.ndarray]:
    """The discriminator of a centralised run, under the names of a federation's."""
    from safetensors.numpy import load_file

    state = load_file(run.site("centralised") / "state.safetensors")
    return {
        f"discriminator {name[5:]}": value for name, value in state.items() if name.startswith("nets.discriminator")
    }


def test_one_site_goes_on_from_a_federation_group_by_group(tmp_path: Path) -> None:
    first = simulated(tmp_path, told(tmp_path, FIRST), "one")
    assert [group.site for group in lineage(first).runs[0].patients] == ["site-0", "site-1"]
    found = lineage(pooled(tmp_path, site_images(tmp_path, 1), SECOND, "one", "two"))
    north, south = found.runs[0].patients
    assert found.runs[1].patients[0].disjoint_from == (north.digest,)
    assert found.promised(found.runs[0], north).epsilon == north.epsilon <= FIRST
    assert (found.promised(found.runs[0], south).epsilon or 0) > FIRST + 0.1


def test_a_chain_of_federations_is_followed_to_its_root(tmp_path: Path) -> None:
    for name, start in (("one", None), ("two", "one"), ("three", "two")):
        run = simulated(tmp_path, told(tmp_path, SECOND, start), name)
    found = lineage(run)
    assert [one.run for one in found.runs] == ["one", "two", "three"]
    three = [one.patients[0].mechanisms[0] for one in found.runs]
    assert found.guarantee().epsilon == compose(three, 1e-3).epsilon


def test_own_patients_of_any_site_are_not_declared_public(tmp_path: Path) -> None:
    file = hospitals(tmp_path)
    pooled(tmp_path, site_images(tmp_path, 1), FIRST)
    with open_hospitals(file, tmp_path) as opened, pytest.raises(RefusedError, match="who are not public"):
        rehearse(told(tmp_path, SECOND, "one", public_start=True), opened)


def test_phantoms_do_not_wash_a_plain_run_of_patients(tmp_path: Path) -> None:
    pooled(tmp_path, tiny_set(), None)
    file = hospitals(tmp_path, images=phantoms())
    with open_hospitals(file, tmp_path) as opened, pytest.raises(RefusedError, match="trained without privacy"):
        rehearse(told(tmp_path, SECOND, "one"), opened)
    run = simulated(tmp_path, told(tmp_path, SECOND, "one", public_start=True), "two")
    assert not lineage(run).public
    assert "--public-start of two" in load_generator(run.checkpoints)[1].privacy


def test_sites_that_train_each_alone_cannot_go_on_from_a_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="receive no networks"):
        told(tmp_path, None, "one", federation="none")


def test_settings_of_one_site_are_handed_on(tmp_path: Path) -> None:
    training = told(tmp_path, None, "one", public_start=True).training()
    assert isinstance(training, TrainSettings)
    assert (training.start, training.public_start) == (tmp_path / "one", True)
