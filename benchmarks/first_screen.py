"""The README's first picture: images of one hospital, and of every way of sharing, below each other.

python benchmarks/first_screen.py runs/quick docs/pictures/first-screen.png [--channel flair] [--site hospital-1]
"""

import argparse
from pathlib import Path

import numpy as np

from fedsynth.data import ImageSet
from fedsynth.data.contact_sheet import choose, tiles_of
from fedsynth.data.montage import Cell, Section, montage
from fedsynth.experiments.suite import DATA, runs_in

IN_A_ROW = 4


def row(images: ImageSet, title: str, channels: list[str]) -> Section:
    """A few images with their masks: every class, large lesions first."""
    assert images.masks is not None
    interest = (np.asarray(images.masks) > 0).reshape(len(images), -1).sum(1).astype(float)
    header, shown = images.header, [images.header.channels.index(name) for name in channels]
    cells = []
    for place in choose(images.cases.assign(role=""), interest, IN_A_ROW):
        tiles = tiles_of(np.asarray(images.images[place]), np.asarray(images.masks[place]), header)[0]
        cells.append(
            Cell(tiles=[[*(tiles[one] for one in shown), tiles[-1]]], lines=[images.cases["class"].iloc[place]])
        )
    return Section(title=title, cells=cells, heads=[*channels, "labels"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--channel", default="flair,t1ce", help="the channels to show")
    parser.add_argument("--site", default="hospital-1")
    given = parser.parse_args()
    channels = given.channel.split(",")
    real = ImageSet.load(given.suite / DATA).select(site=given.site, role="holdout")
    rows = [row(real, f"{given.site}: held-out patients (phantoms)", channels)]
    rows += [row(ImageSet.load(run / "synthetic"), run.name, channels) for run in runs_in(given.suite)]
    page = montage(rows, title="real, and synthetic in every way", legend=real.header.mask_labels[1:], columns=IN_A_ROW)
    page.save(given.out, optimize=True)


if __name__ == "__main__":
    main()
