"""The form of every result: a number with its interval, baseline and control, and the file that it is published in.

It knows nothing of what was measured.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fedsynth import atomic_files
from fedsynth.data import ImageSet
from fedsynth.data.lazy_arrays import blocks
from fedsynth.errors import ConfigError
from fedsynth.privacy.ledger import default_store
from fedsynth.privacy.patient_tags import Identities
from fedsynth.runs import describe_environment

SCHEMA = 1

Verdict = Literal["pass", "leak", "depends", "inconclusive", "invalid", "fail", "no contradiction found"]


@dataclass(frozen=True, kw_only=True)
class Score:
    """A number that never travels alone: its 95 % interval, what a baseline and a control reach, and from how many.

    What cannot be known is None, with the reason in `why`.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    baseline: float | None = None
    control: float | None = None
    n: int | None = None
    why: str = ""

    def __post_init__(self) -> None:
        if self.value is None and not self.why:
            raise ValueError("a score without a value says why")

    def __str__(self) -> str:
        if self.value is None:
            return self.why
        interval = "" if self.low is None or self.high is None else f" [{self.low:.3g}, {self.high:.3g}]"
        return f"{self.value:.3g}{interval}"


@dataclass(frozen=True, kw_only=True)
class Input:
    """An image set that a result rests on, distinguished from any other by a hash of its content.

    Of patients' images the hash is keyed by the store that made it: results of two stores do not compare.
    """

    path: str
    sha256: str
    images: int
    patients: int
    roles: dict[str, int]

    @classmethod
    def of(cls, images: ImageSet) -> "Input":
        """Describe `images`: numbers of images and patients, patients per role, content hash."""
        named = images.patients
        return cls(
            path="" if images.folder is None else str(images.folder),
            sha256=content_hash(images),
            images=len(images),
            patients=len(named),
            roles={str(role): int(count) for role, count in named["role"].value_counts().items()},
        )


@dataclass(frozen=True, kw_only=True)
class Result:
    """One benchmark's answer, in the one form that every file and every `--json` has."""

    benchmark: str
    scores: Mapping[str, Score]
    inputs: Mapping[str, Input]
    seed: int
    settings: Mapping[str, Any]
    seconds: float
    verdict: Verdict | None = None
    per_site: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=describe_environment)
    schema: int = SCHEMA

    def as_json(self) -> dict[str, Any]:
        """Plain values only; a number that is not finite becomes null."""
        return {key: _plain(value) for key, value in asdict(self).items()}

    def save(self, path: Path) -> None:
        """Write the result, whole or not at all."""
        atomic_files.write_text(path, json.dumps(self.as_json(), indent=2, allow_nan=False) + "\n")


def load_result(path: Path) -> Result:
    """Read what `Result.save` wrote; a damaged file is refused with the reason."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        if table["schema"] != SCHEMA:
            raise ConfigError("has another schema", file=path, value=table["schema"], remedy="run the benchmark again")
        scores = {name: Score(**score) for name, score in table.pop("scores").items()}
        sites = {site: {n: Score(**s) for n, s in of.items()} for site, of in table.pop("per_site").items()}
        inputs = {name: Input(**value) for name, value in table.pop("inputs").items()}
        return Result(scores=scores, per_site=sites, inputs=inputs, **table)
    except FileNotFoundError as error:
        raise ConfigError("there is no such result", file=path, remedy="run the benchmark first") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError("is damaged or not a result", file=path, remedy="run the benchmark again") from error


def content_hash(images: ImageSet) -> str:
    """Of table and voxels, in their order; where the set lies and what it is called do not matter.

    A plain hash of patients' images would let whoever knows all of them but one test the last.
    """
    found = hashlib.sha256(images.cases.to_csv(index=False).encode())
    for values in _stacks(images):
        found.update(np.ascontiguousarray(values).data)
    if images.header.origin != "real" or images.header.phantoms:
        return found.hexdigest()
    return Identities(default_store()).fingerprint(found.hexdigest())


def _stacks(images: ImageSet) -> Iterator[np.ndarray]:
    for stack in (images.images, images.masks):
        if stack is not None:
            for _, block in blocks(stack):
                yield block


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
