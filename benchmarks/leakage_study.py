"""How often the leakage benchmark rejects on honest output, and how often on leaks, beside the comparators.

    OMP_NUM_THREADS=1 python benchmarks/leakage_study.py features [--repetitions 300] [--only NAME ...]
    OMP_NUM_THREADS=1 python benchmarks/leakage_study.py phantoms --pool FOLDER [--repetitions 13]
    OMP_NUM_THREADS=1 python benchmarks/leakage_study.py altered --pool FOLDER [--repetitions 5]
    OMP_NUM_THREADS=1 python benchmarks/leakage_study.py procedure --pool FOLDER [--repetitions 50]
    OMP_NUM_THREADS=1 python benchmarks/leakage_study.py single --pool FOLDER [--repetitions 10]
    OMP_NUM_THREADS=1 python benchmarks/leakage_study.py table

Every repetition is a line of results/leakage.csv, seeded by its scenario and number; what stands there is not run
again. Altered copies and the whole procedure have files of their own. The tests are the benchmark's own. In `features`
patients, images and output are drawn from a known world; in the other parts they are pictures of a pool of phantoms,
made at the first call, and the spaces are those that the benchmark fits (in `phantoms` the three that look at whole
images). 200 patients with 5 images, half members and half holdout, and 700 synthetic images, unless the scenario says
otherwise.
"""

import argparse
import csv
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from leakage import altered, pictures, procedure, single_images, table, worlds
from leakage.scoring import COLUMNS, compared, decide

from fedsynth.evaluation.cohort import Cohort
from fedsynth.evaluation.nearest_neighbours import patient_distances

FOLDER = Path(__file__).parent / "results"
RESULTS = FOLDER / "leakage.csv"
ALTERED, PROCEDURE = FOLDER / "leakage-altered.csv", FOLDER / "leakage-procedure.csv"
SINGLE = FOLDER / "leakage-single.csv"
SMALL = 32
"""Pixels of the phantoms of the last two parts: what is hardest to tell apart."""
COMPARED = 50
"""The comparators look at the first so many repetitions on features."""
HEAD = ("part", "scenario", "repetition", *COLUMNS, "seconds")


def one_of_features(scenario: str, repetition: int) -> dict[str, object]:
    """One repetition of a scenario on features."""
    rng = np.random.default_rng([repetition, zlib.crc32(scenario.encode())])
    made_by = worlds.SCENARIOS[scenario]
    w = worlds.world(rng, made_by)
    synthetic, leaked = made_by.make(w, rng)
    spaces = worlds.feature_spaces(w.images, synthetic)
    tables = {name: patient_distances(made, real, w.owner, worlds.PATIENTS) for name, (real, made) in spaces.items()}
    among = {name: patient_distances(r, r, w.owner, 32, exclude=w.owner) for name, (r, _) in spaces.items()}
    sites = tuple(f"site-{number}" for number in range(made_by.sites))
    names = tuple(f"{number:04}" for number in range(worlds.PATIENTS))
    cohort = Cohort(names=names, member=w.member, stratum=w.site, site=w.site, sites=sites)
    real, made = spaces["whitened"]
    found = decide(tables, among, w.owner, cohort, repetition, leaked)
    return found | (compared(real, w.owner, made, cohort, repetition) if repetition < COMPARED else {})


def run_features(repetitions: int, only: Iterable[str]) -> None:
    """Every scenario and repetition that is not in the file yet, repetition by repetition."""
    done = finished("features")
    for repetition in range(repetitions):
        for scenario in only:
            if (scenario, repetition) not in done:
                begun = time.perf_counter()
                append("features", scenario, repetition, one_of_features(scenario, repetition), begun)


def run_phantoms(repetitions: int, pool: Path) -> None:
    """So many real sets, with whatever is not in the file yet: the spaces are fitted once for each."""
    phantoms, done = pictures.open_pool(pool), finished("phantoms")
    for number in range(repetitions):
        wanted = [pair for pair in pictures.repetitions_of(number) if pair not in done]
        begun = time.perf_counter()
        for scenario, repetition, found in pictures.one_real_set(phantoms, number, wanted) if wanted else ():
            append("phantoms", scenario, repetition, found, begun)
            begun = time.perf_counter()


def run_altered(repetitions: int, pool: Path) -> None:
    """So many real sets, each with every way to alter a copy and every honest fidelity."""
    phantoms = altered.smaller(pictures.open_pool(pool), SMALL)
    done = {int(line["real_set"]) for line in read(ALTERED)}
    for number in range(repetitions):
        if number not in done:
            write(ALTERED, [{"real_set": number} | asdict(looked) for looked in altered.one_real_set(phantoms, number)])


def run_procedure(repetitions: int, pool: Path) -> None:
    """The whole benchmark on so many honest outputs."""
    phantoms = altered.smaller(pictures.open_pool(pool), SMALL)
    done = {int(line["repetition"]) for line in read(PROCEDURE)}
    for repetition in range(repetitions):
        if repetition not in done:
            begun = time.process_time()
            scenario, found = procedure.one_run(phantoms, repetition)
            seconds = time.process_time() - begun
            write(PROCEDURE, [{"scenario": scenario, "repetition": repetition, **found, "cpu_seconds": seconds}])


def run_single(repetitions: int, pool: Path) -> None:
    """So many real sets of one image for each patient, each with every honest output and every leak."""
    phantoms = pictures.open_pool(pool)
    done = {int(line["real_set"]) for line in read(SINGLE)}
    for number in range(repetitions):
        if number not in done:
            begun = time.process_time()
            found = [
                {"real_set": number, "scenario": name} | line
                for name, line in single_images.one_real_set(phantoms, number)
            ]
            write(SINGLE, [line | {"cpu_seconds": time.process_time() - begun} for line in found])


def finished(part: str) -> set[tuple[str, int]]:
    """The repetitions that stand in the file."""
    return {(line["scenario"], int(line["repetition"])) for line in read() if line["part"] == part}


def read(path: Path = RESULTS) -> Iterator[dict[str, str]]:
    """All repetitions so far."""
    if path.is_file():
        with path.open(newline="") as file:
            yield from list(csv.DictReader(file))


def write(path: Path, lines: Sequence[Mapping[str, object]]) -> None:
    """Some more lines, with a head where the file is new."""
    new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        if new:
            writer.writeheader()
        for line in lines:
            writer.writerow({key: f"{value:.4g}" if isinstance(value, float) else value for key, value in line.items()})


def append(part: str, scenario: str, repetition: int, found: Mapping[str, object], begun: float) -> None:
    """One more repetition."""
    given = {"part": part, "scenario": scenario, "repetition": repetition, **found}
    given["seconds"] = round(time.perf_counter() - begun, 1)
    write(RESULTS, [{key: given.get(key, "") for key in HEAD}])


def main() -> None:
    """Run a part, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("features", "phantoms", "altered", "procedure", "single", "table"))
    parser.add_argument("--repetitions", type=int, default=300)
    parser.add_argument("--only", nargs="+", choices=tuple(worlds.SCENARIOS), default=tuple(worlds.SCENARIOS))
    parser.add_argument("--pool", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.part == "table":
        print(table.markdown(list(read())), table.of_altered(list(read(ALTERED))), sep="\n")
        print(table.of_procedure(list(read(PROCEDURE))), table.of_single(list(read(SINGLE))), sep="\n\n")
    elif chosen.part == "features":
        run_features(chosen.repetitions, chosen.only)
    elif chosen.pool is None:
        parser.error("phantoms need --pool FOLDER, where they are or will be made")
    else:
        parts = {"phantoms": run_phantoms, "altered": run_altered, "procedure": run_procedure, "single": run_single}
        parts[chosen.part](chosen.repetitions, chosen.pool)


if __name__ == "__main__":
    main()
