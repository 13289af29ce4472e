"""Keep what tables are made of: a finished suite without its images, weights, names of patients and paths.

    python benchmarks/publish.py runs/quick benchmarks/results/quick
    fedsynth compare benchmarks/results/quick --format markdown

What is left is a suite to `fedsynth compare`, so that anybody can make the published tables again. What all runs of the
same patients spent together is not there: it is in the ledger of the site.
"""

import argparse
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedsynth import atomic_files
from fedsynth.config import load_toml, parse_toml, to_toml
from fedsynth.errors import ConfigError
from fedsynth.evaluation.anonymous_result import withhold
from fedsynth.experiments.suite import FAILED, SUITE, failed_steps, runs_in
from fedsynth.experiments.suite_config import BENCHMARKS, Suite
from fedsynth.reporting.summary import read_facts
from fedsynth.reporting.withheld_paths import without_paths
from fedsynth.training.checkpoint import CARD

PSEUDONYMS = ("digest", "disjoint-from")
"""What tells that two runs had the same patients."""
TIMES = "seconds.csv"


def publish(suite: Path, out: Path) -> list[Path]:
    """Write the results of every cell of `suite` that was measured; returns the files.

    Results that are not of the images that lie in the run now are refused.
    """
    name = load_toml(Suite, suite / SUITE).name
    if out.exists():
        if not (out / SUITE).is_file() or load_toml(Suite, out / SUITE).name != name or out.samefile(suite):
            raise ConfigError("is no published folder of this suite", file=out, remedy="give another folder")
        shutil.rmtree(out)
    written = [_write(out / SUITE, _withheld(parse_toml(suite / SUITE)))]
    written.append(Path(shutil.copyfile(suite / TIMES, out / TIMES)))
    for folder in runs_in(suite):
        written += _cell(folder, out / folder.relative_to(suite))
    return written


def _cell(folder: Path, kept: Path) -> list[Path]:
    """What is kept of one cell; of one that came to no end, which step failed."""
    written = []
    if failed := failed_steps(folder):
        written.append(kept.with_name(f"{kept.name}-{FAILED}"))
        kept.parent.mkdir(parents=True, exist_ok=True)
        atomic_files.write_text(written[0], "".join(f"{step}:\n" for step in failed))
    if not (folder / "checkpoints" / CARD).is_file():
        return written
    facts = read_facts(folder)
    if facts.strange:
        problem = f"{', '.join(facts.strange)} was measured on another set than the one in the run"
        raise ConfigError(problem, file=folder, remedy="run the suite again")
    written.append(_write(kept / facts.run.config.name, _withheld(parse_toml(facts.run.config))))
    card = f"checkpoints/{CARD}"
    written.append(_write(kept / card, _withheld(parse_toml(folder / card))))
    if facts.run.rounds.is_file():
        written.append(Path(shutil.copyfile(facts.run.rounds, kept / facts.run.rounds.name)))
    for name in BENCHMARKS:
        if name in facts.results:
            written.append(kept / "benchmarks" / f"{name}.json")
            withhold(facts.results[name]).save(written[-1])
    return written


def _write(path: Path, table: Mapping[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_files.write_text(path, to_toml(table))
    return path


def _withheld(table: Mapping[str, Any]) -> dict[str, Any]:
    return without_paths(_without_people(table))


def _without_people(table: Mapping[str, Any]) -> dict[str, Any]:
    """The table with nothing under the keys that tell patients apart."""
    return {key: type(value)() if key in PSEUDONYMS else _searched(value) for key, value in table.items()}


def _searched(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _without_people(value)
    return [_searched(one) for one in value] if isinstance(value, list | tuple) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    for path in publish(given.suite, given.out):
        print(path)


if __name__ == "__main__":
    main()
