"""Suites: what a file may say, which commands a cell is, going on where it was, and cells that fail alone."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedsynth.cli import app
from fedsynth.errors import FedSynthError
from fedsynth.study.suite import run_suite, spending
from fedsynth.study.suite_file import Suite, load_suite, options
from tests.training.tiny import tiny_set

QUICK = """
name = "tiny"
[phantom]
patients = 60
slices = 1
size = 24
sites = 2
[settings]
rounds = 1
local-steps = 1
count = 24
[private]
patients = 6
[grid]
generator = ["dcgan"]
epsilon = [0, 8.0]
[benchmarks.fidelity]
steps = 0
"""


def suite_of(text, folder):
    path = folder / "suite.toml"
    path.write_text(text)
    return load_suite(path)


def test_cells_are_every_combination_and_say_what_a_person_would_type(tmp_path):
    plain, private = suite_of(QUICK, tmp_path).cells()
    assert (plain.name, private.name) == ("dcgan_plain", "dcgan_epsilon-8.0")
    assert plain.epsilon == 0
    assert "patients" not in plain.settings
    commands = private.commands(Path("data"), Path("run"))
    assert list(commands) == ["synthetic/imageset.toml", "benchmarks/fidelity.json"]
    typed = " ".join(commands["synthetic/imageset.toml"])
    assert typed.startswith("simulate --data data --run run")
    assert "--epsilon 8.0" in typed
    assert "--patients 6" in typed
    assert commands["benchmarks/fidelity.json"] == ["benchmark", "fidelity", "run", "--steps", "0"]


def test_the_pooled_cell_trains_as_long_as_each_hospital_would(tmp_path):
    text = QUICK.replace("epsilon = [0, 8.0]", 'federation = ["pooled"]').replace("rounds = 1", "rounds = 3")
    (cell,) = suite_of(text, tmp_path).cells()
    train, draw = list(cell.commands(Path("data"), Path("run")).values())[:2]
    assert train[:6] == ["train", "data", "--run", "run", "--steps", "3"]
    assert "--rounds" not in train
    assert draw[:4] == ["synthesize", "run", "--count", "24"]


def test_options_are_spelled_for_the_command_line():
    given = {"full": True, "export": False, "arms": ["real", "synthetic"], "options": {"latent": 3}}
    assert options(given) == ["--full", "--arms", "real,synthetic", "--option", "latent=3"]


@pytest.mark.parametrize(
    ("wrong", "right", "said"),
    [
        ("local-steps", "local-stps", "local-steps"),
        ("generator = [", "generater = [", "generator"),
        ("benchmarks.fidelity", "benchmarks.fidelty", "fidelity"),
        ('["dcgan"]', "[]", "no value"),
        ("patients = 6", "clip = 1.0", "declared number"),
    ],
)
def test_what_a_file_must_not_say(tmp_path, wrong, right, said):
    assert wrong in QUICK
    with pytest.raises(FedSynthError, match=said):
        suite_of(QUICK.replace(wrong, right), tmp_path)


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
    assert "dcgan" in first.stderr  # the nearest spelling
    assert "kid" in (out / "table.csv").read_text()
    assert (out / "report.html").is_file()
    assert "simulate" in (out / "cells" / "dcgan_seed-0-commands.txt").read_text()
    made = (out / "cells" / "dcgan_seed-0" / "synthetic" / "images.npy").stat().st_mtime_ns
    again = CliRunner().invoke(app, ["suite", str(file), "--out", str(out)])
    assert again.exit_code == 3
    assert (out / "cells" / "dcgan_seed-0" / "synthetic" / "images.npy").stat().st_mtime_ns == made


@pytest.mark.slow
def test_a_stopped_suite_leaves_no_process_and_no_step_behind(tmp_path):
    file, out = tmp_path / "suite.toml", tmp_path / "out"
    file.write_text(QUICK.replace("rounds = 1", "rounds = 500").replace("epsilon = [0, 8.0]", "seed = [0, 1]"))
    command = [sys.executable, "-m", "fedsynth", "suite", str(file), "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as suite:
        deadline = time.monotonic() + 240
        while not list(out.glob("cells/*/rounds.csv")):
            assert time.monotonic() < deadline
            assert suite.poll() is None
            time.sleep(0.2)
        suite.terminate()
        assert suite.wait(60) == 143
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.run(["pgrep", "-f", str(out)], check=True, capture_output=True)
    assert not (out / "cells" / "dcgan_seed-1").exists()
