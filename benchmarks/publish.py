"""Keep what tables are made of: a finished suite without its images, weights, names of patients and paths.

    python benchmarks/publish.py runs/quick benchmarks/results/quick
    fedsynth compare benchmarks/results/quick --format markdown

What is left is a suite to `fedsynth compare`, so that anybody can make the published tables again from the results.
"""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedsynth import atomic_files
from fedsynth.config import load_toml, parse_toml, to_toml
from fedsynth.evaluation.anonymous_result import withhold
from fedsynth.evaluation.score import load_result
from fedsynth.experiments.suite import SUITE, runs_in
from fedsynth.experiments.suite_config import Suite
from fedsynth.runs import Run

PLACES = ("images", "store", "start", "sites", "workspace", "run", "data")
"""Keys whose text may be a path of the machine that ran it."""
COPIED = ("checkpoints/generator.toml", "rounds.csv")
TIMES = "seconds.csv"


def publish(suite: Path, out: Path) -> list[Path]:
    """Write the results of every cell of `suite` that was measured; returns the files."""
    told = load_toml(Suite, suite / SUITE)
    named = told if told.images is None else replace(told, images=Path(told.images.name))
    written = [_write(out / SUITE, to_toml(named))]
    written.append(Path(shutil.copyfile(suite / TIMES, out / TIMES)))
    for folder in runs_in(suite):
        run, kept = Run(folder=folder), out / folder.relative_to(suite)
        results = sorted(run.folder.glob("benchmarks/*.json"))
        if not results:
            continue
        written.append(_write(kept / run.config.name, to_toml(_without_paths(parse_toml(run.config)))))
        for name in COPIED:
            if (folder / name).is_file():
                (kept / name).parent.mkdir(parents=True, exist_ok=True)
                written.append(Path(shutil.copyfile(folder / name, kept / name)))
        for path in results:
            withhold(load_result(path)).save(kept / "benchmarks" / path.name)
            written.append(kept / "benchmarks" / path.name)
    return written


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_files.write_text(path, text)
    return path


def _without_paths(table: dict[str, Any]) -> dict[str, Any]:
    """The table without texts that may be paths; a number of sites stays."""
    return {
        key: _without_paths(value) if isinstance(value, dict) else value
        for key, value in table.items()
        if key not in PLACES or not isinstance(value, str)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    if given.out.exists():
        shutil.rmtree(given.out)
    for path in publish(given.suite, given.out):
        print(path)


if __name__ == "__main__":
    main()
