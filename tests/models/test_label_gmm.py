"""Label maps to images without training: appearances by name, every label where it belongs, no network, no patient."""

import pytest
import torch

from fedsynth.models.base import ImageShape, SeededSource
from fedsynth.models.generators.catalog import build, find
from fedsynth.models.generators.label_gmm import prior
from fedsynth.models.pairing import one_hot

NAMES = ("background", "csf", "grey", "white", "edema", "core", "enhancing")
SHAPE = ImageShape(
    channels=3, size=(32, 32), source_channels=7, channel_names=("t1", "FLAIR", "t1ce"), source_names=NAMES
)


def bands(n: int) -> torch.Tensor:
    """Seven labels in bands of four rows, background besides."""
    labels = torch.zeros(n, 32, 32, dtype=torch.int64)
    for number in range(1, 7):
        labels[:, 4 * number : 4 * number + 4] = number
    return one_hot(labels, 7)


def means(shape: ImageShape, n: int = 40) -> torch.Tensor:
    """The mean intensity of each image, channel and label, (n, channels, labels)."""
    family, source = build("label-gmm", shape), bands(n)
    made = family.sample({"source": source}, family.noise(n, SeededSource(0)))["image"]
    return torch.einsum("nchw,nlhw->ncl", (made + 1) / 2, source) / source.sum((2, 3))[:, None]


def test_known_contrasts_look_as_in_textbooks() -> None:
    t1, flair, t1ce = means(SHAPE).median(0).values
    csf, grey, white, edema, core, enhancing = range(1, 7)
    assert t1[csf] < t1[grey] < t1[white]
    assert flair[csf] < flair[white]
    assert flair[edema] == flair.max()
    assert t1ce[enhancing] == t1ce.max()
    assert t1ce[enhancing] > 1.3 * t1[enhancing]
    assert t1[core] < t1[white]
    assert max(t1[0], flair[0], t1ce[0]) < 0.1  # air


def test_unknown_names_get_any_intensity_and_vary() -> None:
    nameless = ImageShape(channels=1, size=(32, 32), source_channels=7)
    found = means(nameless, 200)[:, 0, 1:]
    assert found.min() < 0.25
    assert found.max() > 0.75
    assert (found.std(0) > 0.1).all()
    low, high = prior(nameless)
    assert low[0, 0, 1:].tolist() == pytest.approx([0.1] * 6)
    assert high[0, 0, 1:].tolist() == pytest.approx([0.9] * 6)


def test_other_spellings_are_known() -> None:
    spelled = ImageShape(
        channels=1, size=(32, 32), source_channels=3, channel_names=("T1c",), source_names=("air", "GM", "Whole_Tumour")
    )
    low, high = prior(spelled)
    assert low[0, 0].tolist() == pytest.approx([0, 0.82 * 0.47, 0.82 * 0.5])
    assert high[0, 0].tolist() == pytest.approx([0.02, 1.18 * 0.47, 1.18 * 0.5])


def test_images_of_one_map_differ_and_repeat_with_the_seed() -> None:
    family = build("label-gmm", SHAPE)
    made = family.sample({"source": bands(2)}, family.noise(2, SeededSource(0)))["image"]
    again = family.sample({"source": bands(2)}, family.noise(2, SeededSource(0)))["image"]
    assert torch.equal(made, again)
    assert (made[0] - made[1]).abs().mean() > 0.01


def test_there_is_nothing_to_train_or_to_protect() -> None:
    family = build("label-gmm", SHAPE, private=True)
    assert (family.phases, family.shared, family.sampler) == ((), (), ())
    assert not list(family.parameters())
    assert not family.state_dict()
    assert find("label-gmm").kind == "training-free"
