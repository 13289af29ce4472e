"""A small network, trained here within seconds, that brings images of one patient together: sees leaked identities.

InfoNCE over patients: two changed images of a patient, of one slice or of two, are to be nearer to each other than to
those of other patients. It learns from members and holdout alike.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save, save_file
from torch import Generator, Tensor, nn

from fedsynth.data import ImageSet
from fedsynth.data.lazy_arrays import blocks
from fedsynth.errors import ConfigError
from fedsynth.evaluation.feature_spaces.appearance import EDGE, Grid, appearances, pooled
from fedsynth.evaluation.feature_spaces.grid_space import Features, GridSpace, remembered
from fedsynth.evaluation.score import content_hash
from fedsynth.evaluation.shared_cache import Form, SharedCache
from fedsynth.models.base import global_randomness

# Random changes that leave a patient the same patient: what the encoder learns to look past.
#
# Each image gets its own movement, warp, blur, noise and contrast, drawn from one generator. 2-D and 3-D.


@dataclass(frozen=True, kw_only=True)
class Changes:
    """How much at most. Shares of the frame, degrees, of ranks from -0.5 to 0.5."""

    degrees: float = 15.0
    zoom: float = 0.25
    shift: float = 0.06
    warp: float = 0.02
    noise: float = 0.07
    curve: float = 0.5
    blurred: float = 0.3
    mirrored: float = 0.0


def augment(images: Tensor, changes: Changes, generator: Generator) -> Tensor:
    """Changed copies of `images` (n, channels, *cells)."""
    n, axes = len(images), images.ndim - 2

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(n, *(shape or (1,) * (axes + 1)), generator=generator) * (high - low) + low

    movement = _movements(n, axes, changes, draw(-1, 1, 2 + axes), draw(0, 1, 1))
    places = F.affine_grid(movement, list(images.shape), align_corners=False)
    rough = torch.randn(n, axes, *(5,) * axes, generator=generator) * changes.warp
    warp = F.interpolate(rough, size=images.shape[2:], mode="bilinear" if axes == 2 else "trilinear")
    moved = F.grid_sample(images, places + warp.movedim(1, -1), align_corners=False)
    pool = F.avg_pool2d if axes == 2 else F.avg_pool3d
    blurred = torch.nonzero(draw(0, 1, 1)[:, 0] < changes.blurred)[:, 0]
    moved[blurred] = pool(moved[blurred], 3, 1, 1)
    curved = moved + draw(-changes.curve, changes.curve) * (0.25 - moved.square()) * (moved != 0)
    noise = torch.randn(images.shape, generator=generator) * draw(0, changes.noise)
    return curved + noise


def _movements(n: int, axes: int, changes: Changes, drawn: Tensor, mirror: Tensor) -> Tensor:
    """Affine maps: a turn in the first plane, a zoom, mostly in, a shift and sometimes a mirror."""
    angle = drawn[:, 0] * changes.degrees * torch.pi / 180
    scale = 1 + changes.zoom * torch.where(drawn[:, 1] < 0, drawn[:, 1], drawn[:, 1] / 3)
    movement = torch.zeros(n, axes, axes + 1)
    for axis in range(axes):
        movement[:, axis, axis] = scale
    movement[:, 0, 0], movement[:, 0, 1] = scale * angle.cos(), -scale * angle.sin()
    movement[:, 1, 0], movement[:, 1, 1] = scale * angle.sin(), scale * angle.cos()
    movement[:, :, 0] *= torch.where(mirror < changes.mirrored, -1.0, 1.0)
    movement[:, :, -1] = drawn[:, 2:] * 2 * changes.shift
    return movement


WIDTH = {2: 32, 3: 16}
NUMBERS = 64
PATIENTS = 64
"""Patients in an update."""
EXPOSURES, FEWEST_STEPS, MOST_STEPS = 100, 200, 320
"""Updates are as many as show every patient so often, within these bounds: some five seconds in 2-D."""
SAME_IMAGE = 0.5
"""The share of pairs that are two changes of one image; the others are different images of the patient."""
TEMPERATURE, RATE, DECAY = 0.1, 3e-3, 1e-2
MEMORY = (0.9, 0.999)
GAIN = 3.0
"""Ranks have a deviation of about a third; the network gets them at one."""
FORMAT = "fedsynth-encoder-2"
AT_ONCE = 256
MOST = 20_000
"""Images kept to learn from, evenly drawn."""


class Encoder(GridSpace):
    """Sixty-four numbers of unit length per image."""

    name = "encoder"
    n_orientations = 2
    n_inverted = 0

    def __init__(
        self,
        *,
        steps: int | None = None,
        changes: Changes | None = None,
        weights: Path | None = None,
        kept: SharedCache | None = None,
    ) -> None:
        super().__init__()
        self.kept = kept or SharedCache()
        self.weights = weights
        self.name = self.name if weights is None else weights.stem
        self.steps = steps
        self.changes = changes or Changes()
        self.network: nn.Module | None = None

    def grids(self, images: ImageSet) -> Grid:
        """Ranks of the images as they lie, on half as many cells along each axis."""
        ranks = remembered(images, "appearance", lambda: appearances(images.images))
        coarser = ((start, pooled(grid, _edge(images.size))) for start, grid in blocks(ranks))
        return remembered(images, "coarse appearance", lambda: coarser)

    def fit(self, real: ImageSet, *, seed: int) -> None:
        """Train on `real`, or take the weights given or kept; the same seed gives the same network on one thread."""
        if self.weights is not None:
            self.network = load_network(self.weights, real)
            super().fit(real, seed=seed)
            return
        self.network = self._learn(real, seed) if self.kept.folder is None else self._learned_once(real, seed)
        super().fit(real, seed=seed)

    def _learned_once(self, real: ImageSet, seed: int) -> nn.Module:
        """As `_learn`, by the first of all runs of this real set."""
        facts = {"what": "encoder", "real": content_hash(real), "header": repr(real.header), "seed": seed}
        facts |= {"steps": self.steps, "changes": asdict(self.changes), "threads": torch.get_num_threads()}
        weights = self.kept.get(facts, lambda: self._learn(real, seed).state_dict(), WEIGHTS)
        grid = self.grids(real)
        with global_randomness(0):
            net = network(grid.shape[1], torch.Size(grid.shape[2:]))
        net.load_state_dict(weights)
        return net

    def _learn(self, real: ImageSet, seed: int) -> nn.Module:
        rng = np.random.default_rng([seed, *b"encoder"])
        chosen = np.sort(rng.permutation(len(real))[:MOST])
        grid = torch.from_numpy(self.grids(real)[chosen])
        cases = real.cases.iloc[chosen]
        names = cases["patient"].where(cases["patient"] != "", cases["case"])
        owner = np.unique(names.to_numpy().astype(str), return_inverse=True)[1]
        telling = grid.flatten(1).any(dim=1).numpy()
        with global_randomness(int(rng.integers(2**31))):
            net = network(grid.shape[1], grid.shape[2:])
        if len(np.unique(owner[telling])) > 1:
            self._train(net, grid, [np.flatnonzero(telling & (owner == one)) for one in np.unique(owner)], rng)
        return net

    def embed(self, grid: Grid) -> Features:
        """What the network makes of the grids."""
        if self.network is None:
            raise RuntimeError("the encoder was not trained")
        with torch.no_grad():
            parts = torch.split(torch.from_numpy(np.ascontiguousarray(grid)), AT_ONCE)
            found: Features = torch.cat([_forward(self.network, part) for part in parts]).numpy()
        return found

    def _train(self, net: nn.Module, grid: Tensor, rows_of: list[np.ndarray], rng: np.random.Generator) -> None:
        rows_of = [rows for rows in rows_of if len(rows)]
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        update = _Adam(net)
        shown = EXPOSURES * len(rows_of) // min(PATIENTS, len(rows_of))
        steps = self.steps or min(MOST_STEPS, max(FEWEST_STEPS, shown))
        fastest = torch.channels_last if grid.ndim == 4 else torch.channels_last_3d
        for step in range(steps):
            patients = rng.permutation(len(rows_of))[:PATIENTS]
            pairs = np.array([rng.choice(rows_of[patient], 2) for patient in patients])
            pairs[:, 1] = np.where(rng.random(len(pairs)) < SAME_IMAGE, pairs[:, 0], pairs[:, 1])
            changed = augment(grid[pairs.T.ravel()], self.changes, generator).contiguous(memory_format=fastest)
            loss = contrast(*_forward(net, changed).chunk(2))
            update(loss, RATE * math.sin(math.pi * (step + 1) / (steps + 1)))


def _read_weights(kept: bytes) -> dict[str, Tensor]:
    try:
        return load(kept)
    except SafetensorError as error:
        raise ValueError("damaged") from error


WEIGHTS = Form(ending=".safetensors", write=save, read=_read_weights)


def save_network(path: Path, net: nn.Module, *, channels: int, cells: Sequence[int]) -> None:
    """Write a trained network for use with other data, as `load_network` reads it."""
    about = {"network": FORMAT, "channels": str(channels), "cells": ",".join(map(str, cells))}
    save_file(net.state_dict(), path, metadata=about)


def load_network(path: Path, real: ImageSet) -> nn.Module:
    """The network that `save_network` wrote, if it takes grids like those of `real`."""
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ConfigError("cannot be read as safetensors", file=path) from error
    if about.get("network") != FORMAT:
        remedy = "give other networks as TorchScript (.pt)"
        raise ConfigError(f"is not an encoder of fedsynth ({FORMAT!r} in its metadata)", file=path, remedy=remedy)
    cells = torch.Size(int(size) for size in about["cells"].split(","))
    asked = (real.images.shape[1], *(min(_edge(real.size), size) for size in real.size))
    if (int(about["channels"]), *cells) != asked:
        raise ConfigError(f"is for other images: channels and cells {about['channels']}, {about['cells']}", file=path)
    net = network(int(about["channels"]), cells)
    net.load_state_dict(found)
    return net


class _Adam:
    """AdamW by hand on all parameters as one row: torch's takes seconds to import what it does not need here."""

    def __init__(self, net: nn.Module) -> None:
        self.parameters = list(net.parameters())
        self.row = torch.cat([parameter.detach().flatten() for parameter in self.parameters])
        sizes = [parameter.numel() for parameter in self.parameters]
        for parameter, part in zip(self.parameters, torch.split(self.row, sizes), strict=True):
            parameter.data = part.view_as(parameter)
        self.mean, self.square = torch.zeros_like(self.row), torch.zeros_like(self.row)
        self.steps = 0

    def __call__(self, loss: Tensor, rate: float) -> None:
        """One step down `loss`."""
        self.steps += 1
        gradient = torch.cat([found.flatten() for found in torch.autograd.grad(loss, self.parameters)])
        with torch.no_grad():
            self.mean.lerp_(gradient, 1 - MEMORY[0])
            self.square.lerp_(gradient.square(), 1 - MEMORY[1])
            size = (self.square / (1 - MEMORY[1] ** self.steps)).sqrt_().add_(1e-8)
            self.row.mul_(1 - rate * DECAY)
            self.row.addcdiv_(self.mean, size, value=-rate / (1 - MEMORY[0] ** self.steps))


def contrast(one: Tensor, other: Tensor) -> Tensor:
    """InfoNCE both ways: row i of `one` belongs to row i of `other` and to none of the rest. Unit lengths."""
    likeness = one @ other.T / TEMPERATURE
    own = torch.arange(len(one))
    return (F.cross_entropy(likeness, own) + F.cross_entropy(likeness.T, own)) / 2


def _edge(size: Sequence[int]) -> int:
    """Cells along an axis: half as fine as the appearance's serve as well and cost a third."""
    return EDGE[len(size)] // 2


def network(channels: int, cells: torch.Size) -> nn.Module:
    """Three strided convolutions and a linear map, for grids of `cells`."""
    convolution = nn.Conv2d if len(cells) == 2 else nn.Conv3d
    layers: list[nn.Module] = []
    width, left = channels, list(cells)
    for out in (WIDTH[len(cells)] * factor for factor in (1, 2, 4)):
        layers += [convolution(width, out, 3, 2, 1), nn.GroupNorm(4, out), nn.ReLU()]
        width, left = out, [(size + 1) // 2 for size in left]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * int(np.prod(left)), NUMBERS))


def _forward(net: nn.Module, grid: Tensor) -> Tensor:
    return F.normalize(net(grid * GAIN))
