"""From a released sampler to images: how many of which class, from which seed, in blocks that fit into memory."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from fedsynth.errors import ConfigError, nearest
from fedsynth.models.base import Family, SeededSource, Tensors
from fedsynth.training.random_streams import stream_seed

Source = Callable[[int, int], torch.Tensor]


def parse_mix(text: str, classes: tuple[str, ...]) -> dict[str, float]:
    """`high-grade=0.5,healthy=0.5` as shares that add up to one; classes not named get none."""
    mix: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = part.partition("=")
        if name not in classes:
            raise ConfigError("--mix names an unknown class", value=name, remedy=nearest(name, classes))
        try:
            mix[name] = float(share)
        except ValueError as error:
            raise ConfigError("--mix needs class=share,...", value=part) from error
    total = sum(mix.values())
    if not total > 0 or any(not 0 <= share < float("inf") for share in mix.values()):
        raise ConfigError("the shares of --mix must not be negative, nor all zero", value=text)
    return {name: share / total for name, share in mix.items()}


def class_counts(count: int, classes: tuple[str, ...], mix: Mapping[str, float]) -> dict[str, int]:
    """How many images of each class: as near the shares as whole numbers allow, `count` in all."""
    exact = np.array([count * mix.get(name, 0.0) for name in classes])
    whole = np.floor(exact).astype(int)
    missing = count - int(whole.sum())
    for index in np.argsort(whole - exact, kind="stable")[:missing]:
        whole[index] += 1
    return dict(zip(classes, whole.tolist(), strict=True))


def sample_blocks(
    family: Family, labels: NDArray[np.int64], *, seed: int, source: Source | None = None, block: int = 32
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.uint8] | None]]:
    """Images in [0, 1] and masks, in blocks; image i depends on the seed and i only, not on how many are made.

    `labels` holds a class number per image, -1 where there is none; `source(start, stop)` gives what paired families
    turn into images.
    """
    device = next(family.parameters(), torch.zeros(())).device
    for start in range(0, len(labels), block):
        stop = min(len(labels), start + block)
        parts = [family.noise(1, SeededSource(stream_seed(seed, "sample", i))) for i in range(start, stop)]
        noise = {name: torch.cat([part[name] for part in parts]).to(device) for name in parts[0]} if parts else {}
        condition: Tensors = {}
        if family.shape.n_classes:
            one_hot = torch.eye(family.shape.n_classes + 1, family.shape.n_classes)
            condition["label"] = one_hot[torch.from_numpy(labels[start:stop])].to(device)
        if source is not None:
            condition["source"] = source(start, stop).to(device)
        with torch.no_grad():
            made = family.sample(condition, noise)
        yield _to_arrays(made)


def _to_arrays(made: Tensors) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
    image = ((made["image"].clamp(-1, 1) + 1) / 2).float().cpu().numpy()
    mask = made["mask"].argmax(1).to(torch.uint8).cpu().numpy() if "mask" in made else None
    return image, mask
