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
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fedsynth import atomic_files
from fedsynth.errors import DamagedError, FedSynthError
from fedsynth.federation.exchange import Arrays
from fedsynth.training.content_hash import hashed, read_whole

KEPT = 3
_AVERAGE, _STRATEGY = "average/", "strategy/"
_NAME = re.compile(r"round-(\d+)\.safetensors")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The federation after `round` rounds. `shares` are the sites' class shares where a plain run may know them.

    `sites` are all whose answers are in the weights: also those that were there before a resume and are not now.
    `mixture` says how often each of them is drawn from, where `ema` holds a sampler of every one.

    `charged` are the private steps that each site last told of, `norms` the usual norms of an update in the last
    rounds, `log` the round log so far: a resumed run goes on from these and not from what else lies on the disk.
    """

    round: int
    weights: Arrays
    ema: Arrays
    strategy: Arrays = field(default_factory=dict)
    shares: tuple[float, ...] = ()
    sites: tuple[str, ...] = ()
    mixture: tuple[float, ...] = ()
    charged: Mapping[str, float] = field(default_factory=dict)
    norms: tuple[float, ...] = ()
    log: str = ""


def save_checkpoint(folder: Path, checkpoint: Checkpoint, generator: str) -> None:
    """Write it and drop the oldest; the newest few stay."""
    arrays = dict(checkpoint.weights)
    arrays |= {_AVERAGE + name: value for name, value in checkpoint.ema.items()}
    arrays |= {_STRATEGY + name: value for name, value in checkpoint.strategy.items()}
    notes = {"generator": generator, "round": str(checkpoint.round), "shares": json.dumps(checkpoint.shares)}
    notes |= {"sites": json.dumps(checkpoint.sites), "mixture": json.dumps(checkpoint.mixture)}
    notes |= {"charged": json.dumps(dict(checkpoint.charged)), "norms": json.dumps(checkpoint.norms)}
    content = save({name: np.asarray(value, order="C") for name, value in arrays.items()})
    atomic_files.write_bytes(_path(folder, checkpoint.round), hashed(content, notes | {"log": checkpoint.log}))
    for old in rounds_of(folder)[:-KEPT]:
        _path(folder, old).unlink(missing_ok=True)


def newest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[int]]:
    """The newest whole one, none where a run begins; and the rounds of newer ones that are damaged.

    Where all are damaged the run begins again if the first is among them: sites have what they answered. Otherwise
    nobody knows what was trained, and that is an error.
    """
    damaged: list[int] = []
    for number in reversed(rounds_of(folder)):
        try:
            return _load(_path(folder, number)), damaged
        except DamagedError:
            damaged.append(number)
    if damaged and 1 not in damaged:
        remedy = "put one back from a backup, or start a new run"
        raise FedSynthError("no checkpoint of the run is whole", file=folder, value=damaged, remedy=remedy)
    return None, damaged


def rounds_of(folder: Path) -> list[int]:
    """The rounds that have a checkpoint, in order."""
    found = [_NAME.fullmatch(path.name) for path in folder.glob("round-*.safetensors")]
    return sorted(int(match[1]) for match in found if match)


def _path(folder: Path, number: int) -> Path:
    return folder / f"round-{number:04d}.safetensors"


def _load(path: Path) -> Checkpoint:
    try:
        content, notes = read_whole(path)
        arrays = load(content)
        return Checkpoint(
            round=int(notes["round"]),
            weights={name: value for name, value in arrays.items() if "/" not in name},
            ema=_under(_AVERAGE, arrays),
            strategy=_under(_STRATEGY, arrays),
            shares=tuple(json.loads(notes["shares"])),
            sites=tuple(json.loads(notes["sites"])),
            mixture=tuple(json.loads(notes["mixture"])),
            charged=json.loads(notes["charged"]),
            norms=tuple(json.loads(notes["norms"])),
            log=notes["log"],
        )
    except (SafetensorError, ValueError, KeyError) as error:
        raise DamagedError("is no checkpoint that this version wrote", file=path) from error


def _under(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
