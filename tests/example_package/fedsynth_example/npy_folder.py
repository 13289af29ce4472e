"""A reader: one .npy file of slices (n, height, width) per patient."""

from pathlib import Path

import numpy as np

from fedsynth.data.importers import ReadOptions, refuse_unused, require_folder
from fedsynth.data.importers.source import Plan, Raw, Source


def plan(source: Path, options: ReadOptions) -> Plan:
    """Names alone are looked at; each file is decoded when its turn comes."""
    refuse_unused(options, "npy-folder", {"site"})
    require_folder(source)

    def of(file: Path) -> Source:
        def decode() -> list[Raw]:
            shown = enumerate(np.load(file))
            return [
                Raw(case=f"{file.stem}-{i}", image=one[None], mask=None, spacing_mm=None, slice=i) for i, one in shown
            ]

        return Source(patient=file.stem, site=options.site, label="", file=file, decode=decode)

    return Plan(
        channels=("gray",),
        classes=(),
        mask_labels=(),
        sources=[of(file) for file in sorted(source.glob("*.npy"))],
        dimensions=2,
        intensity="window:0,1",
    )
