"""The server's memory on disk: one file a round, whole or absent, from which a killed run goes on.

Keys `<network>.<parameter>`; the moving average and the strategy's own memory stand under their prefixes.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from fedsynth import atomic_files
from fedsynth.errors import DamagedError, FedSynthError
from fedsynth.federation.exchange import Arrays
from fedsynth.federation.round_log import LogMark
from fedsynth.training.content_hash import entry_of, hashed, read_whole

KEPT = 3
ROWS = "rounds.jsonl"
_AVERAGE, _STRATEGY = "average/", "strategy/"
_NAME = re.compile(r"round-(\d+)\.safetensors")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The federation after `round` rounds. `shares` are the sites' class shares where a plain run may know them.

    `sites` are all whose answers are in the weights: also those that were there before a resume and are not now.
    `mixture` says how often each of them is drawn from, where `ema` holds a sampler of every one.

    `charged` are the private steps that each site last told of, `norms` the usual norms of an update in the last
    rounds, `log` how much of the round log belongs to it (in earlier versions all of it). A resumed run goes on
    from these and not from what else lies on the disk.
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
    log: LogMark | str = field(default_factory=LogMark)


def save_checkpoint(folder: Path, checkpoint: Checkpoint, generator: str) -> None:
    """Write it and drop the oldest; the newest few stay."""
    arrays = dict(checkpoint.weights)
    arrays |= {_AVERAGE + name: value for name, value in checkpoint.ema.items()}
    arrays |= {_STRATEGY + name: value for name, value in checkpoint.strategy.items()}
    notes = {"generator": generator, "round": str(checkpoint.round), "shares": json.dumps(checkpoint.shares)}
    notes |= {"sites": json.dumps(checkpoint.sites), "mixture": json.dumps(checkpoint.mixture)}
    notes |= {"charged": json.dumps(dict(checkpoint.charged)), "norms": json.dumps(checkpoint.norms)}
    entries = {name: entry_of(np.asarray(value)) for name, value in arrays.items()}
    path, content = _path(folder, checkpoint.round), hashed(entries, notes | _log_notes(checkpoint.log))
    old = [_path(folder, number) for number in rounds_of(folder) if number != checkpoint.round][: 1 - KEPT]
    atomic_files.write_bytes(path, content, over=old[0] if old else None)
    for one in old[1:]:
        one.unlink(missing_ok=True)


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
            log=notes["log"] if "log" in notes else LogMark(**json.loads(notes["log-mark"])),
        )
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DamagedError("is no checkpoint that this version wrote", file=path) from error


def _log_notes(log: LogMark | str) -> dict[str, str]:
    return {"log": log} if isinstance(log, str) else {"log-mark": json.dumps(asdict(log))}


def _under(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
