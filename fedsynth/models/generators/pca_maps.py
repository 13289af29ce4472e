"""Label maps given the class: signed distances of every label about the lesion's centre, reduced by PCA.

Coefficients and centre follow a small mixture of Gaussians. Smoothed shapes lose their small labels, so each label is
widened until drawn maps have as much of it as real ones on average. Everything is fitted by sums over maps, so that
sites fit one model together: a sketch of the covariance, one more subspace iteration, moments, then EM.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from fedsynth.errors import FedSynthError
from fedsynth.models.base import Family, ImageShape, Phase, RandomSource, SeededSource, Tensors
from fedsynth.models.generators.catalog import Entry, Recipe, register

NET = "maps"
CLIP = 5.0  # voxels: how far from its border a label is distinguished from everything else
VARIANCE = 0.98  # that the modes kept explain
FEWEST = 4  # maps with a lesion per mode, and without which a class borrows the shapes of all
PER_COMPONENT, COMPONENTS = 15, 4
SHRINKAGE, FLOOR = 0.3, 0.05  # of a component's covariance: towards the common one, and added to its diagonal
EM_PASSES = 6
SKETCH, SUBSPACE, MOMENTS = 0, 1, 2
TRIALS, SWEEPS, HALVINGS = 100, 3, 10  # maps drawn to set the widths of labels, and how their search goes

Labels = NDArray[np.uint8]


class MapStatistics(nn.Module):
    """What is fitted, one row per class and a last one for all maps together."""

    counts: Tensor
    areas: Tensor
    widths: Tensor
    mean: Tensor
    modes: Tensor
    shares: Tensor
    means: Tensor
    covariances: Tensor
    common: Tensor

    def __init__(self, shape: ImageShape, modes: int) -> None:
        super().__init__()
        rows, voxels = shape.n_classes + 1, (shape.n_labels - 1) * int(np.prod(shape.size))
        code = modes + shape.dimensions
        first = {
            "counts": torch.zeros(rows, 2, dtype=torch.float64),  # maps, and maps with a lesion
            "areas": torch.zeros(rows, shape.n_labels - 1),  # of each label, in the mean map with a lesion
            "widths": torch.zeros(rows, shape.n_labels - 1),  # voxels by which a label's border is moved out
            "mean": torch.zeros(rows, voxels),
            "modes": torch.randn(modes, voxels).expand(rows, -1, -1).clone(),  # the sketch that the fit starts from
            "shares": torch.ones(rows, COMPONENTS) / COMPONENTS,
            "means": torch.randn(rows, COMPONENTS, code),
            "covariances": torch.eye(code).expand(rows, COMPONENTS, -1, -1).clone(),
            "common": torch.eye(code).expand(rows, -1, -1).clone(),
        }
        for name, value in first.items():
            self.register_buffer(name, value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "MapStatistics":
        """Stay on the CPU wherever the family goes: maps are fitted and drawn there, in float64."""
        return self


class PcaMaps(Family):
    """Draws label maps; it takes no step."""

    phases: tuple[Phase, ...] = ()
    shared = (NET,)
    sampler = (NET,)
    passes = MOMENTS + 1 + EM_PASSES
    fitted = (NET,)
    pooled = (NET,)

    def __init__(self, shape: ImageShape, *, modes: int) -> None:
        self.modes = min(modes, (shape.n_labels - 1) * int(np.prod(shape.size)))
        super().__init__(shape, {NET: MapStatistics(shape, self.modes)})

    @property
    def statistics(self) -> MapStatistics:
        """The fitted buffers."""
        net = self.nets[NET]
        assert isinstance(net, MapStatistics)
        return net

    def noise(self, n: int, rng: RandomSource) -> Tensors:
        """Whether there is a lesion, which component, and where in it."""
        return {
            "chance": rng.uniform((n, 2)),
            "code": rng.normal((n, self.modes + self.shape.dimensions)),
        }

    def sums(self, number: int, batch: Tensors) -> Tensors:
        """Counts, means and sketch; then the sketch once more; then moments of coefficients and centre; then EM."""
        masks = batch["mask"].argmax(1).cpu().numpy().astype(np.uint8)
        rows = self._rows(batch, len(masks))
        ill = (masks > 0).reshape(len(masks), -1).any(1)
        fields, centres = _aligned(masks[ill], self.shape)
        rows_ill = rows[torch.from_numpy(ill)]
        named: Tensors = {}
        if number == SKETCH:
            named = {"counts": torch.stack([rows.sum(0), rows_ill.sum(0)], 1), "fields": rows_ill.T @ fields}
            named["areas"] = rows_ill.T @ _areas(torch.from_numpy(masks[ill]), self.shape.n_labels)
        if number <= SUBSPACE:
            named["sketch"] = torch.stack([self._sketched(number, k, fields, r) for k, r in enumerate(rows_ill.T)])
        elif number == MOMENTS:
            parts = [_moments(self._codes(k, fields, centres), r[:, None]) for k, r in enumerate(rows_ill.T)]
            named = {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
            spread = [(fields - self.statistics.mean[k].double()).square().sum(1) @ r for k, r in enumerate(rows_ill.T)]
            named["spread"] = torch.stack(spread)
        else:
            parts = []
            for k, r in enumerate(rows_ill.T):
                codes = self._codes(k, fields, centres)
                parts.append(_moments(codes, self._responsibilities(k, codes) * r[:, None]))
            named = {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
        return {f"{NET}.{name}": value for name, value in named.items()}

    def fit(self, number: int, sums: Tensors) -> None:
        """See `sums`."""
        own = {name.split(".")[1]: value.double() for name, value in sums.items()}
        if number == SKETCH:
            self._fit_means(own)
        if number <= SUBSPACE:
            self._fit_modes(own["sketch"], centred=number == SUBSPACE)
        elif number == MOMENTS:
            self._fit_moments(own)
        else:
            for row in range(len(self.statistics.counts)):
                self._maximise(row, own["weight"][row], own["first"][row], own["second"][row])
        if number == self.passes - 1:
            self._set_widths()

    def sample(self, condition: Tensors, noise: Tensors) -> Tensors:
        """One-hot maps under `mask`; the image has no channels."""
        chance, code = noise["chance"].cpu().double(), noise["code"].cpu().double()
        rows = self._rows(condition, len(chance))
        masks = np.zeros((len(chance), *self.shape.size), np.uint8)
        for i in range(len(chance)):
            own = int(rows[i].nonzero()[0])
            n, ill = self.statistics.counts[own].tolist()
            if chance[i, 0] * n < ill:
                masks[i] = self._drawn(own if ill >= FEWEST else -1, float(chance[i, 1]), code[i])
        mask = torch.eye(self.shape.n_labels)[torch.from_numpy(masks).long()].movedim(-1, 1)
        mask = mask.to(noise["code"])
        return {"image": mask[:, :0], "mask": mask}

    def _rows(self, batch: Tensors, n: int) -> Tensor:
        """(n, rows): which rows a map counts in: its class's, where it has one, and that of all."""
        label = batch["label"].cpu().double() if "label" in batch else torch.zeros(n, 0, dtype=torch.float64)
        return torch.cat([label, torch.ones(n, 1, dtype=torch.float64)], 1)

    def _sketched(self, number: int, row: int, fields: Tensor, weight: Tensor) -> Tensor:
        """The (second moment or covariance, not divided) times the modes: (modes, voxels)."""
        modes, shown = self.statistics.modes[row].double(), fields
        if number == SUBSPACE:
            shown = fields - self.statistics.mean[row].double()
        return (shown @ modes.T * weight[:, None]).T @ shown

    def _codes(self, row: int, fields: Tensor, centres: Tensor) -> Tensor:
        """Coefficients and centre of each map, by the row's modes."""
        statistics = self.statistics
        return torch.cat([(fields - statistics.mean[row].double()) @ statistics.modes[row].double().T, centres], 1)

    def _fit_means(self, own: Tensors) -> None:
        if own["counts"][-1, 1] < FEWEST:
            found = f"{int(own['counts'][-1, 1])} of {int(own['counts'][-1, 0])} label maps name anything"
            raise FedSynthError(
                f"the model of label maps would draw empty ones only: {found}, and it takes {FEWEST}",
                remedy="give more images with a lesion, or choose a family without maps such as dcgan",
            )
        self.statistics.counts.copy_(own["counts"])
        self.statistics.mean.copy_(own["fields"] / own["counts"][:, 1:].clamp(min=1))
        self.statistics.areas.copy_(own["areas"] / own["counts"][:, 1:].clamp(min=1))

    def _fit_modes(self, sketch: Tensor, *, centred: bool) -> None:
        statistics = self.statistics
        for row, found in enumerate(sketch):
            if not centred:
                mean, n = statistics.mean[row].double(), float(statistics.counts[row, 1])
                found = found - n * (statistics.modes[row].double() @ mean)[:, None] * mean
            statistics.modes[row].copy_(torch.linalg.qr(found.T)[0].T)

    def _fit_moments(self, own: Tensors) -> None:
        """Turn the modes to the principal axes, drop those that few maps support, and begin the mixture."""
        statistics, d = self.statistics, self.shape.dimensions
        for row, n in enumerate(own["weight"][:, 0].tolist()):  # who was silent in the first pass may answer now
            if n < FEWEST:
                continue
            mean = own["first"][row, 0] / n
            covariance = own["second"][row, 0] / n - torch.outer(mean, mean)
            values, phase = torch.linalg.eigh(covariance[:-d, :-d])
            values, phase = values.flip(0).clamp(min=0), phase.flip(1)
            explained = values.cumsum(0) / (own["spread"][row] / n).clamp(min=1e-9)
            kept = min(int(n // FEWEST), int((explained < VARIANCE).sum()) + 1)
            voxels = torch.arange(1.0, statistics.modes.shape[2] + 1, dtype=phase.dtype)
            signs = (phase.T @ statistics.modes[row].double() @ voxels).sign()  # or rounding may turn an axis round
            phase = phase * signs * (torch.arange(len(phase)) < kept)
            statistics.modes[row].copy_(phase.T @ statistics.modes[row].double())
            turned = torch.eye(len(phase) + d, dtype=torch.float64)
            turned[:-d, :-d] = phase
            self._begin_mixture(row, turned.T @ mean, turned.T @ covariance @ turned, n)

    def _begin_mixture(self, row: int, mean: Tensor, covariance: Tensor, n: float) -> None:
        statistics, number = self.statistics, max(1, min(COMPONENTS, int(n // PER_COMPONENT)))
        covariance = covariance + FLOOR * torch.eye(len(mean), dtype=torch.float64)
        root = torch.linalg.cholesky(covariance)
        statistics.common[row].copy_(covariance)
        statistics.covariances[row].copy_(covariance.expand(COMPONENTS, -1, -1))
        statistics.means[row].copy_(mean + (statistics.means[row].double() @ root.T if number > 1 else 0))
        statistics.shares[row].copy_((torch.arange(COMPONENTS) < number).double() / number)

    def _responsibilities(self, row: int, codes: Tensor) -> Tensor:
        """(n, components) shares of each code."""
        statistics, scores = self.statistics, []
        for j in range(COMPONENTS):
            root = torch.linalg.cholesky(statistics.covariances[row, j].double())
            apart = torch.linalg.solve_triangular(root, (codes - statistics.means[row, j].double()).T, upper=False)
            scores.append(-apart.square().sum(0) / 2 - root.diagonal().log().sum())
        return (torch.stack(scores, 1) + statistics.shares[row].double().log()).softmax(1)

    def _maximise(self, row: int, weight: Tensor, first: Tensor, second: Tensor) -> None:
        """The M step, each covariance shrunk towards the common one."""
        statistics, n = self.statistics, float(self.statistics.counts[row, 1])
        if n < FEWEST:
            return
        number, size = int((statistics.shares[row] > 0).sum()), first.shape[1]
        common = statistics.common[row].double() / max(1, number) ** (2 / size)
        floor = FLOOR * torch.eye(size, dtype=torch.float64)
        statistics.shares[row].copy_(weight / weight.sum())
        for j in range(COMPONENTS):
            if weight[j] < 1:  # no map is left to it
                continue
            mean = first[j] / weight[j]
            covariance = second[j] / weight[j] - torch.outer(mean, mean)
            statistics.means[row, j].copy_(mean)
            statistics.covariances[row, j].copy_((1 - SHRINKAGE) * covariance + SHRINKAGE * common + floor)

    def _set_widths(self) -> None:
        """Bisect each label's width in turn, on the same drawn maps."""
        rng, statistics = SeededSource(0), self.statistics
        chance, normal = rng.uniform((TRIALS,)).tolist(), rng.normal((TRIALS, statistics.means.shape[2])).double()
        for row, n in enumerate(statistics.counts[:, 1].tolist()):
            if n < FEWEST:
                continue
            codes = [self._code(row, chance[i], normal[i]) for i in range(TRIALS)]
            fields = self._fields(row, torch.stack(codes)).float()
            for label in [*range(len(statistics.widths[row]))] * SWEEPS:
                width, step, tried = float(statistics.widths[row, label]), CLIP, []
                area = _area_by_width(fields, statistics.widths[row], label)
                for _ in range(HALVINGS):
                    statistics.widths[row, label] = width
                    found = area(statistics.widths[row, label]) / TRIALS
                    lacking, step = float(statistics.areas[row, label]) - found, step / 2
                    tried.append((abs(lacking), abs(width), width))
                    width += step if lacking > 0 else -step
                statistics.widths[row, label] = min(tried)[2]

    def _code(self, row: int, chance: float, normal: Tensor) -> Tensor:
        statistics = self.statistics
        reached = int((statistics.shares[row].cumsum(0) < chance).sum())
        component = min(reached, int(statistics.shares[row].nonzero()[-1]))
        root = torch.linalg.cholesky(statistics.covariances[row, component].double())
        code: Tensor = statistics.means[row, component].double() + root @ normal
        return code

    def _fields(self, row: int, codes: Tensor) -> Tensor:
        """Distances (n, labels, ...) of codes, about the middle."""
        statistics = self.statistics
        fields = statistics.mean[row].double() + codes[:, : self.modes] @ statistics.modes[row].double()
        return fields.reshape(len(codes), -1, *self.shape.size)

    def _drawn(self, row: int, chance: float, normal: Tensor) -> Labels:
        code = self._code(row, chance, normal)
        mask = _labels(self._fields(row, code[None]), self.statistics.widths[row])[0]
        return shifted(mask.numpy().astype(np.uint8), code[self.modes :].numpy())


def _labels(fields: Tensor, widths: Tensor) -> Tensor:
    """The label that reaches furthest at each voxel (n, ...), or background where none does."""
    fields = _widened(fields, widths)
    furthest: Tensor = torch.cat([-fields.amax(1, keepdim=True), fields], 1).argmax(1)
    return furthest


def _area_by_width(fields: Tensor, widths: Tensor, label: int) -> Callable[[Tensor], float]:
    """How many voxels `_labels` gives this label as a function of its width, the others' kept: they are seen once."""
    others = _widened(fields, widths)
    nothing = torch.zeros_like(others[:, :1])
    before = torch.cat([nothing, others[:, :label]], 1).amax(1)  # the first of equals is taken
    behind = torch.cat([nothing, others[:, label + 1 :]], 1).amax(1)

    def area(width: Tensor) -> float:
        own = fields[:, label] + width
        return float(((own > before) & (own >= behind)).sum())

    return area


def _widened(fields: Tensor, widths: Tensor) -> Tensor:
    return fields + widths.reshape(-1, *[1] * (fields.dim() - 2))


def _areas(masks: Tensor, n_labels: int) -> Tensor:
    """Voxels of each label but background (n, labels)."""
    return torch.stack([(masks == label).flatten(1).sum(1) for label in range(1, n_labels)], 1).double()


def shifted(mask: Labels, by: NDArray[np.float64]) -> Labels:
    """The mask moved by whole voxels; what leaves the grid is lost."""
    out = np.zeros_like(mask)
    moves = [int(np.clip(round(float(step)), -side, side)) for step, side in zip(by, mask.shape, strict=True)]
    target = tuple(slice(max(0, m), min(s, s + m)) for m, s in zip(moves, mask.shape, strict=True))
    source = tuple(slice(max(0, -m), min(s, s - m)) for m, s in zip(moves, mask.shape, strict=True))
    out[target] = mask[source]
    return out


def _aligned(masks: Labels, shape: ImageShape) -> tuple[Tensor, Tensor]:
    """Distances (n, labels x voxels) about each lesion's centre, and the centres (n, dimensions) off the middle."""
    found = [_aligned_one(mask.tobytes(), mask.shape, shape.n_labels) for mask in masks]
    voxels = (shape.n_labels - 1) * int(np.prod(shape.size))
    fields = np.array([field for field, _ in found], np.float16).reshape(-1, voxels)
    centres = np.array([centre for _, centre in found]).reshape(-1, shape.dimensions)
    return torch.from_numpy(fields).double(), torch.from_numpy(centres).double()


@lru_cache(maxsize=2048)  # every pass asks for the same maps
def _aligned_one(content: bytes, size: tuple[int, ...], n_labels: int) -> tuple[NDArray[np.float16], tuple[float, ...]]:
    mask = np.frombuffer(content, np.uint8).reshape(size)
    centre = np.array(ndimage.center_of_mass(mask > 0)) - (np.array(size) - 1) / 2
    mask = shifted(mask, -centre)
    fields = []
    for label in range(1, n_labels):
        here = mask == label
        outside = ndimage.distance_transform_edt(~here) if here.any() else np.full(size, CLIP)
        fields.append(np.clip(ndimage.distance_transform_edt(here) - outside, -CLIP, CLIP))
    return np.stack(fields).astype(np.float16).reshape(-1), tuple(map(float, centre))


def _moments(codes: Tensor, weights: Tensor) -> Tensors:
    """Sums by component (columns of `weights`): of weights, codes and their products."""
    return {
        "weight": weights.sum(0),
        "first": weights.T @ codes,
        "second": torch.stack([(codes * weight[:, None]).T @ codes for weight in weights.T]),
    }


def build(shape: ImageShape, *, private: bool = False, modes: int = 24) -> PcaMaps:
    """A new one, with at most so many modes of shape per class."""
    return PcaMaps(shape, modes=modes)


register(
    Entry(
        name="pca-maps",
        summary="label maps given the class, by their principal shapes; fitted in seconds, by sums over sites",
        kind="maps",
        build=build,
        recipe=Recipe(augment=False),
        not_private="the sums over patients that it is fitted by are not clipped yet; take a joint family",
    )
)
