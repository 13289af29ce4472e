"""A feature network from outside: a local file of weights with a statement of what it was trained on.

A network that saw members and not holdout patients, or more of one than of the other, tells them apart by itself: it
would make honest images look like leaks, so it is refused. The roles are read for this check and for nothing else.
"""

import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from fedsynth.config import load_toml
from fedsynth.data import ImageSet
from fedsynth.data.lazy_arrays import blocks
from fedsynth.errors import ConfigError, FedSynthError, RefusedError
from fedsynth.evaluation.feature_spaces.appearance import views
from fedsynth.evaluation.feature_spaces.encoder import Encoder
from fedsynth.evaluation.feature_spaces.grid_space import FAR, Features, own_places

SCRIPTS, WEIGHTS = (".pt", ".pth", ".ts"), (".safetensors",)
N_VIEWS = 2


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What a network was trained on, in `<weights>.toml` beside the weights.

    `saw` is of the patients of the sets under test: which of them were in its training data. `patients` names those it
    saw, where only some are known. `channels` and `size` are what it takes; the set's own where they are left out.
    """

    trained_on: str
    saw: Literal["neither", "both", "members", "holdout", "unknown"]
    sha256: str
    patients: tuple[str, ...] = ()
    channels: int | None = None
    size: int | None = None


def load_outside(path: Path, real: ImageSet) -> "OutsideNetwork | Encoder":
    """The network at `path`, if its statement belongs to it and it saw members and holdout of `real` alike."""
    if not path.is_file():
        raise ConfigError("there is no such file of weights", file=path)
    beside = path.with_name(path.name + ".toml")
    if not beside.is_file():
        remedy = f"write {beside.name} with trained-on, saw and sha256 = {_hash(path)!r}"
        raise RefusedError("comes without a statement of what it was trained on", file=path, remedy=remedy)
    statement = load_toml(Statement, beside)
    if statement.sha256 != _hash(path):
        remedy = f"the file's is {_hash(path)!r}: state again what these weights were trained on"
        raise RefusedError("'sha256' is of other weights", file=beside, value=statement.sha256, remedy=remedy)
    check_statement(statement, real, beside)
    if path.suffix in WEIGHTS:
        return Encoder(weights=path)
    return OutsideNetwork(path, statement)


def check_statement(statement: Statement, real: ImageSet, file: Path | None = None) -> None:
    """Refuse a network that saw members and holdout unequally, or of which nobody knows."""
    if not statement.trained_on.strip():
        raise ConfigError("'trained-on' must say which images the network learned from", file=file)
    remedy = "take a network that saw neither or all of both"
    if statement.saw not in ("neither", "both"):
        raise RefusedError("a network that may have seen members and holdout unequally", file=file, value=statement.saw)
    seen = {role: _share_seen(statement, real, role) for role in ("member", "holdout")}
    if statement.saw == "neither" and any(seen.values()):
        raise ConfigError("'saw' is 'neither', but 'patients' names some", file=file, value=seen, remedy=remedy)
    if statement.patients and len(set(seen.values())) > 1:
        shares = ", ".join(f"{share:.0%} of the {role} patients" for role, share in seen.items())
        raise RefusedError(f"a network that saw {shares}", file=file, remedy=remedy)


class OutsideNetwork:
    """A TorchScript network: (n, channels, *size) in [0, 1] to (n, ...) numbers, flattened; also mirrored."""

    def __init__(self, path: Path, statement: Statement) -> None:
        self.name = path.stem
        self.path, self.statement = path, statement
        self._network = _load_script(path)
        self._centre: Features | None = None
        self._length = 1.0

    def fit(self, real: ImageSet, *, seed: int) -> None:
        """Nothing is learned; only where real images lie is remembered, for blank ones."""
        found = self._tables(real, 1)[0]
        self._centre = found.mean(axis=0)
        self._length = FAR * float(np.median(np.linalg.norm(found - self._centre, axis=1)))

    def features(self, images: ImageSet) -> Features:
        """One row per image."""
        return self._tables(images, 1)[0]

    def views(self, images: ImageSet) -> Iterator[Features]:
        """The images as they are, then mirrored."""
        yield from self._tables(images, N_VIEWS)

    def _tables(self, images: ImageSet, n_orientations: int) -> list[Features]:
        parts: list[list[Features]] = [[] for _ in range(n_orientations)]
        for start, block in blocks(images.images, n_bytes=2**22):
            values = np.asarray(block, np.float32) / np.float32(255 if block.dtype == np.uint8 else 1)
            blank = np.flatnonzero(np.ptp(values.reshape(len(values), -1), axis=1) == 0)
            for part, view in zip(parts, islice(views(values), n_orientations), strict=True):
                found = self._ask(torch.from_numpy(np.ascontiguousarray(view)))
                if self._centre is not None and len(blank):
                    found[blank] = own_places(images, start + blank, self._centre, self._length)
                part.append(found)
        return [np.concatenate(part) for part in parts]

    def _ask(self, values: torch.Tensor) -> Features:
        if self.statement.channels not in (None, values.shape[1]):
            values = values.mean(dim=1, keepdim=True).expand(-1, self.statement.channels or 1, *values.shape[2:])
        if self.statement.size is not None:
            mode = "bilinear" if values.ndim == 4 else "trilinear"
            values = F.interpolate(values, [self.statement.size] * (values.ndim - 2), mode=mode)
        try:
            with torch.no_grad():
                found = self._network(values)
            rows: Features = found.flatten(1).float().numpy().copy()
        except (RuntimeError, AttributeError, TypeError) as error:
            remedy = "state 'channels' and 'size' as the network takes them"
            raise ConfigError(
                f"cannot take images of shape {tuple(values.shape)}", file=self.path, remedy=remedy
            ) from error
        if len(rows) != len(values) or not np.isfinite(rows).all():
            raise FedSynthError("the network gives no finite row per image", file=self.path)
        return rows


def _load_script(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch prefers its own new format
            return torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        remedy = "save the network with torch.jit.save(torch.jit.script(network), file)"
        raise ConfigError("is not a TorchScript network", file=path, remedy=remedy) from error


def _share_seen(statement: Statement, real: ImageSet, role: str) -> float:
    patients = set(real.cases.loc[real.cases["role"] == role, "patient"]) - {""}
    return len(patients & set(statement.patients)) / len(patients) if patients else 0.0


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
