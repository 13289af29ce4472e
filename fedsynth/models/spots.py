"""Small bright or dark spots without a label: cysts, calcium, old blood. Smooth renderers blur them away, and a task
network that never met one takes every bright spot for a lesion.

A spot is where the blurred difference between an image and its reconstruction stands out by far, and bends as much in
every direction: an edge that a reconstruction misses is long, and no spot. Bright and dark ones are drawn as two marked
Poisson processes. Rate per voxel, mean and covariance of the brightness over channels, and one radial profile are
fitted by sums.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedsynth.models.base import ImageShape, Tensors
from fedsynth.models.texture import brain_of

SIDES = 32  # blurred by a Gaussian of this part of the shortest side
FAR = 4.5  # robust deviations from nothing
ROUND = 0.5  # the least curvature across a spot, of the most: an edge or a line bends in one direction alone
MARGIN = 2  # voxels between a spot and a lesion, the border of the brain, or a larger spot
BINS, NORMAL_MEDIAN = 1000, 0.6745
RINGS = 4.0  # deviations of the Gaussian at which a spot has faded
BRIGHT, DARK = 0, 1
FEWEST = 12  # images with a spot of one kind, without which none of that kind are drawn
MOST = 2.0  # deviations of the brightness, beyond which none is drawn


class Spots(nn.Module):
    """What is fitted: noise of each channel; rate and brightness of either kind; the profile by distance in voxels."""

    deviation: Tensor
    rate: Tensor
    mean: Tensor
    root: Tensor
    profile: Tensor

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        self.sigma = min(shape.size) / SIDES
        fitted = {
            "deviation": torch.zeros(shape.channels),
            "rate": torch.zeros(2),
            "mean": torch.zeros(2, shape.channels),
            "root": torch.zeros(2, shape.channels, shape.channels),
            "profile": torch.zeros(int(RINGS * self.sigma) + 2),
        }
        for name, value in fitted.items():
            self.register_buffer(name, value)

    def levels(self, real: Tensor, made: Tensor, named: Tensor) -> Tensor:
        """Sums: histograms of the size of the blurred difference (channels, BINS), where there is no lesion."""
        blurred, free = self._difference(real, made, named), _free(real, named)
        sizes = blurred.abs().movedim(1, 0)[:, free[:, 0] > 0]
        return torch.stack([torch.histc(one.float(), BINS, 0, 1) for one in sizes]).double()

    def fit_levels(self, levels: Tensor) -> None:
        """The median of each channel as the deviation that it has of a Gaussian."""
        below, wanted = levels.cumsum(1), levels.sum(1, keepdim=True) / 2
        half = (below < wanted).sum(1, keepdim=True).clamp(max=BINS - 1)
        within = 1 - (below.gather(1, half) - wanted) / levels.gather(1, half).clamp(min=1)
        self.deviation.copy_((half + within)[:, 0] / BINS / NORMAL_MEDIAN)

    def sums(self, real: Tensor, made: Tensor, named: Tensor) -> tuple[Tensors, Tensor]:
        """Sums over spots by kind, and the images with reconstructions in their place."""
        blurred, free = self._difference(real, made, named), _free(real, named)
        peaks = self._peaks(blurred, free)
        marks = blurred * peaks.sum(1, keepdim=True) / blurred.square().sum(1, keepdim=True).clamp(min=1e-9)
        around = _correlation(marks, real - made)
        distance = _distances(around)
        rings = [around[distance.round() == ring].mean() for ring in range(len(self.profile))]
        bright = [blurred.movedim(1, -1)[kind > 0].double() for kind in peaks.movedim(1, 0)]
        found = {
            "spots": peaks.double().sum((0, *range(2, peaks.dim()))),
            "spotted": (peaks.flatten(2).sum(2) > 0).double().sum(0),
            "free": free.double().sum(),
            "first": torch.stack([one.sum(0) for one in bright]),
            "second": torch.stack([one.T @ one for one in bright]),
            "profile": torch.stack(rings).double(),
        }
        near = _widened(peaks.sum(1, keepdim=True), int(RINGS * self.sigma / 2))
        return found, torch.where(near > 0, made, real)

    def fit(self, found: Tensors) -> None:
        """See `sums`. A kind that few images show is not drawn."""
        channels, drawn = self.mean.shape[1], torch.zeros(2)
        for kind, n in enumerate(found["spots"].tolist()):
            if found["spotted"][kind] < FEWEST or n < 2 * channels:
                continue
            drawn[kind] = 1
            mean = found["first"][kind] / n
            covariance = found["second"][kind] / n - torch.outer(mean, mean)
            self.mean[kind].copy_(mean)
            self.root[kind].copy_(torch.linalg.cholesky(covariance + 1e-6 * torch.eye(channels).to(covariance)))
        self.rate.copy_(found["spots"].cpu() / found["free"].cpu().clamp(min=1) * drawn)
        profile = found["profile"] / found["spots"].sum().clamp(min=1)
        self.profile.copy_((profile - profile[-1]).clamp(min=0))

    def field(self, made: Tensor, named: Tensor, chance: Tensor, normal: Tensor, *, share: float = 1.0) -> Tensor:
        """What is added to images (n, channels, ...): `share` spots for each that was seen.

        `chance` (n, 1, ...) is uniform, `normal` (n, channels, ...).
        """
        ones, marks = [1] * (made.dim() - 2), torch.zeros_like(normal)
        edges = [0.0, *(share * self.rate).cumsum(0).tolist()]
        for kind, (mean, root) in enumerate(zip(self.mean, self.root, strict=True)):
            brightness = torch.einsum("cd,nd...->nc...", root, normal.clamp(-MOST, MOST)) + mean.reshape(-1, *ones)
            marks += brightness * ((edges[kind] <= chance) & (chance < edges[kind + 1]))
        kernel = torch.fft.rfftn(self._kernel(made.shape[2:]).to(made))
        return _filtered(marks * _free(made, named), kernel) * brain_of(made, 1)

    def _difference(self, real: Tensor, made: Tensor, named: Tensor) -> Tensor:
        """Blurred within the brain without its lesion."""
        inside = brain_of(real, MARGIN) * (named <= 0)
        smooth = _gaussian(real.shape[2:], self.sigma).to(real.device)
        share = _filtered(inside, smooth).clamp(min=0.3)
        return _filtered((real - made) * inside, smooth) / share * inside

    def _peaks(self, blurred: Tensor, free: Tensor) -> Tensor:
        """(n, 2, ...): 1 at the middle of each bright or dark spot, by the channel in which it stands out most."""
        scaled = blurred / self.deviation.reshape(-1, *[1] * (blurred.dim() - 2)).clamp(min=1e-6)
        channel = scaled.abs().argmax(1, keepdim=True)
        height = scaled.gather(1, channel)
        tall = height.abs() * free
        found = (tall == _widened(tall, MARGIN)) & (tall > FAR)
        if found.any():
            rows, places = found[:, 0].nonzero()[:, 0], found[:, 0].nonzero()[:, 1:]
            bends = _curvature(blurred, rows, channel[found], places) * -height[found].sign()[:, None]
            found[found.clone()] = bends.amin(1) > ROUND * bends.amax(1)
        return torch.cat([found & (height > 0), found & (height < 0)], 1).to(blurred)

    def _kernel(self, size: torch.Size) -> Tensor:
        """The profile about the first voxel, straight lines between whole distances."""
        distance = _distances(torch.empty(size)).clamp(max=len(self.profile) - 1)
        low = distance.floor().long()
        high = (low + 1).clamp(max=len(self.profile) - 1)
        profile = self.profile.cpu()
        return profile[low] + (distance - low) * (profile[high] - profile[low])


def _free(image: Tensor, named: Tensor) -> Tensor:
    """(n, 1, ...): 1 where the middle of a spot may lie: inside the brain, away from what the map names."""
    return brain_of(image, MARGIN) * (1 - _widened((named > 0).to(image), MARGIN))


def _widened(region: Tensor, margin: int) -> Tensor:
    pool = functional.max_pool2d if region.dim() == 4 else functional.max_pool3d
    return pool(region, 2 * margin + 1, 1, margin)


def _filtered(x: Tensor, response: Tensor) -> Tensor:
    """Every channel times the response of a filter, by frequency."""
    axes = tuple(range(2, x.dim()))
    made: Tensor = torch.fft.irfftn(torch.fft.rfftn(x.float(), dim=axes) * response, s=x.shape[2:], dim=axes)
    return made


def _gaussian(size: torch.Size, sigma: float) -> Tensor:
    """The response of a Gaussian of `sigma` voxels."""
    along = [torch.fft.fftfreq(side) for side in size[:-1]] + [torch.fft.rfftfreq(size[-1])]
    square = torch.stack(torch.meshgrid(*along, indexing="ij")).square().sum(0)
    return torch.exp(-2 * (torch.pi * sigma) ** 2 * square)


def _curvature(blurred: Tensor, rows: Tensor, channels: Tensor, places: Tensor) -> Tensor:
    """The principal curvatures (peaks, dimensions) of the named images and channels at these places.

    Beyond its border an image goes on as at the border.
    """
    d = blurred.dim() - 2
    padded, places = functional.pad(blurred, [1] * (2 * d), mode="replicate"), places + 1
    steps = torch.eye(d, dtype=torch.long, device=places.device)

    def at(*moves: Tensor) -> Tensor:
        moved = places + sum(moves, torch.zeros_like(steps[0]))
        return padded[(rows, channels, *moved.T)]

    hessian = blurred.new_zeros(len(places), d, d)
    for i in range(d):
        hessian[:, i, i] = at(steps[i]) - 2 * at() + at(-steps[i])
        for j in range(i):
            across = (
                at(steps[i], steps[j]) - at(steps[i], -steps[j]) - at(-steps[i], steps[j]) + at(-steps[i], -steps[j])
            )
            hessian[:, i, j] = hessian[:, j, i] = across / 4
    curvatures: Tensor = torch.linalg.eigvalsh(hessian)
    return curvatures


def _correlation(marks: Tensor, image: Tensor) -> Tensor:
    """The image around every mark, weighed by it and summed over marks, channels and images; the mark comes first."""
    axes = tuple(range(2, image.dim()))
    at, seen = (torch.fft.rfftn(x.double(), dim=axes) for x in (marks, image))
    made: Tensor = torch.fft.irfftn((at.conj() * seen).sum((0, 1)), s=image.shape[2:])
    return made


def _distances(grid: Tensor) -> Tensor:
    """From the first voxel, around the edges, in voxels."""
    along = [torch.fft.fftfreq(side, 1 / side) for side in grid.shape]
    return torch.stack(torch.meshgrid(*along, indexing="ij")).square().sum(0).sqrt().to(grid.device)
