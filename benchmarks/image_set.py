"""Make an image set of an .npz file as `private_release.py` describes it, so that suites and commands can read it.

python benchmarks/image_set.py FILE.npz OUT [--names t1,flair,t1ce] [--channel flair] [--between 0.35 0.85]
fedsynth split OUT SET --again
"""

import argparse
from pathlib import Path

from private_release import narrowed, read_set


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--names", default="t1,flair,t1ce", help="channels of the file")
    parser.add_argument("--channel", default="", help="the channels to keep; all if not given")
    parser.add_argument("--between", nargs=2, type=float, default=(0.0, 1.0), help="the part of every stack to keep")
    given = parser.parse_args()
    narrowed(read_set(given.file, given.names), given.channel, tuple(given.between)).save(given.out)


if __name__ == "__main__":
    main()
