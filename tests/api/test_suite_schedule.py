"""The order of a suite's steps, and what a step that fails takes with it."""

import csv

from fedsynth.api.suite_processes import Ended
from fedsynth.api.suite_schedule import SECONDS, _Cell, _most_urgent, record
from fedsynth.experiments.suite import failed_steps, jobs_of
from fedsynth.experiments.suite_steps import Step
from tests.experiments.test_suite import QUICK, suite_of

THREE = QUICK.replace("epsilon = [0, 8.0]", "rounds = [2, 9, 5]") + "[benchmarks.memorization]\n"


def cells_of(text, tmp_path):
    out = tmp_path / "out"
    return {job.cell.name: _Cell.of(job) for job in jobs_of(suite_of(text, tmp_path), out)}


def take(cells):
    name, mark = _most_urgent(cells)
    cells[name].at_work[mark] = cells[name].waiting.pop(mark)
    return name, mark


def leave(cell, mark):
    path = cell.job.run / mark
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")


def test_long_training_comes_first_and_measuring_last(tmp_path):
    cells = cells_of(THREE, tmp_path)
    first = [take(cells) for _ in range(2)]
    assert [name for name, _ in first] == ["dcgan_rounds-9", "dcgan_rounds-5"]
    leave(cells["dcgan_rounds-9"], first[0][1])
    cells["dcgan_rounds-9"].end(first[0][1], "")
    assert take(cells)[0] == "dcgan_rounds-2", "training goes before what can be measured by now"
    at_once = [take(cells) for _ in range(2)]
    assert at_once == [("dcgan_rounds-9", f"benchmarks/{name}.json") for name in ("fidelity", "memorization")]
    assert _most_urgent(cells) is None


def test_without_images_nothing_is_measured_and_a_failed_benchmark_stops_nothing(tmp_path):
    cells = cells_of(THREE, tmp_path)
    name, mark = take(cells)
    cells[name].end(mark, "boom\nat line 3")
    assert failed_steps(cells[name].job.run) == {"simulate": "boom at line 3"}
    assert cells[name].ready() == []
    name, mark = take(cells)
    leave(cells[name], mark)
    cells[name].end(mark, "")
    benchmark = cells[name].ready()[0]
    cells[name].at_work[benchmark] = cells[name].waiting.pop(benchmark)
    cells[name].end(benchmark, "")
    assert failed_steps(cells[name].job.run) == {"fidelity": f"left no {benchmark}"}
    assert cells[name].ready() == ["benchmarks/memorization.json"]


def test_what_steps_took_stands_in_a_table(tmp_path):
    for seconds in (1.0, 2.5):
        ended = Ended(failed="", seconds=seconds, cpu_seconds=0.5)
        record(tmp_path, "GAN, FedAvg", Step(verb="benchmark fidelity"), ended)
    rows = list(csv.reader((tmp_path / SECONDS).read_text().splitlines()))
    assert rows == [
        ["cell", "step", "seconds", "processor seconds"],
        ["GAN, FedAvg", "fidelity", "1.0", "0.5"],
        ["GAN, FedAvg", "fidelity", "2.5", "0.5"],
    ]
