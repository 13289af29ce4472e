"""What an import learns only while images pass by, and what the header of the set must tell of it."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fedsynth.errors import SourceError
from fedsynth.images.preparing import Item, Prepared


class Tally:
    """What is known only while images pass by: duplicates, spacings, what is missing, what was left out."""

    def __init__(self) -> None:
        self._file_of: dict[str, Path] = {}
        self._spacings: list[float] = []
        self._missing: defaultdict[str, set[str]] = defaultdict(set)
        self._cut_off: list[str] = []
        self.left_out: list[str] = []

    def add(self, prepared: Prepared) -> Iterator[Item]:
        """Count the images of one source and hand them on; a case that was there before is an error."""
        self.left_out += [str(error) for error in prepared.left_out]
        for item in prepared.items:
            case, file = item.row["case"], prepared.source.file
            if case in self._file_of:
                remedy = "every image needs its own name"
                raise SourceError(
                    f"the case stands twice, also in {self._file_of[case]}", file=file, value=case, remedy=remedy
                )
            self._file_of[case] = file
            if item.spacing_mm is not None:
                self._spacings.append(item.spacing_mm)
            for channel in item.missing:
                self._missing[channel].add(prepared.source.patient)
            if item.cut_off:
                self._cut_off.append(case)
            yield item

    @property
    def spacing_mm(self) -> float:
        """The median spacing of the images, 1 when no source tells its own."""
        return round(float(np.median(self._spacings)), 6) if self._spacings else 1.0

    def provenance(self) -> dict[str, Any]:
        """What the header must tell so that nobody is misled."""
        told: dict[str, Any] = {"spacing": self._spacing()}
        if self._missing:
            told["missing-sequences-of"] = {channel: sorted(who) for channel, who in sorted(self._missing.items())}
        if self._cut_off:
            told["lesions-cut-off"] = self._cut_off
        if self.left_out:
            told["left-out"] = self.left_out
        return told

    def _spacing(self) -> Any:
        n_unknown = len(self._file_of) - len(self._spacings)
        if not self._spacings:
            return "the source does not tell it; spacing-mm counts new pixels"
        smallest, largest = min(self._spacings), max(self._spacings)
        if largest <= 1.01 * smallest and not n_unknown:
            return "that of every image"
        return {
            "note": "images differ; spacing-mm is their median",
            "smallest": round(smallest, 6),
            "largest": round(largest, 6),
            "images-without": n_unknown,
        }
