"""Classes of tissue without labels: from each image alone, whatever its scanner, and none where the image is black."""

import pytest
import torch

from fedsynth.models.tissue import SHARES, tissue_of

BLACK = -1.0


def head(size: tuple[int, ...] = (32, 32)) -> torch.Tensor:
    """A disc in two channels with a dark half inside, and black around it."""
    axes = torch.meshgrid(*[torch.linspace(-1, 1, side) for side in size], indexing="ij")
    radius = torch.stack(list(axes)).square().sum(0).sqrt()
    shown = torch.where(axes[0] < 0, 0.5, -0.3) + 0.05 * torch.randn(size, generator=torch.Generator().manual_seed(0))
    return torch.where(radius < 0.8, shown, BLACK).expand(1, 2, *size).clone()


@pytest.mark.parametrize("classes", SHARES)
@pytest.mark.parametrize("size", [(32, 32), (16, 16, 16)])
def test_every_voxel_of_the_foreground_has_one_class(classes: int, size: tuple[int, ...]) -> None:
    image = head(size)
    found = tissue_of(image, classes)
    assert found.shape == (1, classes, *size)
    assert torch.equal(found.sum(1), (image.amax(1) > -0.85).float())
    shares = found.flatten(2).sum(2)[0].cumsum(0) / found.sum()
    assert shares[:-1].tolist() == pytest.approx(SHARES[classes], abs=0.02)


def test_dark_comes_first_and_gain_offset_and_a_slow_bias_change_little() -> None:
    image = head()
    found = tissue_of(image, 2)
    upper = found[0, :, 9:14, 14:18].sum((1, 2))
    lower = found[0, :, 18:23, 14:18].sum((1, 2))
    assert upper[1] > upper[0]
    assert lower[0] > lower[1]
    scaled = torch.where(image > -0.85, 0.6 * image + 0.1, image)
    assert torch.equal(tissue_of(scaled, 2), found)
    slope = torch.linspace(-0.15, 0.15, 32)
    tilted = torch.where(image > -0.85, image + slope, image)
    assert (tissue_of(tilted, 2) == found).float().mean() > 0.9


def test_an_image_is_classed_from_itself_alone_and_a_black_one_has_no_tissue() -> None:
    image = head()
    together = torch.cat([image, -image.clamp(max=0.4), torch.full_like(image, BLACK)])
    assert torch.equal(tissue_of(together, 3)[:1], tissue_of(image, 3))
    assert not tissue_of(together, 3)[2].any()
