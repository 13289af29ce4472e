"""Statistics of images: bounded whatever comes, from the one image alone, in two dimensions and three."""

import sys
from pathlib import Path

import numpy as np
import pytest

from fedsynth.models import image_statistics
from fedsynth.models import statistics as folder
from fedsynth.models.image_statistics import Layout, Picture, Statistic, block_means, histogram, lengths, measured

LAYOUTS = [
    Layout(channels=1, size=(16, 16), n_labels=2, lesion=(1,)),
    Layout(channels=4, size=(24, 20), n_labels=7, lesion=(4, 5, 6)),
    Layout(channels=2, size=(12, 16, 10), n_labels=4, lesion=(1, 2, 3)),
]
CASES = pytest.mark.parametrize("layout", LAYOUTS, ids=str)


def shape_of(layout: Layout) -> tuple[int, ...]:
    return layout.channels, *layout.size


def images_of(layout: Layout) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Everything that may come: noise, constants, numbers that are none, masks of every kind."""
    rng, shape = np.random.default_rng(0), shape_of(layout)
    noise = rng.random(shape)
    broken = noise.copy()
    broken[:, ::3], broken[:, 1::3], broken[:, 2::5] = np.nan, np.inf, -np.inf
    masks = {
        "empty": np.zeros(layout.size, np.uint8),
        "full": np.full(layout.size, layout.n_labels - 1, np.uint8),
        "any": rng.integers(0, layout.n_labels, layout.size).astype(np.uint8),
        "one": np.zeros(layout.size, np.uint8),
        "foreign": np.full(layout.size, 255, np.uint8),
    }
    masks["one"].flat[0] = layout.n_labels - 1
    images = {"noise": noise, "broken": broken, "huge": noise * 1e30, "negative": -noise}
    images |= {f"constant {value}": np.full(shape, value) for value in (0.0, 0.5, 1.0)}
    return {f"{name}, {mask}": (images[name], masks[mask]) for name in images for mask in masks}


@CASES
def test_every_statistic_is_bounded_and_as_long_as_it_says(layout: Layout) -> None:
    assert list(image_statistics.statistics())[:2] == ["mean image", "brightness"]
    for name, (image, mask) in images_of(layout).items():
        values = measured(image, mask, layout)
        assert len(values) == sum(lengths(layout)), name
        assert np.isfinite(values).all(), name
        start = 0
        for one in image_statistics.statistics().values():
            own = values[start : start + one.length(layout)]
            start += one.length(layout)
            assert one.low <= own.min() <= own.max() <= one.high, (name, one.name)


@CASES
def test_an_image_is_measured_alone_and_left_as_it_was(layout: Layout) -> None:
    rng = np.random.default_rng(1)
    images = rng.random((3, *shape_of(layout)))
    masks = rng.integers(0, layout.n_labels, (3, *layout.size)).astype(np.uint8)
    before = images.copy()
    together = [measured(image, mask, layout) for image, mask in zip(images, masks, strict=True)]
    assert np.array_equal(images, before)
    images[0] = 0
    assert np.array_equal(measured(images[1], masks[1], layout), together[1])
    assert not np.array_equal(together[0], together[1])


def test_a_histogram_by_hand() -> None:
    found = histogram(np.array([0.0, 1.0, 0.25, 9.0]), 0, 1, 3)
    assert found.tolist() == [0.375, 0.125, 0.5]  # 0.25 counts half for each of the two points beside it
    assert not histogram(np.array([]), 0, 1, 3).any()


def test_block_means_by_hand() -> None:
    image = np.arange(16.0).reshape(4, 4)
    assert block_means(image, 2).tolist() == [2.5, 4.5, 10.5, 12.5]
    assert len(block_means(np.ones((3, 5)), 4)) == 16  # fewer rows than blocks: some blocks are empty


def test_a_disc_is_found_and_its_lesion_measured() -> None:
    layout = Layout(channels=1, size=(64, 64), n_labels=2, lesion=(1,))
    row, column = np.mgrid[:64, :64] - 31.5
    head, lesion = np.hypot(row, column) < 24, np.hypot(row - 8, column) < 5
    picture = Picture((0.5 * head + 0.3 * lesion)[None], lesion.astype(np.uint8), layout)
    assert (picture.head != head).mean() < 0.05
    assert picture.depth.max() == pytest.approx(24, abs=2)
    named = dict(
        zip(
            image_statistics.statistics(),
            np.split(measured(picture.image, picture.labels, layout), edges(layout)),
            strict=True,
        )
    )
    assert named["lesion size"][0] == 0
    assert named["lesion position"][np.argmax(named["lesion position"])] > 0.1
    assert named["head box"][1:].tolist() == pytest.approx([0, 48 / 64, 0, 48 / 64], abs=0.05)
    contrast = named["lesion contrast"] @ np.linspace(-0.4, 0.7, 9)
    assert contrast == pytest.approx(0.3 / 0.8, abs=0.06)
    assert named["brightness"][0] == pytest.approx(0.5)


def edges(layout: Layout) -> list[int]:
    return np.cumsum(lengths(layout))[:-1].tolist()


def test_another_organ_adds_a_statistic_under_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_statistics, "_statistics", dict(image_statistics.statistics()))
    own = Statistic(name="left lung", length=lambda layout: 1, measure=lambda picture: [1e9])
    image_statistics.register(own)
    layout = LAYOUTS[0]
    values = measured(np.ones(shape_of(layout)), np.zeros(layout.size, np.uint8), layout)
    assert values[-1] == 1.0
    with pytest.raises(ValueError, match="two statistics"):
        image_statistics.register(own)


def test_another_organ_adds_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lungs.py").write_text(
        "from fedsynth.models.image_statistics import Statistic, register\n"
        "one = Statistic(name='air in it', length=lambda layout: 1, measure=lambda picture: [picture.image.mean()])\n"
        "register(one)\n"
    )
    monkeypatch.setattr(image_statistics, "_statistics", dict(image_statistics.statistics()))
    monkeypatch.setattr(folder, "__path__", [*folder.__path__, str(tmp_path)])
    image_statistics._read_files.cache_clear()
    layout = Layout(channels=1, size=(16, 16), n_labels=0, lesion=())
    try:
        assert list(image_statistics.statistics())[-1] == "air in it"
        assert measured(np.full((1, 16, 16), 0.25), np.zeros((16, 16), np.uint8), layout)[-1] == 0.25
        assert all(not one.needs_masks for one in image_statistics.chosen(layout))
    finally:
        del sys.modules[f"{folder.__name__}.lungs"]
