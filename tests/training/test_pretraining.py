"""`--start phantoms`: networks trained on simulated heads, made once, whose lineage is public."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import fedsynth
from fedsynth.data import ImageSet
from fedsynth.errors import ConfigError, FedSynthError
from fedsynth.models.base import ImageShape
from fedsynth.models.generators import phantom_maps
from fedsynth.training import pretraining
from fedsynth.training.checkpoint import load_card, load_generator, load_tensors, start_from_release
from fedsynth.training.fitting import fit_alone
from fedsynth.training.lineage import start_networks
from fedsynth.training.patient_batches import PatientBatches
from fedsynth.training.pretraining import pretrain, simulated_heads
from fedsynth.training.public_start import kept_start
from fedsynth.training.session import fresh_family, prepare, recipe_of
from fedsynth.training.settings import SIMULATED, Privacy, TrainSettings
from tests.training.tiny import tiny_set

MLP = {"latent": 4, "hidden": [8, 8], "discriminator_hidden": [8]}
SETTINGS = TrainSettings(
    generator="mlp", images=Path("set"), steps=2, sheets=0, start=SIMULATED, start_steps=2, options=MLP
)


@pytest.fixture(autouse=True)
def _few_heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDSYNTH_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(pretraining, "PATIENTS", 8)
    monkeypatch.setattr(phantom_maps, "COMPARED", 8)


def images() -> ImageSet:
    return tiny_set(size=16)


def shape_of(found: ImageSet, **changes: object) -> ImageShape:
    return replace(PatientBatches(found).shape, **changes)  # type: ignore[arg-type]


def test_simulated_heads_are_described_as_the_images_are_and_show_nobody() -> None:
    asked = images().header
    heads = simulated_heads(shape_of(images()))
    assert (heads.header.channels, heads.header.classes, heads.header.mask_labels) == (
        asked.channels,
        asked.classes,
        asked.mask_labels,
    )
    assert heads.header.phantoms
    assert heads.images.shape == (8 * pretraining.SLICES, 1, 16, 16)
    assert set(heads.cases["class"]) == {"a", "b"}
    assert heads.masks is not None
    assert np.asarray(heads.masks).any()


def test_a_lesion_is_drawn_for_known_classes_alone() -> None:
    heads = simulated_heads(shape_of(images(), class_names=("healthy", "high-grade")))
    ill = np.asarray(heads.masks).reshape(len(heads), -1).any(1)
    assert not ill[(heads.cases["class"] == "healthy").to_numpy()].any()
    assert ill[(heads.cases["class"] == "high-grade").to_numpy()].all()


def test_images_without_masks_have_heads_without_masks() -> None:
    assert simulated_heads(shape_of(images(), n_labels=0, label_names=())).masks is None


def test_networks_are_trained_once_for_all_patients_and_seeds() -> None:
    shape, steps = shape_of(images()), []
    made = pretrain(SETTINGS, shape, on_step=lambda report, total: steps.append(report.step))
    again = pretrain(replace(SETTINGS, seed=9, steps=7), shape, on_step=lambda report, total: steps.append(report.step))
    assert made == again
    assert steps == [0, 1]
    other = pretrain(replace(SETTINGS, start_steps=1), shape)
    assert made is not None
    assert other is not None
    assert other.folder != made.folder
    assert [path.name for path in made.folder.parent.glob(".making*")] == []


def test_a_run_begins_with_their_networks_and_says_that_they_saw_nobody(tmp_path: Path) -> None:
    images().save(tmp_path / "set")
    run = fedsynth.train(
        tmp_path / "set", generator="mlp", steps=1, rate=1e-12, start="phantoms", start_steps=2, options=MLP,
        sheets=0, run=tmp_path / "run",
    )  # fmt: skip
    kept = pretrain(SETTINGS, shape_of(images()))
    assert kept is not None
    before = load_tensors(kept.site("centralised") / "state.safetensors")[0]
    after = load_tensors(run.site("centralised") / "state.safetensors")[0]
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before if name.startswith("nets."))
    first, second = load_card(run.checkpoints).lineage.runs
    assert (first.public, first.steps, second.public) == ("phantoms", 2, "")


def test_a_private_run_may_begin_with_them_and_costs_its_patients_no_more(tmp_path: Path) -> None:
    images().save(tmp_path / "set")
    privacy = Privacy(epsilon=8.0, patients=6, delta=1e-3, expected_batch_size=3, fakes=4, store=tmp_path / "store")
    told = {"generator": "mlp", "steps": 2, "options": MLP, "privacy": privacy, "sheets": 0}
    alone = fedsynth.train(tmp_path / "set", run=tmp_path / "alone", **told)
    begun = fedsynth.train(tmp_path / "set", run=tmp_path / "begun", start="phantoms", start_steps=1, **told)
    found = load_card(begun.checkpoints).lineage
    assert found.guarantee().epsilon == load_card(alone.checkpoints).lineage.guarantee().epsilon
    assert "simulated heads" in found.history()[0]
    assert "phantoms: nobody" in found.history()[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"size": (16, 16, 16)}, "slices, no volumes"),
        ({"size": (16, 20)}, "square"),
        ({"size": (8, 8)}, "16 or more"),
        ({"channel_names": ("ct",)}, "channels"),
        ({"label_names": ("background", "kidney")}, "labels masks as"),
    ],
)
def test_what_the_simulator_cannot_show_is_refused_at_once(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        pretrain(SETTINGS, shape_of(images(), **changes))
    assert "--start" in str(raised.value)


def test_steps_on_simulated_heads_are_for_runs_that_start_from_them() -> None:
    with pytest.raises(ConfigError, match="--start phantoms"):
        replace(SETTINGS, start=None)


def test_two_stages_that_begin_so_draw_simulated_heads_unless_told_otherwise() -> None:
    """And maps that are fitted anyway make no difference to what is trained before."""
    told = replace(SETTINGS, generator="two-stage", options={})
    own = replace(told, options={"maps": "pca-maps"})
    assert (told.options, own.options) == ({"maps": "phantom-maps"}, {"maps": "pca-maps"})
    assert replace(told, start=None, start_steps=None, options={}).options == {}
    shape = shape_of(images())
    assert kept_start(told, shape) == kept_start(own, shape)
    pretrain(told, shape)
    family = fresh_family(own, shape)
    start_networks(family, own, shape)
    read = load_tensors(kept_start(own, shape).site("centralised") / "state.safetensors")[0]
    name = "renderer-autoencoder.decoder.begin.weight"
    assert torch.equal(family.nets.state_dict()[name], read[f"nets.{name}"])


def test_what_was_learnt_from_simulated_heads_is_refined_at_lower_rates() -> None:
    apart = replace(SETTINGS, start=None, start_steps=None)
    assert recipe_of(SETTINGS).rate == pytest.approx(0.3 * recipe_of(apart).rate)
    assert recipe_of(replace(SETTINGS, rate=0.5)).rate == 0.5


def test_a_start_that_was_removed_is_named() -> None:
    shape = shape_of(images())
    with pytest.raises(FedSynthError, match="give the command again"):
        start_networks(fresh_family(SETTINGS, shape), SETTINGS, shape)


def test_what_is_fitted_begins_anew_in_a_run_that_goes_on(tmp_path: Path) -> None:
    """The means of the mixture of maps are first draws that a fit turns into means: it must not turn them twice."""
    images().save(tmp_path / "set")
    run = fedsynth.train(tmp_path / "set", generator="two-stage", steps=1, sheets=0, run=tmp_path / "run")
    settings = TrainSettings(generator="two-stage", images=Path("set"))
    family, fresh = (fresh_family(settings, shape_of(images())) for _ in range(2))
    start_from_release(run.checkpoints, family, "two-stage")
    means = "maps-maps.means"
    assert torch.equal(family.nets.state_dict()[means], fresh.nets.state_dict()[means])
    released = load_generator(run.checkpoints)[0]
    for name, value in family.nets.state_dict().items():
        if name.startswith("renderer-autoencoder"):
            assert torch.equal(value, released.nets.state_dict()[name])


def test_a_second_fit_finds_what_the_first_one_found() -> None:
    """A sheet of samples is fitted, and then the released sampler."""
    prepared = prepare(images(), TrainSettings(generator="two-stage", images=Path("set"), steps=1))
    found = []
    for _ in range(2):
        fit_alone(prepared.trainer, prepared.sums)
        found.append({name: value.clone() for name, value in prepared.trainer.ema.values.items()})
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())
