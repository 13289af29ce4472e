"""A critic of patches for paired families: is every part of this image a true answer to its source?"""

import torch
from torch import Tensor, nn

from fedsynth.generators.family import ImageShape, Tensors
from fedsynth.generators.layers import halving_problem, spread
from fedsynth.generators.objectives import Term

SMALLEST = 16


def patch_problem(size: tuple[int, ...]) -> str:
    """Why a generator that doubles its grid, judged by patches, cannot make `size`; empty where it can."""
    if min(size) < SMALLEST:
        return f"sides below {SMALLEST} leave nothing to tell patches apart"
    return halving_problem(size)


class PatchCritic(nn.Module):
    """Scores of overlapping patches (PatchGAN, Isola et al. 2017), with the features that led to them.

    Instance norm looks at one sample only; private runs go without norm, which wastes less of the clipped gradient.
    """

    def __init__(self, shape: ImageShape, base: int, *, norm: bool) -> None:
        super().__init__()
        from monai.networks.nets.patchgan_discriminator import PatchDiscriminator

        self.layers = PatchDiscriminator(
            spatial_dims=shape.dimensions,
            channels=base,
            in_channels=shape.joint_channels + shape.source_channels + shape.n_classes,
            num_layers_d=2,
            norm="INSTANCE" if norm else None,  # type: ignore[arg-type]  # MONAI takes None, unlike its annotation
        )
        for module in self.modules():
            if hasattr(module, "inplace"):
                setattr(module, "inplace", False)  # noqa: B010  (a plain assignment is typed as a tensor or module)

    def forward(self, pair: Tensor, condition: Tensors) -> list[Tensor]:
        """Features of each layer for `pair` (image, mask and source as channels); the last are the scores."""
        if "label" in condition:
            label = spread(condition["label"].to(pair.dtype), pair).expand(-1, -1, *pair.shape[2:])
            pair = torch.cat([pair, label], 1)
        features: list[Tensor] = self.layers(pair)
        return features


def over_patches(term: Term, features: list[Tensor]) -> Tensor:
    """The mean of a loss over the patches of each sample (n,)."""
    return term(features[-1]).flatten(1).mean(1)


def feature_distance(made: list[Tensor], real: list[Tensor]) -> Tensor:
    """How far the critic's features of a made image lie from the real one's (n,): feature matching (Wang et al. 2018).

    The real features are a target and pass no gradient.
    """
    apart = [(m - r.detach()).abs().flatten(1).mean(1) for m, r in zip(made[:-1], real[:-1], strict=True)]
    return torch.stack(apart).mean(0)
