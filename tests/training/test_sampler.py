"""From sampler to image set: stated class counts, image i from seed and i alone, one format."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fedsynth.data import ImageSet
from fedsynth.errors import ConfigError, RefusedError
from fedsynth.training.checkpoint import Card
from fedsynth.training.generate import Drawing, plan_labels
from fedsynth.training.patient_batches import PatientBatches
from fedsynth.training.sampler import class_counts, parse_mix, sample_blocks
from tests.training.tiny import TinyGan, tiny_set


def tiny_card() -> tuple[TinyGan, Card]:
    images = tiny_set()
    torch.manual_seed(0)
    family = TinyGan(PatientBatches(images).shape)
    card = Card(
        generator="tiny",
        shape=family.shape,
        channels=("t1",),
        classes=("a", "b"),
        mask_labels=("background", "lesion"),
        spacing_mm=(1.0, 1.0),
        class_shares=(0.25, 0.75),
        steps=0,
        trained_on="tiny",
        privacy="none",
    )
    return family, card


def test_mix_is_shares_of_known_classes() -> None:
    assert parse_mix("a=1,b=3", ("a", "b", "c")) == {"a": 0.25, "b": 0.75}
    for text, message in [
        ("d=1", "unknown class"),
        ("a", "needs class=share"),
        ("a=-1,b=2", "must not be negative"),
        ("a=0", "nor all zero"),
        ("a=nan", "must not be negative, nor all zero"),
    ]:
        with pytest.raises(ConfigError, match=message):
            parse_mix(text, ("a", "b"))


def test_counts_add_up_and_lie_within_one_of_the_share() -> None:
    counts = class_counts(10, ("a", "b", "c"), {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3})
    assert sum(counts.values()) == 10
    assert set(counts.values()) == {3, 4}


def test_classes_are_planned_by_share_and_every_beginning_is_mixed() -> None:
    _, card = tiny_card()
    labels = plan_labels(card, 400, None)
    assert np.bincount(labels).tolist() == [100, 300]
    assert abs(labels[:40].mean() - 0.75) < 0.05
    assert plan_labels(card, 7, "a=1").tolist() == [0] * 7
    with pytest.raises(ConfigError, match="--count must be at least 1"):
        Drawing(tiny_card()[0], card, count=0)


def test_image_i_is_the_same_however_many_are_made() -> None:
    family, card = tiny_card()
    labels = plan_labels(card, 8, "a=1")
    many = np.concatenate([image for image, _ in sample_blocks(family, labels, seed=1, block=3)])
    few = np.concatenate([image for image, _ in sample_blocks(family, labels[:5], seed=1)])
    np.testing.assert_allclose(many[:5], few, atol=1e-6)
    other = np.concatenate([image for image, _ in sample_blocks(family, labels[:5], seed=2)])
    assert not np.allclose(few, other, atol=1e-3)


def test_a_written_set_loads_and_equals_what_was_drawn(tmp_path: Path) -> None:
    family, card = tiny_card()
    drawing = Drawing(family, card, count=5, seed=3)
    drawing.write(tmp_path / "set")
    read, drawn = ImageSet.load(tmp_path / "set"), drawing.in_memory("set")
    assert read.header.origin == "synthetic"
    assert read.header.provenance["seed"] == 3
    assert np.array_equal(read.images, drawn.images)
    assert np.array_equal(read.masks, drawn.masks)
    assert read.cases["class"].tolist() == [card.classes[label] for label in drawing.labels]
    with pytest.raises(RefusedError):
        drawing.write(tmp_path / "set")
