"""Which numbers in mask files are which labels, as the user declared them; never guessed from the data.

Without a declaration a mask is a yes or no: 0 and 1, or 0 and 255.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsynth.errors import ConfigError, SourceError

BINARY = ("background", "lesion")
UNKNOWN = 999
ROUNDING = 1e-3
GRAMMAR = "write --mask-labels background,NAME,... or background=0,NAME=NUMBER,NAME=LOW-HIGH"


@dataclass(frozen=True, kw_only=True)
class MaskLabels:
    """Label names, background first, and the label of every number that a file may hold.

    `yes_or_no` stands for two labels without numbers: 255 then means the second one, as 1 does.
    """

    names: tuple[str, ...]
    label_of: dict[int, int]
    yes_or_no: bool

    def translate(self, array: NDArray[Any], file: Path) -> NDArray[np.uint8]:
        """The mask in label numbers; a number that nobody declared is an error naming it."""
        table = {0: 0, 255: 1} if self.yes_or_no and array.size and array.max() == 255 else self.label_of
        top = max(table) + 1
        new = np.full(top + 1, UNKNOWN, np.uint16)
        new[list(table)] = list(table.values())
        out = np.empty(array.shape, np.uint8)
        for plane, target in zip(array, out, strict=True):  # plane by plane: a large volume is not held thrice
            numbers = np.clip(plane.astype(np.float64 if plane.dtype.kind == "f" else np.int64), -1, top)
            whole = np.rint(numbers)
            found = new[whole.astype(np.int64)]  # -1 counts from the end, where nothing is known either
            strange = (found == UNKNOWN) | (np.abs(numbers - whole) > ROUNDING)
            if strange.any():
                problem = f"the mask holds a number that is no label; known are {self._known(table)}"
                raise SourceError(problem, file=file, value=plane[strange][0].item(), remedy=GRAMMAR)
            target[...] = found
        return out

    def _known(self, table: dict[int, int]) -> str:
        listed = [f"{number} {self.names[label]}" for number, label in sorted(table.items())]
        return ", ".join(listed if len(listed) < 8 else [*listed[:3], "...", *listed[-2:]])


def declared_labels(declared: tuple[str, ...]) -> MaskLabels:
    """Read `NAME`, `NAME=NUMBER` or `NAME=LOW-HIGH` per label; nothing declared means background and lesion."""
    parts = [part.partition("=") for part in declared or BINARY]
    names = tuple(name.strip() for name, _, _ in parts)
    if len(names) < 2 or "" in names or len(set(names)) != len(names):
        problem = "mask labels are background and at least one more, each with its own name"
        raise ConfigError(problem, value=",".join(declared), remedy=GRAMMAR)
    numbered = [bool(equals) for _, equals, _ in parts]
    if not any(numbered):
        return MaskLabels(names=names, label_of={n: n for n in range(len(names))}, yes_or_no=len(names) == 2)
    if not all(numbered):
        raise ConfigError("either all mask labels have numbers or none", value=",".join(declared), remedy=GRAMMAR)
    label_of: dict[int, int] = {}
    for label, (name, _, numbers) in enumerate(parts):
        for number in _numbers(f"{name}={numbers}", numbers):
            if label_of.setdefault(number, label) != label:
                problem = f"the number {number} stands for two mask labels, {names[label_of[number]]!r} and {name!r}"
                raise ConfigError(problem, remedy=GRAMMAR)
    return MaskLabels(names=names, label_of=label_of, yes_or_no=False)


def _numbers(part: str, text: str) -> range:
    found = re.fullmatch(r"\s*(\d{1,5})\s*(?:-\s*(\d{1,5})\s*)?", text)
    if not found or int(found[2] or found[1]) < int(found[1]):
        raise ConfigError("a mask label has no readable number", value=part, remedy=GRAMMAR)
    return range(int(found[1]), int(found[2] or found[1]) + 1)
