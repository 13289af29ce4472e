"""The forms that other tools take hold what the set holds."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tests.training.tiny import tiny_set


def test_a_torch_dataset_gives_every_image_with_its_mask_and_class():
    images = tiny_set()
    data = images.dataset()
    assert len(data) == len(images)
    item = data[4]
    whole = np.asarray(images.images[4], np.float32)
    expected = whole / 255 if images.images.dtype == np.uint8 else whole
    np.testing.assert_allclose(item["image"].numpy(), expected, rtol=1e-6)
    assert item["mask"].dtype == torch.int64
    np.testing.assert_array_equal(item["mask"].numpy(), images.masks[4])
    assert item["label"] == images.header.classes.index(images.cases["class"].iloc[4])
    assert [data[row]["label"] for row in range(len(data))].count(-1) == (images.cases["class"] == "").sum()
    assert data[-1]["case"] == images.cases["case"].iloc[-1]
    with pytest.raises(IndexError):
        data[len(images)]
    batch = next(iter(DataLoader(data, batch_size=3)))
    assert batch["image"].shape == (3, 1, 8, 8)


def test_dictionaries_carry_the_row_of_the_table():
    images = tiny_set()
    item = images.as_dicts()[2]
    assert item["image"].shape == (1, 8, 8)
    assert item["label"].shape == (1, 8, 8)
    assert item["patient"] == images.cases["patient"].iloc[2]
