"""Two stages as a run: fitted at the end and after a resume alike, and what is drawn can be edited."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from fedsynth.cli import app
from fedsynth.data import ImageSet
from fedsynth.errors import ConfigError
from fedsynth.runs import Run, create_run
from fedsynth.training.centralised import run_training
from fedsynth.training.checkpoint import load_generator, save_generator
from fedsynth.training.fitting import expected_sums, sums_of
from fedsynth.training.generate import Drawing
from fedsynth.training.session import default_generator, prepare
from fedsynth.training.settings import TrainSettings
from tests.training.test_paired_sources import brains

SETTINGS = TrainSettings(
    generator="two-stage", images=Path("brains"), steps=4, batch=4, sheets=1, options={"base": 4, "latent": 4}
)


def tumours(n: int = 24) -> ImageSet:
    """`brains` without tissue in the maps, so that the healthy ones are empty; tumours lie in many places."""
    found = brains(n)
    masks = np.where(np.asarray(found.masks) > 1, found.masks, 0).astype(np.uint8)
    moved = np.stack([np.roll(mask, (i % 3 - 1, i % 4 - 1), (0, 1)) for i, mask in enumerate(masks)])
    mixed = replace(found, masks=moved).rows(np.random.default_rng(0).permutation(n))
    return mixed.with_cases(mixed.cases.assign(patient=[f"p{i:02d}" for i in range(n)]))


def trained(folder: Path, images: ImageSet | None = None) -> Run:
    run = create_run(SETTINGS, generator="two-stage", folder=folder)
    run_training(tumours() if images is None else images, SETTINGS, run)
    return run


def released(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.checkpoints / "generator.safetensors")


def test_one_checkpoint_and_one_card_draw_images_with_masks(tmp_path: Path) -> None:
    run = trained(tmp_path / "run")
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["generator.safetensors", "generator.toml"]
    family, card = load_generator(run.checkpoints)
    drawn = Drawing(family, card, count=12, mix="b=1").in_memory("drawn")
    assert drawn.masks is not None
    assert (np.asarray(drawn.masks) > 1).any((1, 2)).all()
    assert (run.samples / "step-000004.png").is_file()
    healthy = Drawing(family, card, count=3, mix="a=1").in_memory("drawn")
    assert not np.asarray(healthy.masks).any()


def test_a_resumed_run_is_fitted_to_the_same_bits(tmp_path: Path) -> None:
    whole, broken = trained(tmp_path / "whole"), create_run(SETTINGS, generator="two-stage", folder=tmp_path / "broken")

    class Killed(Exception):
        pass

    def kill(report: object, total: int) -> None:
        raise Killed

    with pytest.raises(Killed):
        run_training(tumours(), SETTINGS, broken, on_step=kill)
    for _ in range(2):  # and once more from its end
        run_training(tumours(), SETTINGS, broken, resume=True)
        assert all(torch.equal(value, released(broken)[name]) for name, value in released(whole).items())


def test_sums_do_not_depend_on_blocks_and_have_the_shape_that_the_server_expects() -> None:
    prepared = prepare(tumours(40), SETTINGS)
    family, dataset = prepared.trainer.family, prepared.dataset
    for number in range(2):
        found = sums_of(family, dataset, number)
        whole = family.sums(number, dataset.fetch(np.arange(40)))
        expected = expected_sums(family, number, device=torch.device("cpu"))
        assert found.keys() == expected.keys()
        for name, value in found.items():
            torch.testing.assert_close(value, whole[name], rtol=1e-4, atol=1e-4)
            assert (value.shape, value.dtype) == (expected[name].shape, expected[name].dtype)
        family.fit(number, found)


def test_a_set_without_lesions_is_refused_in_a_sentence(tmp_path: Path) -> None:
    images = tumours()
    empty = replace(images, masks=np.zeros_like(images.masks))
    with pytest.raises(ConfigError, match="every label map is empty"):
        trained(tmp_path / "run", empty)


def test_two_stages_are_the_default_where_there_are_masks() -> None:
    masked = tumours()
    bare = replace(masked, masks=None, header=replace(masked.header, mask_labels=()))
    assert default_generator(masked, private=False, paired=False) == "two-stage"
    assert default_generator(bare, private=False, paired=False) == "dcgan"
    assert default_generator(masked, private=True, paired=False) == "dcgan"
    assert default_generator(masked, private=False, paired=True) == "dcgan"


@pytest.mark.parametrize("options", [["--edit", "grow=1.6"], ["--transplant"]])
def test_drawn_maps_are_edited_and_rendered_again(tmp_path: Path, options: list[str]) -> None:
    tissue = brains(24)  # with its anatomy, so that an edit knows where the brain ends
    shifts = np.stack([np.roll(mask, i % 3 - 1, 0) for i, mask in enumerate(np.asarray(tissue.masks))])
    run = trained(tmp_path / "run", replace(tissue, masks=shifts))
    sets = {}
    for name, given in {"plain": [], "edited": options}.items():
        asked = ["synthesize", str(run.folder), "--count", "12", "--out", str(tmp_path / name), *given]
        done = CliRunner().invoke(app, asked)
        assert done.exit_code == 0, done.output
        sets[name] = ImageSet.load(tmp_path / name)
    areas = {name: (np.asarray(one.masks) > 1).sum((1, 2)) for name, one in sets.items()}
    if options[0] == "--edit":
        assert areas["edited"].sum() > 1.2 * areas["plain"].sum()
        assert np.array_equal(areas["edited"] > 0, areas["plain"] > 0)
    else:
        assert (areas["edited"] > 0).all()
    changed = (np.asarray(sets["edited"].masks) != np.asarray(sets["plain"].masks)).any((1, 2))
    same = (np.asarray(sets["edited"].images) == np.asarray(sets["plain"].images)).all((1, 2, 3))
    assert not same[changed].any()


def test_a_family_that_is_fitted_per_patient_gets_one_vector_of_each(tmp_path: Path) -> None:
    from fedsynth.data.phantoms.cohort import make_phantoms
    from fedsynth.data.phantoms.settings import PhantomSettings

    images = make_phantoms(tmp_path / "set", PhantomSettings(patients=12, slices=2, size=16, sites=1), workers=1)
    options = {"pool": 40, "slices": 1, "children": 20, "generations": 1}
    settings = TrainSettings(generator="fitted-simulator", images=tmp_path / "set", steps=1, options=options)
    prepared = prepare(images, settings)
    family, dataset = prepared.trainer.family, prepared.dataset
    found = sums_of(family, dataset, 0)
    assert float(found["simulator.patients"]) == pytest.approx(len(dataset.patients), abs=1e-4)
    assert len(dataset.patients) > 5
    each = [family.statistics(dataset.fetch(rows)).mean(0) for rows in dataset.rows]
    total = torch.stack([vector / vector.norm().clamp(min=1) for vector in each]).sum(0)
    torch.testing.assert_close(found["simulator.total"], total, rtol=0, atol=1e-5)
    expected = expected_sums(family, 0, device=torch.device("cpu"))
    assert {name: value.shape for name, value in found.items()} == {name: v.shape for name, v in expected.items()}
    prepared.fit()
    run = create_run(settings, generator="fitted-simulator", folder=tmp_path / "run")
    save_generator(run.checkpoints, prepared.trainer, prepared.card())
    loaded, card = load_generator(run.checkpoints)
    assert card.shape.class_names == ("healthy", "low-grade", "high-grade")
    assert card.shape.label_names == ("background", "edema", "core", "enhancing")
    drawn = Drawing(loaded, card, count=6, mix="healthy=1").in_memory("drawn")
    assert not np.asarray(drawn.masks).any()
    assert np.asarray(drawn.images).max() > 50
