"""One site's images as tensors: which rows belong to which patient, and batches on demand."""

from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedsynth.data import ImageSet
from fedsynth.errors import FedSynthError
from fedsynth.models.base import ImageShape, Tensors


class PatientBatches:
    """The training images of one hospital (or of a pooled set), read as they are asked for.

    `fetch` gives images in [-1, 1], masks and classes one-hot, sample axis first.
    """

    def __init__(self, images: ImageSet, *, device: torch.device | None = None) -> None:
        if not len(images):
            raise FedSynthError("there are no images to train on", remedy="give the set members, or select other roles")
        self.images = images
        self.device = device or torch.device("cpu")

    @property
    def count(self) -> int:
        """How many images there are."""
        return len(self.images)

    @cached_property
    def shape(self) -> ImageShape:
        """What a family must be built for."""
        header = self.images.header
        return ImageShape(
            channels=len(header.channels),
            size=self.images.size,
            n_classes=len(header.classes),
            n_labels=len(header.mask_labels),
            channel_names=header.channels,
            class_names=header.classes,
            label_names=header.mask_labels,
        )

    @cached_property
    def patients(self) -> list[str]:
        """The patients, in alphabetical order."""
        return sorted(set(self.images.cases["patient"]))

    @cached_property
    def rows(self) -> list[NDArray[np.int64]]:
        """The row numbers of each patient's images, in the order of `patients`."""
        grouped = self.images.cases.groupby("patient", sort=True).indices
        return [np.sort(grouped[patient]).astype(np.int64) for patient in self.patients]

    @cached_property
    def class_shares(self) -> NDArray[np.float64]:
        """The share of images in each class: a fact about patients, for plain runs only."""
        counts = np.bincount(self._class_numbers[self._class_numbers >= 0], minlength=self.shape.n_classes)
        return np.asarray(counts / max(1, counts.sum()), np.float64)

    @cached_property
    def _class_numbers(self) -> NDArray[np.int64]:
        number = {name: i for i, name in enumerate(self.images.header.classes)}
        return np.array([number.get(name, -1) for name in self.images.cases["class"]], np.int64)

    def fetch(self, rows: NDArray[np.int64]) -> Tensors:
        """The images at `rows`; an image without a class has a label of zeros."""
        batch = {"image": self._tensor(_unit(self.images.images[rows]) * 2 - 1)}
        if self.images.masks is not None:
            batch["mask"] = self._tensor(_one_hot(self.images.masks[rows], self.shape.n_labels))
        if self.shape.n_classes:
            one_hot = np.eye(self.shape.n_classes + 1, self.shape.n_classes, dtype=np.float32)
            batch["label"] = self._tensor(one_hot[self._class_numbers[rows]])
        return batch

    def _tensor(self, array: NDArray[np.float32]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


def _unit(images: NDArray[Any]) -> NDArray[np.float32]:
    if images.dtype == np.uint8:
        return np.asarray(np.divide(images, np.float32(255), dtype=np.float32))
    return np.asarray(images, np.float32)


def _one_hot(masks: NDArray[np.uint8], n_labels: int) -> NDArray[np.float32]:
    labels = np.arange(n_labels, dtype=np.uint8).reshape(-1, *[1] * (masks.ndim - 1))
    return np.asarray(masks[:, None] == labels[None], np.float32)
