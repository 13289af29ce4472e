"""An image set in the forms that other tools take: a torch Dataset, and MONAI's list of dictionaries."""

from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset

from fedsynth.data.format import Header
from fedsynth.data.lazy_arrays import Stack


class Images(Protocol):
    """What is read of an image set."""

    @property
    def header(self) -> Header:
        """What the set says about itself."""

    @property
    def cases(self) -> pd.DataFrame:
        """A row per image."""

    @property
    def images(self) -> Stack:
        """The voxels."""

    @property
    def masks(self) -> Stack | None:
        """The masks, where there are any."""

    def __len__(self) -> int: ...


class TorchImages(Dataset[dict[str, Any]]):
    """Item i has `image` (float32 in [0, 1], channels first), `case`, `patient`, and `mask` and `label` where known.

    `mask` holds label numbers, `label` is the class number, -1 where an image has none. Voxels are read when asked for.
    """

    def __init__(self, images: Images) -> None:
        self.images = images
        number = {name: i for i, name in enumerate(images.header.classes)}
        self._labels = [number.get(name, -1) for name in images.cases["class"]]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> dict[str, Any]:
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        row %= len(self)
        cases = self.images.cases
        item: dict[str, Any] = {"image": torch.from_numpy(as_floats(np.array(self.images.images[row])))}
        item |= {"case": cases["case"].iloc[row], "patient": cases["patient"].iloc[row]}
        if self.images.masks is not None:
            item["mask"] = torch.from_numpy(np.array(self.images.masks[row], np.int64))
        if self.images.header.classes:
            item["label"] = self._labels[row]
        return item


def as_dicts(images: Images) -> list[dict[str, Any]]:
    """A dictionary per image with arrays under `image` and, as MONAI calls masks, `label`; and the row of the table."""
    found = []
    for row, case in enumerate(images.cases.to_dict("records")):
        item: dict[str, Any] = {"image": as_floats(np.asarray(images.images[row]))}
        if images.masks is not None:
            item["label"] = np.asarray(images.masks[row])[None]  # MONAI wants a channel axis
        found.append(item | {str(key): value for key, value in case.items()})
    return found


def as_floats(values: np.ndarray) -> np.ndarray:
    """Float32 in [0, 1]."""
    return np.asarray(values, np.float32) / 255 if values.dtype == np.uint8 else np.asarray(values, np.float32)
