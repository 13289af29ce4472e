"""Random numbers that nobody can repeat: noise, patient sampling and slice sampling of private runs.

Knows nothing of the experiment's seed. A deterministic twin exists for tests; its name says what it is.
"""

import hashlib
import math
import os
import threading
from typing import NoReturn, Protocol

import torch
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from torch import Tensor

_CHUNK = 65_536  # values per pass: four float64 buffers of this size stay in the second-level cache
_ZEROS = bytes(8 * _CHUNK)


class Randomness(Protocol):
    """What the mechanism draws from. `private` is False for a source that somebody could repeat."""

    private: bool

    def gaussian(self, shape: tuple[int, ...], scale: float) -> Tensor:
        """Normal float64 values of standard deviation `scale`: the mechanism's noise."""

    def chosen(self, n: int, rate: float) -> Tensor:
        """Which of `n` patients a Poisson sample takes: ascending int64 indices, each in with probability `rate`."""

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal float32 values."""

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """Float32 values in [0, 1)."""

    def integers(self, high: int, shape: tuple[int, ...]) -> Tensor:
        """Int64 values in [0, high)."""


class _KeyedRandomness:
    """Distributions over one AES-256 counter stream. The key is the only secret and never leaves the cipher."""

    private = False

    def __init__(self, key: bytes) -> None:
        self._stream = _keyed_stream(key)
        self._buffer = bytearray(8 * _CHUNK + 16)
        self._lock = threading.Lock()

    def gaussian(self, shape: tuple[int, ...], scale: float) -> Tensor:
        """Normal float64 values of standard deviation `scale`, by Box and Muller's transform (exact, no table).

        The radius uses all 64 bits, so the tail reaches 9.5 standard deviations, where 1e-21 of the mass is lost.
        """
        n = math.prod(shape)
        values = torch.empty(n + n % 2, dtype=torch.float64)
        half = len(values) // 2
        for start in range(0, half, _CHUNK // 2):
            stop = min(start + _CHUNK // 2, half)
            bits = self._bits(2 * (stop - start))
            radius = _positive_uniform(bits[: stop - start]).log_().mul_(-2 * scale**2).sqrt_()
            angle = (bits[stop - start :] >> 11).double().mul_(2 * math.pi * 2.0**-53)  # 53 bits: float64 has no more
            torch.mul(radius, angle.cos(), out=values[start:stop])
            torch.mul(radius, angle.sin_(), out=values[half + start : half + stop])
        return values[:n].reshape(shape)

    def chosen(self, n: int, rate: float) -> Tensor:
        """Ascending int64 indices of a Poisson sample: each of `n` is in with probability `rate`, by its own coin."""
        return (self._uniform(n) < rate).nonzero().flatten()

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal float32 values."""
        return self.gaussian(shape, 1.0).float()

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """Float32 values in [0, 1), of 24 bits, so that none rounds up to 1."""
        return torch.floor(self._uniform(math.prod(shape)) * 2**24).float().mul_(2.0**-24).reshape(shape)

    def integers(self, high: int, shape: tuple[int, ...]) -> Tensor:
        """Int64 values in [0, high); uneven by at most high / 2**63."""
        bits = self._all_bits(math.prod(shape))
        return ((bits & (2**63 - 1)) % high).reshape(shape)

    def _uniform(self, n: int) -> Tensor:
        return ((self._all_bits(n) >> 11) & (2**53 - 1)).double().mul_(2.0**-53)

    def _all_bits(self, n: int) -> Tensor:
        return torch.cat([self._bits(min(_CHUNK, n - start)) for start in range(0, n, _CHUNK)] or [_nothing()])

    def _bits(self, n: int) -> Tensor:
        """At most `_CHUNK` int64 values of 64 random bits; a fresh copy, safe to change."""
        with self._lock:
            self._before_use()
            self._stream.update_into(memoryview(_ZEROS)[: 8 * n], self._buffer)
            return torch.frombuffer(self._buffer, dtype=torch.int64, count=n).clone() if n else _nothing()

    def _before_use(self) -> None:
        """Called under the lock before every draw."""


class SecretRandomness(_KeyedRandomness):
    """Cryptographic randomness keyed by the operating system; a forked process gets a key of its own.

    It cannot be seeded, copied, pickled or resumed: a restarted run draws anew, and the ledger has charged both.
    """

    private = True

    def __init__(self) -> None:
        super().__init__(os.urandom(32))
        self._process = os.getpid()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("secret randomness is never copied or written down")

    def _before_use(self) -> None:
        if os.getpid() != self._process:
            self._stream, self._process = _keyed_stream(os.urandom(32)), os.getpid()


class InsecureRandomness(_KeyedRandomness):
    """TESTS ONLY: whoever knows `seed` can subtract the noise. Everything drawn from it is stamped NOT PRIVATE.

    `label` separates streams of one seed (a site, a round), so that a resumed run can start a round's stream again.
    """

    def __init__(self, seed: int, label: str = "") -> None:
        super().__init__(hashlib.sha256(f"insecure {seed} {label}".encode()).digest())


def _keyed_stream(key: bytes) -> CipherContext:
    return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()


def _positive_uniform(bits: Tensor) -> Tensor:
    """Values in (0, 1], evenly spaced by 2**-64 at the small end, where the tails of the normal come from."""
    unsigned = bits.double().add_((bits < 0).double().mul_(2.0**64))
    return unsigned.add_(0.5).mul_(2.0**-64)


def _nothing() -> Tensor:
    return torch.empty(0, dtype=torch.int64)
