"""StyleGAN (Karras et al. 2019): ProGAN's growth, with a mapped style entering every layer and noise beside it.

The discriminator is ProGAN's; the objective is non-saturating with R1.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedsynth.models.base import ImageShape, RandomSource, Tensors
from fedsynth.models.generators.catalog import Entry, Recipe, register
from fedsynth.models.generators.progan import GrowingDiscriminator, discriminator_widths, stage_widths
from fedsynth.models.layers import EqualConv, EqualLinear, as_joint, double, halving_problem, halvings, spread
from fedsynth.models.objectives import NON_SATURATING, r1
from fedsynth.models.progressive_growing import GrowingGan, GrowingGenerator, Growth, faded
from fedsynth.models.style_mapping import Styles


class StyledLayer(nn.Module):
    """Noise with a learned strength per channel, a leaky rectifier, and adaptive instance normalisation."""

    def __init__(self, dimensions: int, channels: int, style: int) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(1, channels, *[1] * dimensions))
        self.style = EqualLinear(style, 2 * channels)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        """Features whose mean and deviation per channel follow the style."""
        x = functional.leaky_relu(x + self.strength * noise, 0.2)
        scale, shift = spread(self.style(w), x).chunk(2, 1)
        return functional.instance_norm(x) * (1 + scale) + shift


class StyleGenerator(GrowingGenerator):
    """A learned constant, two styled convolutions per stage (the first stage has one), and a way out per stage."""

    def __init__(self, shape: ImageShape, growth: Growth, styles: Styles, *, style: int, channels: list[int]) -> None:
        super().__init__(growth)
        self.shape, self.styles, self.grids = shape, styles, halvings(shape.size)
        d, before = shape.dimensions, [channels[0], *channels[:-1]]
        self.constant = nn.Parameter(torch.ones(1, channels[0], *self.grids[0]))
        pairs = [pair for i, o in zip(before, channels, strict=True) for pair in ((i, o), (o, o))]
        self.convolutions = nn.ModuleList(EqualConv(d, i, o) for i, o in pairs[1:])
        self.styled = nn.ModuleList(StyledLayer(d, o, style) for _, o in pairs)
        self.out = nn.ModuleList(EqualConv(d, c, shape.joint_channels, 1) for c in channels)

    def noise(self, n: int, rng: RandomSource) -> Tensors:
        """Latents, and a noise picture for every layer."""
        pictures = {f"layer-{2 * i + j}": rng.normal((n, 1, *g)) for i, g in enumerate(self.grids) for j in (0, 1)}
        return {**self.styles.noise(n, rng), **pictures}

    def forward(self, label: Tensor | None, noise: Tensors, progress: float) -> Tensor:
        """Image and mask at the size of the stage, styles mixed among the layers in use."""
        n_layers = 2 * (self.growth.at(progress)[0] + 1)
        return self._synthesize(self.styles.mixed(label, noise, n_layers), noise, progress)

    def released(self, label: Tensor | None, noise: Tensors, progress: float) -> Tensor:
        """Image and mask at the size of the stage, in one truncated style."""
        n_layers = 2 * (self.growth.at(progress)[0] + 1)
        return self._synthesize(self.styles.truncated(label, noise, n_layers), noise, progress)

    def _synthesize(self, ws: Tensor, noise: Tensors, progress: float) -> Tensor:
        stage, share = self.growth.at(progress)
        x = before = self.constant.expand(len(ws), *self.constant.shape[1:])
        for layer in range(2 * stage + 2):
            if layer % 2 == 0:
                before, x = x, double(x) if layer else x
            x = self.convolutions[layer - 1](x) if layer else x
            x = self.styled[layer](x, ws[:, layer], noise[f"layer-{layer}"])
        made = self.out[stage](x)
        if share < 1:
            made = faded(made, double(self.out[stage - 1](before)), share)
        return as_joint(made, self.shape)


def build(
    shape: ImageShape,
    *,
    private: bool = False,
    latent: int = 64,
    base: int | None = None,
    depth: int = 4,
    grow: float = 0.5,
    gamma: float = 1.0,
    truncation: float = 0.8,
) -> GrowingGan:
    """A new one; options as in progan, with `depth` layers in the mapping, `gamma` of R1, and `truncation`."""
    growth = Growth(n_stages=len(halvings(shape.size)), share=grow)
    styles = Styles(latent=latent, n_classes=shape.n_classes, style=latent, depth=depth, truncation=truncation)
    return GrowingGan(
        shape,
        generator=StyleGenerator(shape, growth, styles, style=latent, channels=stage_widths(shape, base)),
        discriminator=GrowingDiscriminator(
            shape, growth, channels=discriminator_widths(shape, base, private), deviation=not private
        ),
        objective=NON_SATURATING,
        penalty=r1(gamma),
        mixes_samples=not private,
    )


register(
    Entry(
        name="stylegan",
        summary="StyleGAN: progressive growth with styles, noise and style mixing",
        kind="joint",
        private="discriminator: vmap(grad)",
        build=build,
        recipe=Recipe(rate=3e-3, betas=(0.0, 0.99), augment=False),
        check_size=halving_problem,
    )
)
