"""The server's memory on disk: one file a round, whole or absent, from which a killed run goes on.

Keys `<network>.<parameter>`; the moving average and the strategy's own memory stand under their prefixes.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedsynth import atomic_files
from fedsynth.federation.exchange import Arrays

KEPT = 3
_AVERAGE, _STRATEGY = "average/", "strategy/"
_NAME = re.compile(r"round-(\d+)\.safetensors")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The federation after `round` rounds. `shares` are the sites' class shares where a plain run may know them.

    `sites` are all whose answers are in the weights: also those that were there before a resume and are not now.
    `mixture` says how often each of them is drawn from, where `ema` holds a sampler of every one.
    """

    round: int
    weights: Arrays
    ema: Arrays
    strategy: Arrays = field(default_factory=dict)
    shares: tuple[float, ...] = ()
    sites: tuple[str, ...] = ()
    mixture: tuple[float, ...] = ()


def save_checkpoint(folder: Path, checkpoint: Checkpoint, generator: str) -> None:
    """Write it and drop the oldest; the newest few stay."""
    arrays = dict(checkpoint.weights)
    arrays |= {_AVERAGE + name: value for name, value in checkpoint.ema.items()}
    arrays |= {_STRATEGY + name: value for name, value in checkpoint.strategy.items()}
    notes = {"generator": generator, "round": str(checkpoint.round), "shares": json.dumps(checkpoint.shares)}
    notes |= {"sites": json.dumps(checkpoint.sites), "mixture": json.dumps(checkpoint.mixture)}
    content = save({name: np.asarray(value, order="C") for name, value in arrays.items()}, notes)
    atomic_files.write_bytes(folder / f"round-{checkpoint.round:04d}.safetensors", content)
    for old in rounds_of(folder)[:-KEPT]:
        (folder / f"round-{old:04d}.safetensors").unlink(missing_ok=True)


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The last one that can be read."""
    for number in reversed(rounds_of(folder)):
        try:
            return _load(folder / f"round-{number:04d}.safetensors")
        except (OSError, SafetensorError, ValueError, KeyError):
            continue
    return None


def rounds_of(folder: Path) -> list[int]:
    """The rounds that have a checkpoint, in order."""
    found = [_NAME.fullmatch(path.name) for path in folder.glob("round-*.safetensors")]
    return sorted(int(match[1]) for match in found if match)


def _load(path: Path) -> Checkpoint:
    with safe_open(path, "np") as opened:
        notes = opened.metadata()
        arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    return Checkpoint(
        round=int(notes["round"]),
        weights={name: value for name, value in arrays.items() if "/" not in name},
        ema=_under(_AVERAGE, arrays),
        strategy=_under(_STRATEGY, arrays),
        shares=tuple(json.loads(notes["shares"])),
        sites=tuple(json.loads(notes.get("sites", "[]"))),
        mixture=tuple(json.loads(notes.get("mixture", "[]"))),
    )


def _under(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
