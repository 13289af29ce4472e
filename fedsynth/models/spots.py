"""Small bright or dark spots without a label: cysts, calcium, old blood. Smooth renderers blur them away, and a task
network that never met one takes every bright spot for a lesion.

A spot is where the blurred difference between an image and its reconstruction stands out by far. Spots are drawn as a
marked Poisson process: their rate per voxel, mean and covariance of their brightness over channels, and their radial
profile are all fitted by sums over images.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedsynth.models.base import ImageShape, Tensors
from fedsynth.models.texture import brain_of

SIDES = 32  # blurred by a Gaussian of this part of the shortest side
FAR = 4.5  # robust deviations from nothing
MARGIN = 2  # voxels between a spot and a lesion, the border of the brain, or a larger spot
BINS, NORMAL_MEDIAN = 1000, 0.6745
RINGS = 4.0  # deviations of the Gaussian at which a spot has faded


class Spots(nn.Module):
    """What is fitted: noise of each channel, rate, brightness, and the profile by distance in voxels."""

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
            "rate": torch.zeros(()),
            "mean": torch.zeros(shape.channels),
            "root": torch.zeros(shape.channels, shape.channels),
            "profile": torch.zeros(int(RINGS * self.sigma) + 2),
        }
        for name, value in fitted.items():
            self.register_buffer(name, value)

    def levels(self, real: Tensor, made: Tensor, named: Tensor) -> Tensor:
        """Sums: histograms of the size of the blurred difference (channels, BINS), where there is no lesion."""
        blurred, free = self._difference(real, made, named)
        sizes = blurred.abs().movedim(1, 0)[:, free[:, 0] > 0]
        return torch.stack([torch.histc(one.float(), BINS, 0, 1) for one in sizes]).double()

    def fit_levels(self, levels: Tensor) -> None:
        """The median of each channel as the deviation that it has of a Gaussian."""
        below, wanted = levels.cumsum(1), levels.sum(1, keepdim=True) / 2
        half = (below < wanted).sum(1, keepdim=True).clamp(max=BINS - 1)
        within = 1 - (below.gather(1, half) - wanted) / levels.gather(1, half).clamp(min=1)
        self.deviation.copy_((half + within)[:, 0] / BINS / NORMAL_MEDIAN)

    def sums(self, real: Tensor, made: Tensor, named: Tensor) -> tuple[Tensors, Tensor]:
        """Sums over spots, and the images with reconstructions in their place."""
        blurred, free = self._difference(real, made, named)
        peaks = self._peaks(blurred, free)
        bright = blurred.movedim(1, -1)[peaks[:, 0] > 0].double()
        marks = blurred * peaks / blurred.square().sum(1, keepdim=True).clamp(min=1e-9)
        around = _correlation(marks, real - made)
        distance = _distances(around)
        rings = [around[distance.round() == ring].mean() for ring in range(len(self.profile))]
        found = {
            "spots": torch.tensor(float(len(bright)), dtype=torch.float64),
            "free": free.double().sum(),
            "first": bright.sum(0),
            "second": bright.T @ bright,
            "profile": torch.stack(rings).double(),
        }
        near = _widened(peaks, int(RINGS * self.sigma / 2))
        return found, torch.where(near > 0, made, real)

    def fit(self, found: Tensors) -> None:
        """See `sums`; fewer spots than the covariance has free numbers are none."""
        n, channels = float(found["spots"]), len(self.mean)
        if n < 2 * channels:
            self.rate.zero_()
            return
        mean = found["first"] / n
        covariance = found["second"] / n - torch.outer(mean, mean)
        profile = found["profile"] / n
        self.rate.copy_(found["spots"] / found["free"].clamp(min=1))
        self.mean.copy_(mean)
        self.root.copy_(torch.linalg.cholesky(covariance + 1e-6 * torch.eye(channels).to(covariance)))
        self.profile.copy_((profile - profile[-1]).clamp(min=0))

    def field(self, made: Tensor, named: Tensor, chance: Tensor, normal: Tensor, *, share: float = 1.0) -> Tensor:
        """What is added to images (n, channels, ...): `share` spots for each that was seen.

        `chance` (n, 1, ...) is uniform, `normal` (n, channels, ...).
        """
        free = _free(made, named, 1)
        bright = torch.einsum("cd,nd...->nc...", self.root, normal) + self.mean.reshape(-1, *[1] * (made.dim() - 2))
        kernel = self._kernel(made.shape[2:]).to(made)
        return _filtered(bright * (chance < share * self.rate) * free, torch.fft.rfftn(kernel)) * brain_of(made, 1)

    def _difference(self, real: Tensor, made: Tensor, named: Tensor) -> tuple[Tensor, Tensor]:
        """Blurred within the brain without its lesion, and where spots are looked for."""
        inside = brain_of(real, MARGIN) * (named <= 0)
        smooth = _gaussian(real.shape[2:], self.sigma).to(real.device)
        share = _filtered(inside, smooth).clamp(min=0.3)
        return _filtered((real - made) * inside, smooth) / share * inside, _free(real, named, MARGIN)

    def _peaks(self, blurred: Tensor, free: Tensor) -> Tensor:
        """(n, 1, ...): 1 at the middle of each spot."""
        shape = (-1, *[1] * (blurred.dim() - 2))
        height = (blurred / self.deviation.reshape(shape).clamp(min=1e-6)).abs().amax(1, keepdim=True) * free
        return ((height == _widened(height, MARGIN)) & (height > FAR)).to(blurred)

    def _kernel(self, size: torch.Size) -> Tensor:
        """The profile about the first voxel, straight lines between whole distances."""
        distance = _distances(torch.empty(size)).clamp(max=len(self.profile) - 1)
        low = distance.floor().long()
        high = (low + 1).clamp(max=len(self.profile) - 1)
        profile = self.profile.cpu()
        return profile[low] + (distance - low) * (profile[high] - profile[low])


def _free(image: Tensor, named: Tensor, margin: int) -> Tensor:
    """(n, 1, ...): 1 inside the brain, away from what the map names."""
    return brain_of(image, margin) * (1 - _widened((named > 0).to(image), MARGIN))


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
