"""A conditional variational autoencoder that renders a label map: map, class and a code of 32 numbers make an image.

The code follows from class and from area and place of the lesion by a linear Gaussian, and gives every label a grey
level, to which the decoder adds the rest. What smooth decoders lack is added too: small spots without a label, and a
Gaussian field with the spectrum that is still missing. All of it is fitted by sums after training, in two passes.
"""

import math
from itertools import combinations, pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedsynth.errors import ConfigError
from fedsynth.models.base import Family, ImageShape, Phase, RandomSource, Tensors
from fedsynth.models.generators.catalog import Entry, Recipe, register
from fedsynth.models.layers import CONVOLUTION, halve, halvings, local_mean, repeat, spread, widths, with_label
from fedsynth.models.spots import Spots
from fedsynth.models.texture import Texture, missing_spectrum

NET, PRIOR = "autoencoder", "prior"
GROUPS, FOLDED, LAST = 4, 12, 16  # channels that pixel shuffle leaves, and of the last layers
TURN, SCALE, SHIFT = math.radians(10), 0.08, 0.05  # the largest small change of a training image
RIDGE, JITTER = 1e-2, 1e-4


class Block(nn.Module):
    """Two convolutions around a shortcut; group norm, modulated by code and class per channel, by the map per pixel."""

    def __init__(self, dimensions: int, inputs: int, outputs: int, sources: int, code: int) -> None:
        super().__init__()
        conv = CONVOLUTION[dimensions]
        self.norms = nn.ModuleList(nn.GroupNorm(GROUPS, channels) for channels in (inputs, outputs))
        self.convolutions = nn.ModuleList(conv(i, outputs, 3, padding=1) for i in (inputs, outputs))
        self.maps = nn.ModuleList(conv(sources, channels, 3, padding=1) for channels in (inputs, outputs))
        self.modulate = nn.Linear(code, 2 * outputs)
        self.shortcut = conv(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, source: Tensor, code: Tensor) -> Tensor:
        """Features on the same grid."""
        scale, shift = (spread(part, x) for part in self.modulate(code).chunk(2, 1))
        inner = self.convolutions[0](functional.silu(self.norms[0](x) + self.maps[0](source)))
        inner = self.norms[1](inner) * (1 + scale) + shift + self.maps[1](source)
        changed: Tensor = self.convolutions[1](functional.silu(inner))
        shortcut: Tensor = self.shortcut(x)
        return shortcut + changed


class Decoder(nn.Module):
    """From code, class and map to the image; the blocks work on half its grid and coarser ones."""

    def __init__(self, shape: ImageShape, latent: int, base: int) -> None:
        super().__init__()
        dimensions, grids, code = shape.dimensions, halvings(shape.size)[:-1], latent + shape.n_classes
        conv, channels = CONVOLUTION[dimensions], widths(len(grids), base, 4 * base)
        self.start = (channels[0], *grids[0])
        self.begin = nn.Linear(code, math.prod(self.start))
        pairs = zip([channels[0], *channels], channels, strict=False)
        self.blocks = nn.ModuleList(Block(dimensions, i, o, shape.source_channels, code) for i, o in pairs)
        self.fold = conv(channels[-1], FOLDED * 2**dimensions, 3, padding=1)
        self.join = conv(FOLDED + shape.source_channels + 1, LAST, 3, padding=1)
        self.write = conv(LAST, shape.channels, 3, padding=1)
        self.levels = nn.Linear(code, shape.channels * shape.source_channels)
        nn.init.zeros_(self.levels.weight)  # or what the code's unused numbers add would stay for hundreds of steps
        nn.init.zeros_(self.levels.bias)

    def forward(self, latent: Tensor, condition: Tensors, noise: Tensor) -> Tensor:
        """An image around [-1, 1]: nothing bounds it, for a squashed one saturates where background is most of it."""
        sources = [condition["source"].to(latent.dtype)]
        while len(sources) <= len(self.blocks):
            sources.insert(0, halve(sources[0]))
        code = with_label(latent, condition.get("label"))
        x = _laid_out(self.begin(code).reshape(-1, *self.start))
        for number, (block, source) in enumerate(zip(self.blocks, sources, strict=False)):
            x = block(repeat(x) if number else x, _laid_out(source), code)
        x = unfolded(self.fold(functional.silu(x)))
        x = functional.silu(self.join(torch.cat([x, sources[-1].to(x.dtype), noise.to(x.dtype)], 1)))
        written: Tensor = self.write(x) + self._painted(code, sources[-1].to(x.dtype))
        return written

    def _painted(self, code: Tensor, source: Tensor) -> Tensor:
        """Every label in a grey level of its own, by code and class, with soft edges: what convolutions learn late."""
        levels = self.levels(code).unflatten(1, (-1, source.shape[1])).to(source.dtype)
        soft = (source + local_mean(source)) / 2
        painted: Tensor = (levels @ soft.flatten(2)).unflatten(2, soft.shape[2:])
        return painted


class Autoencoder(nn.Module):
    """From image, map and class to mean and log-variance of the code, and back."""

    def __init__(self, shape: ImageShape, latent: int, base: int) -> None:
        super().__init__()
        conv, grids = CONVOLUTION[shape.dimensions], halvings(shape.size)[:-1]
        channels = widths(len(grids), base, 4 * base)[::-1]
        inputs = (shape.channels + shape.source_channels + shape.n_classes) * 2**shape.dimensions
        layers: list[nn.Module] = []
        steps = [(inputs, channels[0], 1), *((i, o, 2) for i, o in pairwise(channels))]
        for i, o, stride in [*steps, (channels[-1], channels[-1], 1)]:
            layers += [conv(i, o, 3, stride, 1), nn.GroupNorm(GROUPS, o), nn.SiLU()]
        flat = channels[-1] * math.prod(grids[0])
        self.encoder = nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, 2 * latent))
        self.decoder = Decoder(shape, latent, base)

    def encode(self, image: Tensor, condition: Tensors) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, each (n, latent)."""
        seen = [image, condition["source"]]
        if "label" in condition:
            seen.append(spread(condition["label"], image).expand(-1, -1, *image.shape[2:]))
        mean, log_variance = self.encoder(_laid_out(folded(torch.cat(seen, 1)))).float().chunk(2, 1)
        return mean, log_variance.clamp(-8, 4)


class Prior(nn.Module):
    """The code as a linear function of class, area and place of the lesion, plus Gaussian noise; spots and texture."""

    weight: Tensor
    root: Tensor

    def __init__(self, shape: ImageShape, latent: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(n_features(shape), latent))
        self.register_buffer("root", torch.eye(latent))
        self.texture = Texture(shape)
        self.spots = Spots(shape)

    def draw(self, features: Tensor, normal: Tensor) -> Tensor:
        """Codes (n, latent)."""
        return features @ self.weight + normal @ self.root.T

    def fit(self, ff: Tensor, fz: Tensor, zz: Tensor, variance: Tensor) -> None:
        """Least squares from sums of products of features f and mean codes z; posterior variance is noise as well."""
        n = ff[0, 0].clamp(min=1)
        weight = torch.linalg.solve(ff + RIDGE * torch.eye(len(ff)).to(ff), fz)
        residual = zz - fz.T @ weight - weight.T @ fz + weight.T @ ff @ weight
        noise = residual / n + torch.diag(variance / n) + JITTER * torch.eye(len(zz)).to(zz)
        self.weight.copy_(weight)
        self.root.copy_(torch.linalg.cholesky(noise))


class RenderVae(Family):
    """Absolute plus squared error, more where the map names something, and a small divergence of the code."""

    phases = (Phase(net=NET, reads_patients=True),)
    shared = (NET, PRIOR)
    sampler = (NET, PRIOR)
    passes = 2
    fitted = (PRIOR,)

    def __init__(
        self,
        shape: ImageShape,
        *,
        latent: int,
        base: int,
        lesion: float,
        divergence: float,
        texture: float,
        spots: float,
        tissue: int = 0,
    ) -> None:
        super().__init__(shape, {NET: Autoencoder(shape, latent, base), PRIOR: Prior(shape, latent)})
        self.latent, self.lesion, self.divergence, self.tissue = latent, lesion, divergence, tissue
        self.texture, self.spots = texture, spots
        if shape.dimensions == 2:
            self.nets[NET].to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def autoencoder(self) -> Autoencoder:
        """Encoder and decoder."""
        net = self.nets[NET]
        assert isinstance(net, Autoencoder)
        return net

    @property
    def prior(self) -> Prior:
        """What is fitted."""
        net = self.nets[PRIOR]
        assert isinstance(net, Prior)
        return net

    def noise(self, n: int, rng: RandomSource) -> Tensors:
        """The code, a noise channel, texture, spots, and the small change of a training image."""
        d, size = self.shape.dimensions, self.shape.size
        return {
            "code": rng.normal((n, self.latent)),
            "channel": rng.normal((n, 1, *size)),
            "texture": rng.normal((n, self.shape.channels, *size)),
            "spot": rng.uniform((n, 1, *size)),
            "brightness": rng.normal((n, self.shape.channels, *size)),
            "view": rng.uniform((n, 1 + d + math.comb(d, 2))) * 2 - 1,
        }

    def real_loss(self, phase: Phase, batch: Tensors, noise: Tensors, progress: float) -> Tensor:
        """The negative bound; the divergence fades in over the first fifth."""
        source, image = seen_anew(batch["source"], batch["image"], noise["view"], self.tissue)
        condition = batch | {"source": source}
        mean, log_variance = self.autoencoder.encode(image, condition)
        code = mean + torch.exp(log_variance / 2) * noise["code"]
        apart = self.autoencoder.decoder(code, condition, noise["channel"]).float() - image
        weight = 1 + self.lesion * (1 - source[:, :1])
        misfit = (weight * (apart.abs() + apart.square())).flatten(1).mean(1)
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2
        loss: Tensor = misfit + self.divergence * min(1.0, 5 * progress) * divergence / math.prod(self.shape.size)
        return loss

    def fake_loss(self, phase: Phase, condition: Tensors, noise: Tensors, progress: float) -> Tensor:
        """Nothing is learnt without patients."""
        return torch.zeros_like(noise["code"][:, 0])

    def sums(self, number: int, batch: Tensors) -> Tensors:
        """Moments of features and codes, and how far images depart; then their spots, and the spectrum of the rest."""
        with torch.no_grad():
            mean, log_variance = self.autoencoder.encode(batch["image"], batch)
            blank = torch.zeros_like(batch["image"][:, :1])
            made = self.autoencoder.decoder(mean, batch, blank).clamp(-1, 1)
        named = _named(batch["source"], self.tissue)
        if number:
            found, rest = self.prior.spots.sums(batch["image"], made, named)
            found |= missing_spectrum(rest, made)
        else:
            f, z = features(batch, self.shape, self.tissue).double(), mean.double()
            found = {"ff": f.T @ f, "fz": f.T @ z, "zz": z.T @ z, "variance": log_variance.double().exp().sum(0)}
            found["levels"] = self.prior.spots.levels(batch["image"], made, named)
        return {f"{PRIOR}.{name}": value for name, value in found.items()}

    def fit(self, number: int, sums: Tensors) -> None:
        """See `sums`."""
        own = {name.removeprefix(f"{PRIOR}."): value for name, value in sums.items()}
        if number:
            self.prior.spots.fit(own)
            self.prior.texture.fit(own["spectrum"], own["brain"])
        else:
            self.prior.fit(own["ff"], own["fz"], own["zz"], own["variance"])
            self.prior.spots.fit_levels(own["levels"])

    def sample(self, condition: Tensors, noise: Tensors) -> Tensors:
        """An image for each map."""
        code = self.prior.draw(features(condition, self.shape, self.tissue).to(noise["code"]), noise["code"])
        made = self.autoencoder.decoder(code, condition, noise["channel"]).clamp(-1, 1)
        if self.tissue:  # black where the map names neither lesion nor tissue; trained so, the inside was worse
            made = (made + 1) * condition["source"][:, 1:].sum(1, keepdim=True).clamp(max=1) - 1
        named = _named(condition["source"], self.tissue)
        spots = self.prior.spots.field(made, named, noise["spot"], noise["brightness"], share=self.spots)
        return {"image": made + spots + self.texture * self.prior.texture.field(made, noise["texture"])}


def _named(source: Tensor, tissue: int) -> Tensor:
    """(n, 1, ...): the share of lesion; the last `tissue` channels of the map are classes of tissue."""
    return source[:, 1 : source.shape[1] - tissue].sum(1, keepdim=True)


def n_features(shape: ImageShape) -> int:
    """How many numbers `features` tells."""
    return shape.n_classes + 3 + 2 * shape.dimensions + max(0, shape.source_channels - 2)


def features(condition: Tensors, shape: ImageShape, tissue: int = 0) -> Tensor:
    """One, the class, whether there is a lesion, its area and place, and the area of each label but one: (n, f).

    The last `tissue` channels of the map are classes of tissue, of which the areas are told alone.
    """
    source, d = condition["source"].float(), shape.dimensions
    named = _named(source, tissue)[:, 0]
    area, scale = named.flatten(1).sum(1), math.prod(shape.size) ** ((d - 1) / d)
    found = [torch.ones_like(area), (area > 0).float(), area / scale]
    for axis, side in enumerate(shape.size):
        place = (torch.arange(side, device=source.device) - (side - 1) / 2) / side
        others = [other + 1 for other in range(d) if other != axis]
        centre = (named.sum(others) * place).sum(1) / area.clamp(min=1)
        found += [centre, centre.square()]
    found += list((source[:, 2:].flatten(2).sum(2) / scale).T)
    label = condition.get("label")
    return torch.cat([torch.stack(found, 1), *([] if label is None else [label.float()])], 1)


def seen_anew(source: Tensor, image: Tensor, view: Tensor, tissue: int = 0) -> tuple[Tensor, Tensor]:
    """Map and image under the same small turn, stretch and shift; `view` holds n values each in [-1, 1]."""
    d = image.dim() - 2
    matrix = torch.eye(d, device=view.device) * (1 + SCALE * view[:, :1, None])
    for number, (i, j) in enumerate(combinations(range(d), 2)):
        angle = TURN * view[:, 1 + d + number]
        phase = torch.eye(d, device=view.device).repeat(len(view), 1, 1)
        phase[:, i, i] = phase[:, j, j] = angle.cos()
        phase[:, j, i] = angle.sin()
        phase[:, i, j] = -phase[:, j, i]
        matrix = matrix @ phase
    moved = torch.cat([matrix, 2 * SHIFT * view[:, 1 : 1 + d, None]], 2)
    grid = functional.affine_grid(moved, list(image.shape), align_corners=False)
    maps = functional.grid_sample(source[:, 1:], grid, mode="nearest", align_corners=False)
    shown = functional.grid_sample(image + 1, grid, align_corners=False) - 1  # black comes in from outside
    named = maps[:, : maps.shape[1] - tissue].sum(1, keepdim=True)
    return torch.cat([1 - named, maps], 1), shown


def folded(x: Tensor) -> Tensor:
    """Half the grid, with the values of each 2 x 2 (x 2) block as channels."""
    if x.dim() == 4:
        return functional.pixel_unshuffle(x, 2)
    n, c, h, w, d = x.shape
    blocks = x.reshape(n, c, h // 2, 2, w // 2, 2, d // 2, 2)
    return blocks.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(n, 8 * c, h // 2, w // 2, d // 2)


def unfolded(x: Tensor) -> Tensor:
    """The inverse of `folded`."""
    if x.dim() == 4:
        return functional.pixel_shuffle(x, 2)
    n, c, h, w, d = x.shape
    blocks = x.reshape(n, c // 8, 2, 2, 2, h, w, d)
    return blocks.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(n, c // 8, 2 * h, 2 * w, 2 * d)


def _laid_out(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def _size_problem(size: tuple[int, ...]) -> str:
    if min(size) < 8 or any(side % 2 for side in size):
        return "it works on half the grid, so every side must be even and at least 8"
    if max(halvings(size)[0]) > 12:
        return "halving all sides must lead to 4 to 12 (32, 48, 64, 80, 96, 128 ... do, alike on every axis)"
    return ""


def build(
    shape: ImageShape,
    *,
    private: bool = False,
    latent: int = 32,
    base: int | None = None,
    lesion: float = 2.0,
    divergence: float = 0.3,
    texture: float = 0.7,
    spots: float = 1.0,
    tissue: int = 0,
) -> RenderVae:
    """A new one. `lesion` is how much more a named pixel counts, `texture` the strength of the added field, `spots` how
    many are drawn for each that was seen.

    The last `tissue` channels of a map are classes of tissue.
    """
    if shape.source_channels < 2 or not shape.channels:
        raise ConfigError("render-vae makes images of label maps", remedy="give --pairing label-to-image")
    chosen = base or (32 if shape.dimensions == 2 else 16)
    return RenderVae(
        shape,
        latent=latent,
        base=chosen,
        lesion=lesion,
        divergence=divergence,
        texture=texture,
        spots=spots,
        tissue=tissue,
    )


register(
    Entry(
        name="render-vae",
        summary="an image for a label map, by a conditional autoencoder; steady, and teaches well",
        kind="paired",
        build=build,
        recipe=Recipe(
            steps=2000, batch=32, rate=1e-3, betas=(0.5, 0.99), ema=70.0, decay=0.4, augment=False, precision="bfloat16"
        ),
        not_private="the sums over patients that it is fitted by are not clipped yet; take a joint family",
        check_size=_size_problem,
    )
)
