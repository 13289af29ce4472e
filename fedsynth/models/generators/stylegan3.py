"""StyleGAN3-T (Karras et al. 2021): a generator whose details move with the anatomy instead of sticking to pixels.

Signals are band-limited: they start as Fourier features that the style turns and moves, every nonlinearity works
between a doubling and a low-pass filter, and grids carry a margin beyond the picture. No noise, no style mixing. The
discriminator is StyleGAN2's.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedsynth.models.base import ImageShape, RandomSource, Tensors
from fedsynth.models.generators.catalog import Entry, Recipe, register
from fedsynth.models.generators.progan import discriminator_widths
from fedsynth.models.generators.stylegan2 import ResidualDiscriminator
from fedsynth.models.joint_gan import Generator, JointGan
from fedsynth.models.layers import EqualLinear, ModulatedConv, as_joint, leaky, spread
from fedsynth.models.objectives import NON_SATURATING, r1
from fedsynth.models.style_mapping import Styles

# Low-pass resampling along every axis, as small matrices: exact, separable, and the same for images and volumes.
#
# Follows the filters of StyleGAN3 (Karras et al. 2021, appendix C). A matrix per axis replaces padded convolutions by
# one-channel filters, which is several times faster on a CPU and what makes volumes possible.


def low_pass(taps: int, *, cutoff: float, width: float, rate: float) -> Tensor:
    """A Kaiser-windowed sinc of `taps` values that sum to one, for a signal sampled `rate` times per unit.

    `width` is the whole transition band; from it the window's shape follows (Kaiser's formula).
    """
    if taps == 1:
        return torch.ones(1)
    attenuation = 2.285 * (taps - 1) * math.pi * width / (rate / 2) + 7.95
    at = torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2
    window = torch.kaiser_window(taps, periodic=False, beta=_beta(attenuation), dtype=torch.float64)
    taper = torch.sinc(2 * cutoff / rate * at) * window
    return (taper / taper.sum()).float()


def _beta(attenuation: float) -> float:
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    if attenuation > 21:
        return float(0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21))
    return 0.0


def upsampling(n: int, kernel: Tensor, *, factor: int, before: int, after: int) -> Tensor:
    """The matrix that inserts zeros, pads (or cuts, where negative) and filters a signal of `n` values."""
    rows = n * factor + before + after - len(kernel) + 1
    return factor * _taps(kernel, before + factor * torch.arange(n)[None] - torch.arange(rows)[:, None])


def downsampling(n: int, kernel: Tensor, *, factor: int) -> Tensor:
    """The matrix that filters a signal of `n` values and keeps every `factor`-th."""
    rows = (n - len(kernel)) // factor + 1
    return _taps(kernel, torch.arange(n)[None] - factor * torch.arange(rows)[:, None])


def _taps(kernel: Tensor, index: Tensor) -> Tensor:
    inside = (index >= 0) & (index < len(kernel))
    return torch.where(inside, kernel[index.clamp(0, len(kernel) - 1)], torch.zeros(()))


def along_axes(x: Tensor, matrix: Tensor) -> Tensor:
    """`matrix` applied to every spatial axis of (n, C, ...)."""
    x = x @ matrix.T
    for axis in range(2, x.dim() - 1):
        before, after = x.shape[:axis], x.shape[axis + 1 :]
        rows = torch.matmul(matrix, x.reshape(-1, x.shape[axis], after.numel()))
        x = rows.reshape(*before, len(matrix), *after)
    return x


TAPS = 6
"""Filter length per unit of resampling."""


@dataclass(frozen=True, kw_only=True)
class Band:
    """The signal between two layers: its grid, samples per picture side, cutoff and half of the transition band."""

    size: int
    rate: float
    cutoff: float
    half_width: float
    channels: int


def schedule(side: int, *, n_layers: int, margin: int, base: int, cap: int) -> list[Band]:
    """Cutoffs and stopbands that grow geometrically up to the last two, critically sampled, bands (section 3.2)."""
    bands = []
    for i in range(n_layers + 1):
        t = min(1.0, i / (n_layers - 2))
        cutoff = 2.0 * (side / 4) ** t
        stop = 2**2.1 * (side / 2 * 2**0.3 / 2**2.1) ** t
        rate = 2.0 ** math.ceil(math.log2(min(2 * stop, side)))
        size = side if i >= n_layers - 1 else int(rate) + 2 * margin
        channels = min(cap, round(base * side / 2 / cutoff))
        half_width = max(stop, rate / 2) - cutoff
        bands.append(Band(size=size, rate=rate, cutoff=cutoff, half_width=half_width, channels=channels))
    return bands


class FourierInput(nn.Module):
    """Waves of random frequencies within the first band, rotated and shifted as the style says."""

    frequencies: Tensor
    phases: Tensor
    places: Tensor

    def __init__(self, dimensions: int, band: Band, style: int) -> None:
        super().__init__()
        n = band.channels
        direction = nn.functional.normalize(torch.randn(n, dimensions), dim=1)
        self.register_buffer("frequencies", direction * torch.rand(n, 1) ** (1 / dimensions) * band.cutoff)
        self.register_buffer("phases", torch.rand(n) - 0.5)
        place = (torch.arange(band.size) - (band.size - 1) / 2) / band.rate
        grid = torch.stack(torch.meshgrid(*[place] * dimensions, indexing="ij"), -1)
        self.register_buffer("places", grid, persistent=False)
        self.turn = 2 if dimensions == 2 else 4
        self.place = EqualLinear(style, self.turn + dimensions)
        self.mix = nn.Parameter(torch.randn(n, n))
        nn.init.zeros_(self.place.weight)
        with torch.no_grad():
            self.place.bias[0] = 1  # no rotation: the unit complex number, or the unit quaternion

    def forward(self, w: Tensor) -> Tensor:
        """Features (n, channels, ...)."""
        placed = self.place(w)
        rotation = rotations(nn.functional.normalize(placed[:, : self.turn], dim=1))
        frequencies = self.frequencies @ rotation
        phases = self.phases + (frequencies @ placed[:, self.turn :, None])[..., 0]
        waves = torch.einsum("...d,ncd->nc...", self.places, frequencies)
        waves = torch.sin(2 * math.pi * (waves + spread(phases, waves)))
        return torch.einsum("nc...,oc->no...", waves, self.mix / math.sqrt(len(self.mix)))


def rotations(unit: Tensor) -> Tensor:
    """Rotation matrices (n, d, d) from unit complex numbers (n, 2) or unit quaternions (n, 4)."""
    if unit.shape[1] == 2:
        c, s = unit.unbind(1)
        rows = [c, -s, s, c]
    else:
        a, b, c, d = unit.unbind(1)
        rows = [
            *(1 - 2 * (c * c + d * d), 2 * (b * c - a * d), 2 * (b * d + a * c)),
            *(2 * (b * c + a * d), 1 - 2 * (b * b + d * d), 2 * (c * d - a * b)),
            *(2 * (b * d - a * c), 2 * (c * d + a * b), 1 - 2 * (b * b + c * c)),
        ]
    side = 2 if unit.shape[1] == 2 else 3
    return torch.stack(rows, 1).reshape(-1, side, side)


class BandLimitedLayer(nn.Module):
    """A modulated convolution, and a leaky rectifier between finer sampling and a low-pass filter."""

    power: Tensor
    up: Tensor
    down: Tensor

    def __init__(self, dimensions: int, before: Band, after: Band, style: int) -> None:
        super().__init__()
        self.convolve = ModulatedConv(dimensions, before.channels, after.channels, style)
        self.register_buffer("power", torch.ones(()))
        self.last_power: Tensor | None = None
        fine = 2 * max(before.rate, after.rate)
        up, down = round(fine / before.rate), round(fine / after.rate)
        rise = low_pass(TAPS * up, cutoff=before.cutoff, width=2 * before.half_width, rate=fine)
        fall = low_pass(TAPS * down, cutoff=after.cutoff, width=2 * after.half_width, rate=fine)
        size = before.size + 2  # a convolution padded by two instead of one
        pad = (after.size - 1) * down + 1 - size * up + len(rise) + len(fall) - 2
        first = (pad + up) // 2
        matrix = upsampling(size, rise, factor=up, before=first, after=pad - first)
        self.register_buffer("up", matrix, persistent=False)
        self.register_buffer("down", downsampling(len(matrix), fall, factor=down), persistent=False)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Features on the next grid, their input brought to unit power by a moving average."""
        if torch.is_grad_enabled():
            self.last_power = x.detach().square().mean()
        x = self.convolve(x * self.power.rsqrt(), w, padding=2)
        return along_axes(leaky(along_axes(x, self.up)), self.down)

    def settle(self) -> None:
        """Move the average power towards the last input's."""
        if self.last_power is not None:
            self.power.lerp_(self.last_power, 0.02)


class AliasFreeGenerator(Generator):
    """Fourier features, band-limited layers, and one modulated way out."""

    def __init__(self, shape: ImageShape, styles: Styles, *, style: int, bands: list[Band]) -> None:
        super().__init__()
        self.shape, self.styles = shape, styles
        self.input = FourierInput(shape.dimensions, bands[0], style)
        pairs = zip([bands[0], *bands[:-2]], bands[:-1], strict=True)
        self.layers = nn.ModuleList(BandLimitedLayer(shape.dimensions, *pair, style) for pair in pairs)
        last = bands[-2].channels
        self.out = ModulatedConv(shape.dimensions, last, shape.joint_channels, style, kernel=1, demodulate=False)

    def noise(self, n: int, rng: RandomSource) -> Tensors:
        """A normal latent."""
        return self.styles.noise(n, rng)

    def forward(self, label: Tensor | None, noise: Tensors, progress: float) -> Tensor:
        """Image and mask."""
        return self.synthesize(self.styles.mixed(label, noise, 1)[:, 0])

    def draw(self, label: Tensor | None, noise: Tensors) -> Tensor:
        """Image and mask in a truncated style."""
        return self.synthesize(self.styles.truncated(label, noise, 1)[:, 0])

    def synthesize(self, w: Tensor) -> Tensor:
        """Image and mask of styles (n, style)."""
        x = self.input(w)
        for layer in self.layers:
            x = layer(x, w)
        return as_joint(self.out(x, w) * 0.25, self.shape)

    def settle(self) -> None:
        """Update every layer's average input power."""
        for layer in self.layers:
            assert isinstance(layer, BandLimitedLayer)
            layer.settle()


def size_problem(size: tuple[int, ...]) -> str:
    """Why this generator cannot make `size`; empty where it can."""
    side = size[0]
    power = side >= 16 and side & (side - 1) == 0
    return "" if power and len(set(size)) == 1 else "all sides must be the same power of two, 16 or more"


def build(
    shape: ImageShape,
    *,
    private: bool = False,
    latent: int = 64,
    base: int | None = None,
    gamma: float = 1.0,
    truncation: float = 0.8,
    layers: int | None = None,
    margin: int | None = None,
) -> JointGan:
    """A new one. `layers` is 6 in 2-D and 4 in 3-D; `margin` the pixels beyond the picture on every side (4, 2)."""
    flat = shape.dimensions == 2
    width, n_layers, beyond = base or (8 if flat else 4), layers or (6 if flat else 4), margin or (4 if flat else 2)
    bands = schedule(shape.size[0], n_layers=n_layers, margin=beyond, base=width, cap=6 * width)
    styles = Styles(latent=latent, n_classes=shape.n_classes, style=latent, depth=2, mixing=0, truncation=truncation)
    return JointGan(
        shape,
        generator=AliasFreeGenerator(shape, styles, style=latent, bands=bands),
        discriminator=ResidualDiscriminator(
            shape, channels=discriminator_widths(shape, base, private), deviation=not private
        ),
        objective=NON_SATURATING,
        penalty=r1(gamma),
        mixes_samples=not private,
    )


register(
    Entry(
        name="stylegan3",
        summary="StyleGAN3-T: alias-free, details move with the anatomy; the slowest generator",
        kind="joint",
        private="discriminator: vmap(grad)",
        build=build,
        recipe=Recipe(batch=8, rate=3e-3, betas=(0.0, 0.99), augment=False),
        check_size=size_problem,
    )
)
