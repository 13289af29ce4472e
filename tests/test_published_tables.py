"""Published tables: made again from the stored results, which hold no image, no name of a patient and no path."""

import re
import runpy
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import fedsynth
from fedsynth.cli import app
from fedsynth.errors import ConfigError
from fedsynth.evaluation.score import Input, load_result
from tests.reporting.test_comparison import make_run

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
TABLE = re.compile(r"<!-- fedsynth (compare .*?) -->\n((?:\|.*\n)+)")
"""A table with the command that makes it."""

publish = runpy.run_path(str(ROOT / "benchmarks" / "publish.py"))["publish"]
TABLES = [
    pytest.param(command, table, id=f"{path.name}-{number}")
    for path in [ROOT / "README.md", *sorted([*(ROOT / "docs").glob("*.md"), *RESULTS.glob("*.md")])]
    for number, (command, table) in enumerate(TABLE.findall(path.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize(("command", "table"), TABLES)
def test_a_published_table_is_what_its_command_gives(command, table, monkeypatch):
    monkeypatch.chdir(ROOT)
    made = CliRunner().invoke(app, shlex.split(command))
    assert made.exit_code == 0, made.output
    assert made.stdout == table


def test_there_are_published_tables():
    assert TABLES


@pytest.fixture
def finished(tmp_path):
    """A suite of real patients with two cells: one private that goes on from a run unknown, one that failed."""
    folder = tmp_path / "runs" / "two"
    start = {"start": str(tmp_path / "earlier"), "options": {"public": str(tmp_path / "archive")}}
    run = make_run(folder / "cells" / "dcgan", epsilon=8.0, images=str(tmp_path / "patients"), **start)
    (run.folder / "synthetic").mkdir()
    (run.folder / "synthetic" / "images.npy").write_bytes(b"pixels")
    (run.folder / "benchmarks" / "readers.json").write_text("{}")
    (folder / "cells" / "vae-failed.txt").write_text(f"simulate: no room in {tmp_path}\n")
    (folder / "suite.toml").write_text(
        f'name = "two"\nimages = "{tmp_path}/patients"\n[settings]\nstore = "{tmp_path}/store"\n'
        '[grid]\ngenerator = ["dcgan", "vae"]\n'
    )
    (folder / "seconds.csv").write_text("cell,step,seconds,processor seconds\ndcgan,simulate,2,1\n")
    return folder


def rows(folder):
    done = CliRunner().invoke(app, ["compare", str(folder), "--format", "csv", "--columns", "generator,epsilon,dice"])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_results_are_kept_without_images_and_paths_and_give_the_same_table(finished, tmp_path):
    out = tmp_path / "kept"
    written = publish(finished, out)
    assert {path.relative_to(out).as_posix() for path in written} == {
        *("suite.toml", "seconds.csv", "cells/dcgan/config.toml", "cells/dcgan/checkpoints/generator.toml"),
        *("cells/dcgan/rounds.csv", "cells/dcgan/benchmarks/segmentation.json", "cells/vae-failed.txt"),
    }
    assert sorted(path for path in out.rglob("*") if path.is_file()) == sorted(written)
    assert not any(str(tmp_path) in path.read_text() for path in written)
    assert "0.7 [0.6, 0.8]" in rows(out)
    assert "no guarantee" in rows(out)
    assert "failed: simulate" in rows(out)
    assert rows(out).splitlines()[:2] == rows(finished).splitlines()[:2]
    assert publish(finished, out) == written  # over its own


def test_a_folder_that_is_no_published_suite_is_left_alone(finished, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "table.md").write_text("kept")
    for out in (tmp_path / "precious", finished):
        with pytest.raises(ConfigError, match="no published folder"):
            publish(finished, out)
    assert (tmp_path / "precious" / "table.md").read_text() == "kept"
    assert (finished / "cells" / "dcgan").is_dir()


def test_results_of_another_set_are_not_published(finished, tmp_path):
    made = fedsynth.from_arrays(np.zeros((3, 8, 8), np.uint8))
    shutil.rmtree(finished / "cells" / "dcgan" / "synthetic")
    made.save(finished / "cells" / "dcgan" / "synthetic")
    path = finished / "cells" / "dcgan" / "benchmarks" / "segmentation.json"
    result = load_result(path)
    other = Input(path="", sha256="another", images=3, patients=0, roles={})
    replace(result, inputs={**result.inputs, "synthetic": other}).save(path)
    with pytest.raises(ConfigError, match="another set"):
        publish(finished, tmp_path / "kept")
