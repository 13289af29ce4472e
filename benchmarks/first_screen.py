"""The README's first picture: images of one hospital, and of every way of sharing, below each other.

python benchmarks/first_screen.py runs/quick docs/pictures/first-screen.png [--channel flair] [--site hospital-1]
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from fedsynth.data import ImageSet
from fedsynth.data.contact_sheet import contact_sheet
from fedsynth.experiments.suite import DATA, runs_in


def strip(images: ImageSet, title: str, channels: list[str]) -> Image.Image:
    """One row of images with their masks."""
    header = images.header
    shown = np.asarray(images.images)[:, [header.channels.index(name) for name in channels]]
    cases = images.cases.assign(site="", role="")
    narrow = replace(images, images=shown, cases=cases, header=replace(header, channels=tuple(channels), name=title))
    return contact_sheet(narrow, rows=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--channel", default="flair,t1ce", help="the channels to show")
    parser.add_argument("--site", default="hospital-1")
    given = parser.parse_args()
    channels = given.channel.split(",")
    real = ImageSet.load(given.suite / DATA).select(site=given.site, role="holdout")
    strips = [strip(real, f"real, {given.site}", channels)]
    strips += [strip(ImageSet.load(run / "synthetic"), run.name, channels) for run in runs_in(given.suite)]
    page = Image.new("RGB", (max(one.width for one in strips), sum(one.height for one in strips)))
    top = 0
    for one in strips:
        page.paste(one, (0, top))
        top += one.height
    page.save(given.out, optimize=True)


if __name__ == "__main__":
    main()
