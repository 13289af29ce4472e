"""Who comes nearest to the pooled patients? Four unequal phantom hospitals train together, alone and in between.

    python benchmarks/federations.py OUT [--seeds 3] [--rounds 24] [--local-steps 25] [--generator dcgan]

Scanner, case mix and number of patients differ. Every way of training takes as many steps at a site; what it draws is
compared with the held-out patients of all hospitals, as `fedsynth benchmark fidelity` does, beside real members in the
drawn images' place. Finished cells are kept in OUT/federations.csv, and a run that was broken off goes on.
"""

import argparse
import csv
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from fedsynth.data import ImageSet
from fedsynth.data.image_set import concatenate
from fedsynth.data.phantoms.cohort import make_phantoms
from fedsynth.data.phantoms.scanner import CaseMix, default_hospitals
from fedsynth.data.phantoms.settings import PhantomSettings
from fedsynth.data.site_config import Select, SiteEntry, SitesFile
from fedsynth.evaluation.fidelity.benchmark import run_fidelity
from fedsynth.federation.settings import FederationSettings
from fedsynth.federation.simulation import begin, open_hospitals, run_rounds
from fedsynth.runs import Run, create_run, open_run
from fedsynth.training.centralised import run_training
from fedsynth.training.checkpoint import load_generator
from fedsynth.training.generate import Drawing
from fedsynth.training.random_streams import stream_seed
from fedsynth.training.sampler import class_counts
from fedsynth.training.settings import TrainSettings

PATIENTS = {"hospital-1": 120, "hospital-2": 60, "hospital-3": 30, "hospital-4": 15}
CASE_MIXES = {  # mostly high-grade, mostly healthy, mostly low-grade, all alike; scanners are those of `--sites 4`
    "hospital-1": CaseMix(healthy=0.15, low_grade=0.15, high_grade=0.7),
    "hospital-2": CaseMix(healthy=0.7, low_grade=0.15, high_grade=0.15),
    "hospital-3": CaseMix(healthy=0.15, low_grade=0.7, high_grade=0.15),
    "hospital-4": CaseMix(),
}
SIZE = 32
AVERAGE, CENTRAL, NONE = "average", "central-generator", "none"
CENTRALISED, LONGER = "centralised", "centralised, longer"
TRAININGS = (AVERAGE, NONE, CENTRALISED, LONGER, CENTRAL)
MEASURES = ("fd/grid", "fd/filters", "kid/grid", "kid/filters")
NAMES = {
    AVERAGE: "federated: FedAvg",
    CENTRAL: "federated: one generator at the server, discriminators at home",
    CENTRALISED: "centralised: all members at one site, as many steps as one site",
    LONGER: "pooled: as many steps as all sites together",
}
EQUAL, IN_PROPORTION = "one-shot: four sets pooled, equal shares", "one-shot: four sets pooled, shares by patients"
REAL = "real members"
COLUMNS = ("seed", "training", "way", "steps", "seconds", "n", *MEASURES)


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """The federation: its sites file, all its images, and who may be trained on or is held out."""

    file: SitesFile
    pooled: ImageSet

    @property
    def count(self) -> int:
        """How many images are drawn: as many as are held out."""
        return len(self.pooled.select(role="holdout"))

    @property
    def members(self) -> dict[str, int]:
        """Member patients of each hospital."""
        patients = self.pooled.patients
        members = patients[patients["role"] == "member"].groupby("site")["patient"].size()
        return {str(site): int(number) for site, number in members.items()}


def make_cohort(out: Path, patients: dict[str, int] = PATIENTS) -> Cohort:
    """As many phantoms for each hospital as the largest has, of which the others keep their number; made once."""
    folder = out / "phantoms"
    if not folder.exists():
        hospitals = [replace(one, case_mix=CASE_MIXES[one.name]) for one in default_hospitals(len(patients))]
        settings = PhantomSettings(patients=max(patients.values()) * len(patients), size=SIZE, sites=len(patients))
        make_phantoms(folder, settings, hospitals, workers=1)
    held = ImageSet.load(folder, every_voxel=False)
    kept = {name: kept_patients(held.patients, name, number) for name, number in patients.items()}
    entries = tuple(SiteEntry(name=name, select=Select(patient=names)) for name, names in kept.items())
    everybody = [name for names in kept.values() for name in names]
    file = SitesFile(name="unequal", images=folder.resolve(), site=entries)
    return Cohort(file=file, pooled=held.select(patient=everybody))


def kept_patients(patients: pd.DataFrame, site: str, number: int) -> tuple[str, ...]:
    """About `number` of a site's patients, as many of each role in a hundred as before."""
    own = patients[patients["site"] == site]
    parts = [group.head(round(number * len(group) / len(own))) for _, group in own.groupby("role")]
    return tuple(sorted(pd.concat(parts)["patient"]))


def train(training: str, seed: int, cohort: Cohort, out: Path, asked: argparse.Namespace) -> Run:
    """One run to its end, gone on with where it was begun before."""
    folder = out / "runs" / f"{training.replace(', ', '-')}-{seed}"
    if training in (CENTRALISED, LONGER):
        steps = asked.rounds * asked.local_steps * (1 if training == CENTRALISED else len(cohort.file.site))
        settings = TrainSettings(
            generator=asked.generator, images=cohort.file.images or out, steps=steps, seed=seed, device="cpu", sheets=0
        )
        resume = (folder / "config.toml").is_file()
        run = open_run(folder) if resume else create_run(settings, generator=asked.generator, folder=folder)
        run_training(cohort.pooled, settings, run, resume=resume)
        return run
    federated = FederationSettings(
        generator=asked.generator, sites=len(cohort.file.site), rounds=asked.rounds, local_steps=asked.local_steps,
        federation=training, seed=seed, count=cohort.count,  # type: ignore[arg-type]
    )  # fmt: skip
    with open_hospitals(cohort.file, out) as hospitals:
        run = open_run(folder) if (folder / "config.toml").is_file() else begin(federated, hospitals, folder)
    run_rounds(federated, run)
    return run


def drawn(training: str, seed: int, cohort: Cohort, run: Run) -> Iterator[tuple[str, ImageSet]]:
    """What came of a run: one set, or one of each hospital and two ways of pooling them."""
    if training != NONE:
        yield NAMES[training], draw(run.checkpoints, cohort.count, seed, training)
        return
    for name in PATIENTS:
        yield f"alone: {name}", draw(run.site(name), cohort.count, seed, name)
    for way, shares in ((EQUAL, dict.fromkeys(PATIENTS, 1.0)), (IN_PROPORTION, cohort.members)):
        counts = class_counts(cohort.count, tuple(PATIENTS), {k: v / sum(shares.values()) for k, v in shares.items()})
        parts = [draw(run.site(name), counts[name], seed, name) for name in PATIENTS]
        yield way, concatenate(parts, name=way)


def draw(folder: Path, count: int, seed: int, name: str) -> ImageSet:
    """So many images by the generator in `folder`, classes as its own patients had them."""
    family, card = load_generator(folder)
    made = Drawing(family, card, count=count, seed=stream_seed(seed, "draw", name)).in_memory(name)
    return made.with_cases(made.cases.assign(case=[f"{name}-{case}" for case in made.cases["case"]]))


def measure(cohort: Cohort, made: ImageSet) -> tuple[dict[str, float], dict[str, float], int]:
    """Distances to the held-out patients of all hospitals, those of real members, and of how many images."""
    scores = run_fidelity(cohort.pooled, made).scores
    found = {name: float(scores[name].value or 0.0) for name in MEASURES}
    control = {name: float(scores[name].control or 0.0) for name in MEASURES}
    return found, control, int(scores[MEASURES[0]].n or 0)


def fill(table: Path, cohort: Cohort, out: Path, asked: argparse.Namespace) -> None:
    """Every cell that is not in the table yet."""
    for seed in range(asked.seeds):
        for training in asked.trainings.split(";"):
            if any((row["seed"], row["training"]) == (str(seed), training) for row in read(table)):
                continue
            begun = time.process_time()
            run = train(training, seed, cohort, out, asked)
            seconds = time.process_time() - begun
            rows = []
            for way, made in drawn(training, seed, cohort, run):
                found, control, n = measure(cohort, made)
                rows.append(
                    {"way": way, "steps": load_steps(run, training), "seconds": round(seconds, 1), "n": n} | found
                )
            rows.append({"way": REAL, "steps": 0, "seconds": 0, "n": n} | control)
            write(table, [{"seed": seed, "training": training} | row for row in rows])
            print(f"seed {seed}, {training}: {seconds:.0f} s of processor", flush=True)
            print(as_markdown(read(table)), flush=True)


def load_steps(run: Run, training: str) -> int:
    """Steps of each generator, as its card says."""
    return load_generator(run.site(next(iter(PATIENTS))) if training == NONE else run.checkpoints)[1].steps


def read(table: Path) -> list[dict[str, str]]:
    """The rows so far."""
    if not table.exists():
        return []
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def write(table: Path, rows: list[dict[str, object]]) -> None:
    """Add the rows of one training at once: a cell is there whole or not at all."""
    new = not table.exists()
    with table.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerows(rows)


def as_markdown(rows: list[dict[str, str]]) -> str:
    """Mean and standard deviation over seeds, nearest first by the first measure."""
    ways = dict.fromkeys(row["way"] for row in rows)
    table = {way: [row for row in rows if row["way"] == way] for way in ways}
    table[REAL] = table[REAL][:1]  # the same real images in every cell
    order = sorted(ways, key=lambda way: statistics.mean(float(row[MEASURES[0]]) for row in table[way]))
    lines = [f"| way | seeds | steps | {' | '.join(MEASURES)} |", "|---" * (3 + len(MEASURES)) + "|"]
    for way in order:
        cells = [spread([float(row[name]) for row in table[way]]) for name in MEASURES]
        lines.append(f"| {way} | {len(table[way])} | {table[way][0]['steps']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """`1.23 ± 0.04`; one value has no spread."""
    mean = f"{np.mean(values):.3g}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.2g}"


def main() -> None:
    """Fill the table, printing it after every training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--local-steps", type=int, default=25)
    parser.add_argument("--generator", default="dcgan")
    parser.add_argument("--trainings", default=";".join(TRAININGS), help="which, joined by ;")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    cohort = make_cohort(asked.out)
    print(f"member patients: {cohort.members}; {cohort.count} images held out", flush=True)
    fill(asked.out / "federations.csv", cohort, asked.out, asked)


if __name__ == "__main__":
    main()
