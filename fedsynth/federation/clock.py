"""When a hospital's answer leaves in a private run: at whole slots of a public length after the message came.

A step takes longer the more patients were drawn, and the server sees when an answer arrives.
"""

import time
from contextlib import suppress
from pathlib import Path

from fedsynth import files
from fedsynth.errors import FedSynthError

CLOCK = "answer-seconds"


def wait_for_slot(folder: Path, began: float, seconds: float) -> None:
    """Sleep until the slot ends that began at `began`, by `time.monotonic`. A slot has `seconds`, or what `folder`
    remembers.

    Work that outlasts its slot doubles it until it holds the work, and all later slots of the run are as long. So even
    a server that chooses how long rounds are learns at most how often the length was doubled.
    """
    if not seconds:
        return
    before = slot = max(seconds, _remembered(folder))
    elapsed = time.monotonic() - began
    while slot < elapsed:
        slot *= 2
    if slot > before:
        with suppress(FedSynthError):
            files.write_text(folder / CLOCK, f"{slot!r}\n")
    time.sleep(max(0.0, slot - (time.monotonic() - began)))


def _remembered(folder: Path) -> float:
    try:
        return float((folder / CLOCK).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0.0
