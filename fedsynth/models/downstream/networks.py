"""MONAI's networks, and one of its blocks, sized for the image at hand.

Images of any side are padded to what a network can halve. All normalise within one sample (instance or group norm):
hospitals that average them share no batch statistics.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from monai.networks.blocks.convolutions import Convolution, ResidualUnit
from monai.networks.nets.densenet import DenseNet
from monai.networks.nets.swin_unetr import SwinUNETR
from monai.networks.nets.unet import UNet
from monai.networks.nets.vit import ViT
from torch import Tensor, nn
from torch.nn import functional

from fedsynth.models.base import ImageShape


class Padded(nn.Module):
    """A network that sees its images padded with background to multiples of `side`; what it draws is cut back."""

    def __init__(self, network: nn.Module, side: int) -> None:
        super().__init__()
        self.network, self.side = network, side

    def forward(self, image: Tensor) -> Tensor:
        """The network's output, of the size of `image` where it is a picture."""
        size = image.shape[2:]
        missing = [-length % self.side for length in size]
        ends = [(gap // 2, gap - gap // 2) for gap in missing]
        made: Tensor = self.network(functional.pad(image, [end for pair in reversed(ends) for end in pair], value=-1.0))
        if made.dim() != image.dim():
            return made
        for axis, ((before, _), length) in enumerate(zip(ends, size, strict=True), 2):
            made = made.narrow(axis, before, length)
        return made


def unet(shape: ImageShape, outputs: int) -> nn.Module:
    """A residual U-Net; its deepest picture is at least four pixels wide."""
    depth = max(1, min(3, int(math.log2(min(shape.size) / 4)))) if min(shape.size) >= 8 else 1
    base = 16 if shape.dimensions == 2 else 8
    network = UNet(
        spatial_dims=shape.dimensions,
        in_channels=shape.channels,
        out_channels=outputs,
        channels=[base * 2**level for level in range(depth + 1)],
        strides=[2] * depth,
        num_res_units=1,
        norm=("instance", {"affine": True}),
    )
    return Padded(network, 2**depth)


def swin(shape: ImageShape, outputs: int) -> nn.Module:
    """Swin UNETR with 12 features and short windows."""
    network = SwinUNETR(
        in_channels=shape.channels,
        out_channels=outputs,
        depths=(1, 1, 1, 1),
        num_heads=(2, 2, 4, 4),
        window_size=4,
        feature_size=12,
        norm_name=("group", {"num_groups": 4}),
        spatial_dims=shape.dimensions,
    )
    return Padded(network, 32)


class _MaxAndMean(nn.Module):
    """Each feature's maximum and mean over the image: a mean alone hides what is seen in few pixels, as a thin rim."""

    def forward(self, features: Tensor) -> Tensor:
        """(n, 2 features)."""
        places = tuple(range(2, features.dim()))
        return torch.cat([features.amax(places), features.mean(places)], 1)


def resnet(shape: ImageShape, outputs: int) -> nn.Module:
    """A convolution, then three residual blocks with group norm, each on half the grid; 16 to 64 features."""
    widths, norm = (16, 24, 48, 64), ("group", {"num_groups": 4})
    first = Convolution(shape.dimensions, shape.channels, widths[0], norm=norm, act="relu", bias=False)
    blocks = [
        ResidualUnit(shape.dimensions, before, after, strides=2, norm=norm, act="relu", bias=False)
        for before, after in pairwise(widths)
    ]
    return Padded(nn.Sequential(first, *blocks, _MaxAndMean(), nn.Linear(2 * widths[-1], outputs)), 2 ** len(blocks))


def densenet(shape: ImageShape, outputs: int) -> nn.Module:
    """A short DenseNet with group norm in batch norm's place."""
    network = DenseNet(
        spatial_dims=shape.dimensions,
        in_channels=shape.channels,
        out_channels=outputs,
        init_features=16,
        growth_rate=8,
        block_config=(2, 4, 4),
        norm=("group", {"num_groups": 4}),
    )
    return Padded(network, 16)


class _Vit(nn.Module):
    """MONAI's ViT gives its hidden states too; here they are left away."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Scores (n, classes)."""
        scores: Tensor = self.network(image)[0]
        return scores


def vit(shape: ImageShape, outputs: int) -> nn.Module:
    """A small vision transformer: patches an eighth of the image wide, four layers of 64."""
    patch = max(2, max(shape.size) // 8)
    network = ViT(
        in_channels=shape.channels,
        img_size=[math.ceil(length / patch) * patch for length in shape.size],
        patch_size=[patch] * shape.dimensions,
        hidden_size=64,
        mlp_dim=128,
        num_layers=4,
        num_heads=4,
        classification=True,
        num_classes=outputs,
        spatial_dims=shape.dimensions,
        post_activation="none",
    )
    for block in network.blocks:
        block.norm_cross_attn = nn.Identity()  # never used: no weights that a federation would send for nothing
    return Padded(_Vit(network), patch)


NORMALISATION = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
"""Batch and instance norm, group norm, layer norm."""


def normalisation_entries(network: nn.Module) -> frozenset[str]:
    """The names in the state dict of what normalisation layers hold: FedBN keeps it at each site (Li et al. 2021).

    Of the networks here these are scales and offsets of instance norm (unet), group norm (resnet, densenet, swin) and
    layer norm (swin, vit): none has batch norm, whose statistics would be among them.
    """
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, NORMALISATION)}
    return frozenset(f"{name}.{entry}" for name, layer in layers.items() for entry in layer.state_dict())


Network = Callable[[ImageShape, int], nn.Module]
SEGMENTATION: dict[str, Network] = {"unet": unet, "swin": swin}
CLASSIFICATION: dict[str, Network] = {"resnet": resnet, "densenet": densenet, "vit": vit}
