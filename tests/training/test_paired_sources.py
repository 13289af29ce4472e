"""Paired generators: what they start from, what comes out with the image, and label maps that are nobody's."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedsynth.data import Header, ImageSet
from fedsynth.data.mask_editing import read_edit
from fedsynth.errors import ConfigError, ImageSetError
from fedsynth.runs import create_run
from fedsynth.training.centralised import run_training
from fedsynth.training.checkpoint import load_generator
from fedsynth.training.generate import Drawing
from fedsynth.training.paired_sources import choose_sources
from fedsynth.training.settings import TrainSettings

LABELS = ("background", "grey", "edema", "core")


def brains(n: int = 8) -> ImageSet:
    """Discs of tissue; every second one has a tumour of core within edema."""
    y, x = np.mgrid[:16, :16] - 7.5
    disc = np.where(np.hypot(y, x) < 7, 1, 0).astype(np.uint8)
    ill = disc.copy()
    ill[6:11, 6:11], ill[7:10, 7:10] = 2, 3
    masks = np.stack([ill if i % 2 else disc for i in range(n)])
    images = (masks[:, None] * 60 + np.arange(n, dtype=np.uint8)[:, None, None, None]).astype(np.uint8)
    rows = [
        {"case": f"c{i}", "patient": f"p{i}", "site": "", "role": "", "class": "ab"[i % 2], "slice": ""}
        for i in range(n)
    ]
    header = Header(
        name="brains",
        origin="real",
        channels=("t1", "flair"),
        classes=("a", "b"),
        mask_labels=LABELS,
        spacing_mm=(2.0, 2.0),
    )
    return ImageSet(
        header=header, cases=pd.DataFrame(rows, dtype=str), images=np.repeat(images, 2, axis=1), masks=masks
    )


def trained(tmp_path: Path, pairing: str, generator: str = "pix2pix") -> Path:
    settings = TrainSettings(
        generator=generator, images=Path("brains"), steps=2, batch=2, sheets=1, pairing=pairing, options={"base": 4}
    )
    run = create_run(settings, generator=generator, folder=tmp_path / "run")
    run_training(brains(), settings, run)
    return run.checkpoints


def test_label_to_image_comes_out_with_its_label_map(tmp_path: Path) -> None:
    family, card = load_generator(trained(tmp_path, "label-to-image"))
    sources = choose_sources(card, brains(), 5, seed=1)
    drawn = Drawing(family, card, count=5, seed=1, sources=sources).in_memory("drawn")
    assert drawn.header.channels == ("t1", "flair")
    assert np.array_equal(drawn.masks, brains().masks[sources.rows])
    assert drawn.cases["class"].tolist() == brains().cases["class"].iloc[sources.rows].tolist()
    assert drawn.header.provenance["source"] == "brains"


def test_edits_change_source_and_mask_alike(tmp_path: Path) -> None:
    _, card = load_generator(trained(tmp_path, "label-to-image"))
    plain = choose_sources(card, brains(), 4, mix="b=1", seed=1)
    grown = choose_sources(card, brains(), 4, mix="b=1", seed=1, edits=[read_edit("grow=1.5", 2)])
    assert (grown.mask(0) > 1).sum() > 1.2 * (plain.mask(0) > 1).sum()
    assert np.array_equal(grown.source(0, 4).argmax(1).numpy(), np.stack([grown.mask(i) for i in range(4)]))


def test_a_tumour_shifted_out_of_the_brain_is_said_to_be_lost(tmp_path: Path) -> None:
    family, card = load_generator(trained(tmp_path, "label-to-image"))
    sources = choose_sources(card, brains(), 2, mix="b=1", edits=[read_edit("shift=14,0", 2)])
    drawn = Drawing(family, card, count=2, sources=sources).in_memory("drawn")
    assert drawn.header.provenance["tumours-without-room"] == ["synthetic-000000", "synthetic-000001"]


def test_a_transplant_gives_healthy_anatomy_the_donors_tumour_and_class(tmp_path: Path) -> None:
    _, card = load_generator(trained(tmp_path, "label-to-image"))
    sources = choose_sources(card, brains(), 4, seed=1, transplanting=True)
    assert all((np.asarray(brains().masks)[row] < 2).all() for row in sources.rows)
    assert all((sources.mask(i) == 3).any() for i in range(4))
    assert (sources.labels(("a", "b")) == 1).all()


def test_channel_to_channel_and_image_to_label(tmp_path: Path) -> None:
    family, card = load_generator(trained(tmp_path, "t1-to-flair"))
    drawn = Drawing(family, card, count=3, sources=choose_sources(card, brains(), 3)).in_memory("drawn")
    assert drawn.header.channels == ("flair",)
    assert drawn.masks is not None
    family, card = load_generator(trained(tmp_path / "second", "image-to-label"))
    sources = choose_sources(card, brains(), 3)
    drawn = Drawing(family, card, count=3, sources=sources).in_memory("drawn")
    assert drawn.header.channels == ("t1", "flair")
    assert np.array_equal(drawn.images, brains().images[sources.rows])


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    checkpoints = trained(tmp_path, "t1-to-flair")
    family, card = load_generator(checkpoints)
    with pytest.raises(ConfigError, match="give --source SET"):
        Drawing(family, card, count=2)
    with pytest.raises(ConfigError, match="only label maps can be edited"):
        choose_sources(card, brains(), 2, edits=[read_edit("grow=1.5", 2)])
    other = brains()
    with pytest.raises(ImageSetError, match="differs in spacing-mm"):
        choose_sources(card, replace(other, header=replace(other.header, spacing_mm=(1.0, 1.0))), 2)
