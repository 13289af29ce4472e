"""Classes of tissue by depth below the surface of a head: what tells heads with skull and scalp from stripped brains.

Sums over images, so that sites add them up. Bright scalp over dark bone lies outermost in the ones, and dark fluid or
grey cortex in the others.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from fedsynth.models.tissue import tissue_of

CLASSES, DEPTHS, PER_SIDE = 3, 8, 32
"""The outer `DEPTHS` layers are told, of which `PER_SIDE` span an image."""
SMALLEST = 0.05
"""The least share of an image that a head fills; others show too little of it."""

Profile = NDArray[np.float64]


def depth_profile(images: Tensor) -> Profile:
    """Sum over images (n, channels, rows, columns) of the share of each class in each layer, (DEPTHS x CLASSES,), and
    last the number of images that show a head."""
    total = np.zeros(DEPTHS * CLASSES + 1)
    for tissue in tissue_of(images, CLASSES).cpu().numpy():
        head = ndimage.binary_fill_holes(tissue.sum(0) > 0)
        if head.mean() < SMALLEST:
            continue
        depth = ndimage.distance_transform_edt(np.pad(head, 1))[1:-1, 1:-1] * PER_SIDE / head.shape[0]
        for layer in range(DEPTHS):
            there = head & (depth.astype(int) == layer)
            if there.any():
                total[layer * CLASSES : (layer + 1) * CLASSES] += tissue[:, there].mean(1)
        total[-1] += 1
    return total


def share_of_first(found: Profile, first: Profile, second: Profile) -> float:
    """The share in which a mixture of the `first` and the `second` kind comes nearest to what was `found`, in [0, 1].

    All are sums; one half where no image shows a head.
    """
    if not found[-1]:
        return 0.5
    mean, one, other = (profile[:-1] / profile[-1] for profile in (found, first, second))
    apart = one - other
    return float(np.clip((mean - other) @ apart / (apart @ apart), 0.0, 1.0))
