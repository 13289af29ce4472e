"""How alike two images are when shifts and brightness do not count: a coarse look for searching, a fine one to confirm.

It compares voxels only and knows nothing of patients.
"""

import numpy as np
from numpy.typing import NDArray

from fedsynth.images.rows import Stack, blocks

FREQUENCIES = {2: 5, 3: 3}
FINEST, COARSEST = 0.7, 2.0


def coarse_looks(images: Stack) -> NDArray[np.float32]:
    """One row of unit length per image: the magnitudes of its lowest spatial frequencies, all channels together.

    Magnitudes do not change when the image is shifted, unit length takes the brightness out, and without the zero
    frequency an offset does not count either. An image of one colour gives a row of zeros.
    """
    size = tuple(images.shape[2:])
    highest = FREQUENCIES[len(size)]
    waves = [np.exp(-2j * np.pi * np.outer(np.arange(-highest, highest + 1), np.arange(n)) / n) for n in size]
    half = (2 * highest + 1) ** len(size) // 2  # the other half holds the same magnitudes; the middle is frequency zero
    looks = np.empty((len(images), images.shape[1] * half), np.float32)
    for start, block in blocks(images, n_bytes=2**22 * images.dtype.itemsize):
        values = block.astype(np.float32)
        values -= values.mean(axis=tuple(range(2, values.ndim)), keepdims=True)
        spectrum = values.astype(np.complex64)
        for wave in waves:  # each pass turns the first spatial axis into frequencies and moves it to the end
            spectrum = np.tensordot(spectrum, wave.astype(np.complex64), axes=([2], [1]))
        kept = np.abs(spectrum.reshape(*values.shape[:2], -1)[:, :, :half]).reshape(len(block), -1)
        length = np.linalg.norm(kept, axis=1, keepdims=True)
        looks[start : start + len(block)] = np.where(length > 1e-4, kept / np.maximum(length, 1e-4), 0)
    return looks


def fine_likeness(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Correlation of the fine detail of two images (channels, *size) at the shift where it is largest; 1 for copies.

    Detail is what lies between a blur of 0.7 and one of 2 voxels of an image 64 voxels wide: fine enough to be one
    patient's own, too coarse to be noise. 0 where an image has none.
    """
    band = _band(first.shape[1:])
    axes = tuple(range(1, first.ndim))
    one = np.fft.fftn(first.astype(np.float32), axes=axes) * band
    other = np.fft.fftn(second.astype(np.float32), axes=axes) * band
    length = float(np.linalg.norm(one) * np.linalg.norm(other))
    if length < 1e-6:
        return 0.0
    together = np.fft.ifftn((one * other.conj()).sum(axis=0)).real
    return float(together.max() * band.size / length)


def _band(size: tuple[int, ...]) -> NDArray[np.float32]:
    """What a difference of two Gaussian blurs does to each frequency."""
    voxels = max(1.0, min(size) / 64)
    axes = np.meshgrid(*[np.fft.fftfreq(n) for n in size], indexing="ij")
    squared = np.sum(np.square(axes), axis=0)
    fine, coarse = (np.exp(-2 * (np.pi * sigma * voxels) ** 2 * squared) for sigma in (FINEST, COARSEST))
    band: NDArray[np.float32] = (fine - coarse).astype(np.float32)
    return band
