"""Draw images from a finished run with other options of drawing: what each part of a renderer is good for.

    python benchmarks/redraw.py RUN OUT --option texture=0.5 --option spots=0 [--count 600]
    fedsynth benchmark segmentation --real SET --synthetic OUT

Only options that matter after training make sense: of `render-vae` and two stages `texture` and `spots`.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from fedsynth.config import parse_toml, save_toml
from fedsynth.runs import Run
from fedsynth.training.checkpoint import CARD, load_generator
from fedsynth.training.generate import Drawing


def redraw(run: Run, options: dict[str, float], out: Path, count: int, seed: int) -> None:
    """Draw from the run's weights as if it had been trained with these options."""
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(shutil.copytree(run.checkpoints, Path(folder) / "checkpoints"))
        card = parse_toml(kept / CARD)
        save_toml(kept / CARD, card | {"options": card.get("options", {}) | options})
        family, told = load_generator(kept)
        Drawing(family, told, count=count, seed=seed).in_memory(out.name).save(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--option", action="append", default=[], metavar="NAME=NUMBER")
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    options = {name: float(value) for name, _, value in (one.partition("=") for one in given.option)}
    redraw(Run(folder=given.run), options, given.out, given.count, given.seed)


if __name__ == "__main__":
    main()
