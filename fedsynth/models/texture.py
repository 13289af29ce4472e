"""What smooth renderers lack, as a Gaussian field with the missing power spectrum: a sum over images.

The spectrum is a covariance between channels at every spatial frequency, inside the brain (anything brighter than
black). It holds coarse structure as well as grain: bright spots without a label that a renderer blurs away are blobs
of the field, and teach a segmentation network what is no lesion.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedsynth.models.base import ImageShape, Tensors

BLACK = -0.85
LETTERS = "xyz"


class Texture(nn.Module):
    """The root of the missing spectrum, (frequencies, channels, channels, 2): real and imaginary parts."""

    root: Tensor

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        frequencies = (*shape.size[:-1], shape.size[-1] // 2 + 1)
        self.register_buffer("root", torch.zeros(*frequencies, shape.channels, shape.channels, 2))

    def fit(self, spectrum: Tensor, brain: Tensor) -> None:
        """From sums of spectra (frequencies, channels, channels, 2) and of the share of brain in an image."""
        values, vectors = torch.linalg.eigh(torch.view_as_complex(spectrum / brain.clamp(min=1e-9)))
        self.root.copy_(torch.view_as_real(vectors * values.clamp(min=0).sqrt()[..., None, :]))

    def field(self, made: Tensor, normal: Tensor) -> Tensor:
        """A field (n, channels, ...) from standard normal values, fading out at the border of the brain."""
        axes, letters = tuple(range(2, made.dim())), LETTERS[: made.dim() - 2]
        root = torch.view_as_complex(self.root.contiguous())
        coloured = torch.einsum(f"{letters}cd,nd{letters}->nc{letters}", root, torch.fft.rfftn(normal, dim=axes))
        pool = functional.avg_pool2d if made.dim() == 4 else functional.avg_pool3d
        grain: Tensor = torch.fft.irfftn(coloured, s=made.shape[2:], dim=axes)
        return grain * pool(brain_of(made, 1), 3, 1, 1)


def missing_spectrum(real: Tensor, made: Tensor) -> Tensors:
    """Sums over images: the spectrum of real images minus that of made ones, and the share of brain."""
    (of_real, brain), (of_made, _) = _spectrum(real), _spectrum(made)
    return {"spectrum": torch.view_as_real(of_real - of_made), "brain": brain}


def brain_of(image: Tensor, margin: int) -> Tensor:
    """(n, 1, ...): 1 where a pixel is brighter than black, `margin` pixels and more from black ones."""
    pool = functional.max_pool2d if image.dim() == 4 else functional.max_pool3d
    dark = (image.amax(1, keepdim=True) <= BLACK).float()
    return 1 - pool(dark, 2 * margin + 1, 1, margin)


def _spectrum(image: Tensor) -> tuple[Tensor, Tensor]:
    """Of what departs from each channel's mean over the brain, per voxel of the image; and the share of brain."""
    axes, letters, brain = tuple(range(2, image.dim())), LETTERS[: image.dim() - 2], brain_of(image, 2)
    mean = (image * brain).sum(axes, keepdim=True) / brain.sum(axes, keepdim=True).clamp(min=1)
    waves = torch.fft.rfftn(((image - mean) * brain).double(), dim=axes)
    power = torch.einsum(f"nc{letters},nd{letters}->{letters}cd", waves, waves.conj())
    return power / image[0, 0].numel(), brain.double().flatten(1).mean(1).sum()
