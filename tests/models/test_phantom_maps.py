"""Label maps of simulated heads: what is fitted of patients is whether they have a skull, and maps go with tissue."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedsynth.models.base import ImageShape, SeededSource, Tensors
from fedsynth.models.depth_profile import share_of_first
from fedsynth.models.generators import phantom_maps
from fedsynth.models.generators.catalog import build
from fedsynth.models.generators.phantom_maps import PhantomMaps
from fedsynth.models.generators.two_stage import TwoStage
from fedsynth.models.tissue import tissue_of

SHAPE = ImageShape(
    channels=2,
    size=(32, 32),
    n_classes=2,
    n_labels=2,
    channel_names=("t1", "flair"),
    class_names=("healthy", "high-grade"),
    label_names=("background", "tumour"),
)


@pytest.fixture(autouse=True)
def _few_heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDSYNTH_STORE", str(tmp_path))
    monkeypatch.setattr(phantom_maps, "COMPARED", 16)


def maps() -> PhantomMaps:
    made = build("phantom-maps", replace(SHAPE, channels=0, channel_names=()), shown=SHAPE.channel_names)
    assert isinstance(made, PhantomMaps)
    return made


def drawn(family: PhantomMaps, share: float, n: int, label: int = 1) -> Tensors:
    family.share.fill_(share)
    return family.sample({"label": torch.eye(2)[[label] * n]}, family.noise(n, SeededSource(7)))


def test_the_share_with_a_skull_is_found_from_sums_that_sites_add() -> None:
    family, found = maps(), []
    heads, brains = (family.sums(0, drawn(family, share, 24)) for share in (1.0, 0.0))
    both = {name: heads[name] + brains[name] for name in heads}
    for sums in (heads, both, brains):
        family.fit(0, sums)
        found.append(float(family.share))
    assert found[0] > 0.7
    assert 0.3 < found[1] < 0.7
    assert found[2] < 0.3


def test_a_share_of_a_mixture_by_hand() -> None:
    """Of 4 images 1 is of the first kind, whose profile is (1, 0), and 3 are of the second, (0, 2)."""
    found, first, second = np.array([1.0, 6.0, 4.0]), np.array([5.0, 0.0, 5.0]), np.array([0.0, 6.0, 3.0])
    assert share_of_first(found, first, second) == pytest.approx(0.25)
    assert share_of_first(np.zeros(3), first, second) == 0.5


def test_the_class_decides_on_the_lesion() -> None:
    family = maps()
    assert not drawn(family, 0.5, 6, label=0)["mask"][:, 1].any()
    assert drawn(family, 0.5, 6, label=1)["mask"][:, 1].flatten(1).any(1).all()


def test_tissue_is_that_of_the_head_whose_lesion_is_drawn() -> None:
    """Also where the lesion is edited before the image is made."""
    family = build("two-stage", SHAPE, maps="phantom-maps")
    assert isinstance(family, TwoStage)
    noise, condition = family.noise(3, SeededSource(1)), {"label": torch.eye(2)[[1, 1, 1]]}
    seen = {}
    renderer = family.nets["renderer-autoencoder"]
    renderer.decoder.register_forward_pre_hook(lambda net, told: seen.update(source=told[1]["source"]))
    made = family.sample(condition, noise)
    head = family._by_stage["maps"].sample(condition, {"draw": noise["maps/draw"]})
    tissue = tissue_of(head["image"], 3)
    assert torch.equal(seen["source"][:, 2:], tissue * head["mask"][:, :1])
    assert torch.equal(made["mask"], head["mask"])
    smaller = torch.zeros_like(made["mask"])
    smaller[:, 0] = 1
    family.sample(condition | {"source": smaller}, noise)
    assert torch.equal(seen["source"][:, 2:], tissue)


def test_a_stage_of_simulated_maps_has_no_model_of_members_tissue() -> None:
    family = build("two-stage", SHAPE, maps="phantom-maps")
    assert {name.partition("-")[0] for name in family.nets} == {"maps", "renderer"}
    assert family.pooled == ("maps-heads",)
    batch = {"image": torch.rand(2, 2, 32, 32), "mask": torch.rand(2, 2, 32, 32), "label": torch.eye(2)}
    assert family.sums(0, batch)["maps-heads.profile"].shape == (25,)
