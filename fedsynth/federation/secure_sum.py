"""A sum of whole-number vectors that shows nobody more than the sum: the arithmetic of it, pure of Flower and of disks.

Every two sites share a secret (X25519) and every site has a seed of its own. A site sends its vector plus a mask for
every other site, added by the one and subtracted by the other of each two, plus a mask from its own seed, all modulo
2**64. The masks between sites cancel in the sum over all sites that exchanged keys, and in no other. The seeds are
sent last, when every masked vector is there.

Why not the shares of Bonawitz et al. 2017 (Practical secure aggregation). There each site hands shares of its secrets
to the others, so that a sum can be finished without who dropped out of it. That is for thousands of telephones which
come and go. A release is made once, of a few hospitals that come back: a sum that somebody drops out of is void and is
begun anew without them, with new keys, and no site keeps a share of another's secrets. The seeds are theirs, and are
needed here too: an answer that comes late completes a sum that was given up, and the difference of two sums is one
site's vector. A site that keeps its seed to itself makes sure that the sum given up is never completed.
"""

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from fedsynth.errors import FedSynthError, RefusedError

KEY = 32
"""Bytes of a key, public or secret, and of a seed."""
Words = NDArray[np.uint64]
"""Whole numbers modulo 2**64."""


@dataclass(frozen=True, kw_only=True)
class Roster:
    """One attempt at a sum: the public key of every site by its name, for one round of one run.

    Masks follow from all of it: two sites that were told different rosters have masks that do not cancel.
    """

    experiment: str
    round: int
    attempt: int
    keys: Mapping[str, bytes]

    def __post_init__(self) -> None:
        if len(self.keys) < 2:
            raise RefusedError("a sum over fewer than two sites is a site's own vector", value=sorted(self.keys))
        if any(len(key) != KEY for key in self.keys.values()):
            raise RefusedError("a key in the list of sites is none")
        if len(set(self.keys.values())) < len(self.keys):
            raise RefusedError("two sites of the list have one key: one of them is not who it says")

    @property
    def sites(self) -> tuple[str, ...]:
        """In the order of their names."""
        return tuple(sorted(self.keys))

    @property
    def digest(self) -> bytes:
        """Of everything above."""
        listed = [[name, self.keys[name].hex()] for name in self.sites]
        return hashlib.sha256(json.dumps([self.experiment, self.round, self.attempt, listed]).encode()).digest()


@dataclass(frozen=True, kw_only=True, repr=False)
class Secrets:
    """What a site draws for one attempt and keeps: the secret half of its key, and the seed of its own mask."""

    key: bytes
    seed: bytes

    @classmethod
    def fresh(cls) -> "Secrets":
        """From the operating system."""
        return cls(key=secrets.token_bytes(KEY), seed=secrets.token_bytes(KEY))

    @property
    def public(self) -> bytes:
        """The half of the key that the others are told."""
        return X25519PrivateKey.from_private_bytes(self.key).public_key().public_bytes_raw()


def masked(vector: NDArray[np.int64], own: Secrets, name: str, roster: Roster) -> Words:
    """A site's vector under all its masks. Alone it is uniform: any vector could be under it.

    Raises:
        RefusedError: the roster is not one that this site can be in.
    """
    if roster.keys.get(name) != own.public:
        raise RefusedError("this site does not stand in the list of sites with the key that it sent", value=name)
    total = words(vector) + _own_mask(own.seed, name, roster, len(vector))
    for other in roster.sites:
        if other == name:
            continue
        mask = _pair_mask(own.key, name, other, roster, len(vector))
        total = total + mask if name < other else total - mask
    return total


def unmasked(vectors: Mapping[str, Words], seeds: Mapping[str, bytes], roster: Roster) -> NDArray[np.int64]:
    """The sum over all sites of the roster, exact while it fits 63 bits; every one of them is needed."""
    missing = set(roster.sites) - (vectors.keys() & seeds.keys())
    if missing:
        raise FedSynthError("without a site of the list its masks do not cancel", value=sorted(missing))
    (length,) = {len(vector) for vector in vectors.values()}
    total = np.zeros(length, np.uint64)
    for name in roster.sites:
        total += vectors[name] - _own_mask(seeds[name], name, roster, length)
    return total.view(np.int64)


def words(vector: NDArray[np.int64]) -> Words:
    """Whole numbers modulo 2**64: a negative one is 2**64 less its size."""
    return np.ascontiguousarray(vector, np.int64).view(np.uint64)


def as_array(key: bytes) -> NDArray[np.uint8]:
    """A key or seed as it travels."""
    return np.frombuffer(key, np.uint8)


def as_bytes(array: NDArray[Any]) -> bytes:
    """The inverse of `as_array`; refused where it is no key."""
    if array.dtype != np.uint8 or array.shape != (KEY,):
        raise RefusedError("what should be a key is none")
    return array.tobytes()


def _own_mask(seed: bytes, name: str, roster: Roster, length: int) -> Words:
    return _stream(seed, ["own", name], roster, length)


def _pair_mask(key: bytes, name: str, other: str, roster: Roster, length: int) -> Words:
    """What only these two can make; `cryptography` refuses keys of small order, with which anybody could."""
    try:
        public = X25519PublicKey.from_public_bytes(roster.keys[other])
        shared = X25519PrivateKey.from_private_bytes(key).exchange(public)
    except ValueError as error:
        raise RefusedError("a key in the list of sites gives no secret", value=other) from error
    return _stream(shared, ["pair", *sorted((name, other))], roster, length)


def _stream(secret: bytes, purpose: list[str], roster: Roster, length: int) -> Words:
    """`length` words that nobody without the secret can tell from uniform ones: HKDF-SHA256 (RFC 5869), then AES-256
    in counter mode. The key is of this purpose, these sites and this roster alone, so that the counter starts at 0."""
    info = json.dumps(["fedsynth secure sum", *purpose]).encode()
    key = HKDF(algorithm=hashes.SHA256(), length=KEY, salt=roster.digest, info=info).derive(secret)
    encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    return np.frombuffer(encryptor.update(bytes(8 * length)), "<u8").astype(np.uint64)
