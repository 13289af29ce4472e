"""Running suites: going on where they were, cells that fail alone, and stopping."""

import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest
from typer.testing import CliRunner

from fedsynth.api.suites import run_suite
from fedsynth.cli import app
from fedsynth.data import ImageSet
from fedsynth.errors import FedSynthError
from fedsynth.experiments.suite import CELLS, failed_steps, spending
from fedsynth.experiments.suite_config import Suite
from fedsynth.federation.engines.ray_tasks import MARK
from tests.experiments.test_suite import QUICK, suite_of
from tests.training.tiny import tiny_set


def test_a_folder_written_before_a_key_was_added_is_gone_on_with(tmp_path):
    suite = suite_of(QUICK, tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "suite.toml").write_text(QUICK)
    (tmp_path / "out" / "data").mkdir()
    (tmp_path / "out" / "data" / "imageset.toml").write_text("broken")
    with pytest.raises(FedSynthError, match="imageset"):  # it came as far as the images
        run_suite(suite, tmp_path / "out")


def test_the_budget_of_real_patients_must_be_accepted_before_anything_starts(tmp_path):
    images = tiny_set()
    images.save(tmp_path / "images")
    grid = {"generator": ["dcgan"], "epsilon": [0, 2.0, 3.0]}
    suite = Suite(name="s", images=tmp_path / "images", private={"patients": 6}, grid=grid)
    assert spending(suite, images) == 5.0
    assert spending(suite, replace(images, header=replace(images.header, provenance={"phantom": {}}))) == 0
    with pytest.raises(FedSynthError, match="epsilon 5"):
        run_suite(suite, tmp_path / "out")
    assert not (tmp_path / "out" / "cells").exists()


def test_a_folder_of_another_suite_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("")
    done = CliRunner().invoke(app, ["suite", str(tmp_path / "none.toml"), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    with pytest.raises(FedSynthError, match="not empty"):
        run_suite(suite_of(QUICK, tmp_path), tmp_path / "out")


@pytest.mark.slow
def test_a_suite_ends_in_its_table_and_goes_on_where_it_was(tmp_path):
    file, out = tmp_path / "suite.toml", tmp_path / "out"
    file.write_text(QUICK.replace('["dcgan"]', '["dcgan", "dcgann"]').replace("epsilon = [0, 8.0]", "seed = [0]"))
    first = CliRunner().invoke(app, ["suite", str(file), "--out", str(out)])
    assert first.exit_code == 3, first.output
    assert "failed: dcgann" in first.stderr
    assert "dcgan_seed-0: simulate\n" in first.stderr  # each step, as it begins and when it ended
    assert re.search(r"\[1/\d+\] dcgan_seed-0: simulate took 0:\d\d\n", first.stderr)
    assert "kid" in (out / "table.csv").read_text()
    assert (out / "report.html").is_file()
    assert "simulate" in (out / "cells" / "dcgan_seed-0-commands.txt").read_text()
    made = (out / "cells" / "dcgan_seed-0" / "synthetic" / "images.npy").stat().st_mtime_ns
    again = CliRunner().invoke(app, ["suite", str(file), "--out", str(out)])
    assert again.exit_code == 3
    assert (out / "cells" / "dcgan_seed-0" / "synthetic" / "images.npy").stat().st_mtime_ns == made


@pytest.mark.slow
def test_cells_as_ray_tasks_are_the_cells_that_processes_run(tmp_path):
    """A cell that fails is told with its reason and the other is whole; a cell of fewer members trains on those."""
    pytest.importorskip("ray")
    file, out = tmp_path / "suite.toml", tmp_path / "out"
    grid = QUICK.replace('["dcgan"]', '["dcgan", "dcgann"]').replace("epsilon = [0, 8.0]", "members = [24]")
    file.write_text(grid)
    command = [
        sys.executable,
        "-m",
        "fedsynth",
        "suite",
        str(file),
        "--out",
        str(out),
        "--engine",
        "ray",
        "--jobs",
        "2",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 3, done.stderr
    assert "failed: dcgann_members-24: simulate" in done.stderr
    assert "did you mean 'dcgan'" in done.stderr
    run = out / CELLS / "dcgan_members-24"
    assert (run / "benchmarks" / "fidelity.json").is_file()
    assert (out / "report.html").is_file()
    few, whole = (ImageSet.load(out / name).patients for name in ("data-24-members", "data"))
    assert (few["role"] == "member").sum() == 24
    assert (whole["role"] == "member").sum() == 30
    assert "data-24-members" in (out / CELLS / "dcgan_members-24-commands.txt").read_text()
    assert not [one for one in psutil.process_iter(["environ"]) if MARK in (one.info["environ"] or {})]


def rounds_in(out):
    return sum(len(path.read_text().splitlines()) for path in out.glob("cells/dcgan_seed-0/rounds.csv"))


def hears_ctrl_c():
    """A shell without job control has what it runs in the background ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def stopped(command, out, end):
    """Start a suite, end it when its first cell has got further, and give its exit code and what it had started."""
    before = rounds_in(out)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **quiet, preexec_fn=hears_ctrl_c) as suite:
        deadline = time.monotonic() + 240
        while rounds_in(out) <= before:
            assert time.monotonic() < deadline
            assert suite.poll() is None
            time.sleep(0.2)
        started = psutil.Process(suite.pid).children(recursive=True)
        suite.send_signal(end)
        return suite.wait(60), started


@pytest.mark.slow
@pytest.mark.parametrize(("end", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_stopped_suite_leaves_no_process_and_is_gone_on_with(tmp_path, end, code):
    file, out = tmp_path / "suite.toml", tmp_path / "out"
    file.write_text(QUICK.replace("rounds = 1", "rounds = 500").replace("epsilon = [0, 8.0]", "seed = [0, 1]"))
    command = [sys.executable, "-m", "fedsynth", "suite", str(file), "--out", str(out)]
    for _ in range(2):  # the second goes on with what the first has left
        ended, started = stopped(command, out, end)
        assert ended == code
        assert len(started) >= 2, "one that has imported, and the step"
        assert psutil.wait_procs(started, timeout=30)[1] == []
    assert not (out / "cells" / "dcgan_seed-1").exists()
    assert failed_steps(out / "cells" / "dcgan_seed-0") == {}
