"""A smallest joint family and image set: enough to test the loop by hand."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from fedsynth.data import Header, ImageSet
from fedsynth.models.base import Family, ImageShape, Phase, RandomSource, Tensors, joined, parted


class TinyGan(Family):
    """Linear generator and discriminator, hinge-free Wasserstein losses: gradients can be written down."""

    phases = (Phase(net="discriminator", reads_patients=True), Phase(net="generator", reads_patients=False, interval=2))
    shared = ("generator", "discriminator")

    def __init__(self, shape: ImageShape) -> None:
        n = shape.joint_channels * int(np.prod(shape.size))
        self.joint_size = (shape.joint_channels, *shape.size)
        super().__init__(shape, {"generator": nn.Linear(4 + shape.n_classes, n), "discriminator": nn.Linear(n, 1)})

    def noise(self, n: int, rng: RandomSource) -> Tensors:
        return {"z": rng.normal((n, 4))}

    def fakes(self, condition: Tensors, noise: Tensors) -> Tensor:
        made = self.nets["generator"](torch.cat([noise["z"], condition["label"]], 1))
        return torch.tanh(made).reshape(-1, *self.joint_size)

    def real_loss(self, phase: Phase, batch: Tensors, noise: Tensors, progress: float) -> Tensor:
        return -self.nets["discriminator"](self.seen(joined(batch), noise).flatten(1))[:, 0]

    def fake_loss(self, phase: Phase, condition: Tensors, noise: Tensors, progress: float) -> Tensor:
        sign = 1 if phase.net == "discriminator" else -1
        fakes = self.fakes(condition, noise)
        return sign * self.nets["discriminator"](self.seen(fakes, noise).flatten(1))[:, 0]

    def sample(self, condition: Tensors, noise: Tensors) -> Tensors:
        return parted(self.fakes(condition, noise), self.shape)


def tiny_set(patients: int = 6, slices: int = 3, size: int = 8) -> ImageSet:
    rng = np.random.default_rng(0)
    n = patients * slices
    rows = [
        {
            "case": f"c{i}",
            "patient": f"p{i // slices}",
            "site": "one",
            "role": "member",
            "class": ["a", "b", ""][(i // slices) % 3],
            "slice": str(i % slices),
        }
        for i in range(n)
    ]
    header = Header(
        name="tiny",
        origin="real",
        channels=("t1",),
        classes=("a", "b"),
        mask_labels=("background", "lesion"),
        spacing_mm=(1.0, 1.0),
    )
    return ImageSet(
        header=header,
        cases=pd.DataFrame(rows, dtype=str),
        images=rng.integers(0, 256, (n, 1, size, size), dtype=np.uint8),
        masks=rng.integers(0, 2, (n, size, size), dtype=np.uint8),
    )
