"""Published tables: made again from the stored results, which hold no image, no name of a patient and no path."""

import re
import runpy
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedsynth.cli import app
from tests.reporting.test_comparison import make_run

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
TABLE = re.compile(r"<!-- fedsynth (compare .*?) -->\n((?:\|.*\n)+)")
"""A table with the command that makes it."""

publish = runpy.run_path(str(ROOT / "benchmarks" / "publish.py"))["publish"]
TABLES = [
    pytest.param(command, table, id=f"{path.name}-{number}")
    for path in [ROOT / "README.md", *sorted(RESULTS.glob("*.md"))]
    for number, (command, table) in enumerate(TABLE.findall(path.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize(("command", "table"), TABLES)
def test_a_published_table_is_what_its_command_gives(command, table, monkeypatch):
    monkeypatch.chdir(ROOT)
    made = CliRunner().invoke(app, shlex.split(command))
    assert made.exit_code == 0, made.output
    assert made.stdout == table


@pytest.fixture
def finished(tmp_path):
    folder = tmp_path / "runs" / "two"
    run = make_run(folder / "cells" / "dcgan", images=str(tmp_path / "patients"))
    (run.folder / "synthetic").mkdir()
    (run.folder / "synthetic" / "images.npy").write_bytes(b"pixels")
    (folder / "suite.toml").write_text(
        f'name = "two"\nimages = "{tmp_path}/patients"\n[grid]\ngenerator = ["dcgan", "vae"]\n'
    )
    (folder / "seconds.csv").write_text("cell,step,seconds,processor seconds\ndcgan,simulate,2,1\n")
    return folder


def test_results_are_kept_without_images_and_paths_and_give_the_same_table(finished, tmp_path):
    out = tmp_path / "kept"
    written = publish(finished, out)
    assert {path.relative_to(out).as_posix() for path in written} == {
        *("suite.toml", "seconds.csv", "cells/dcgan/config.toml", "cells/dcgan/checkpoints/generator.toml"),
        *("cells/dcgan/rounds.csv", "cells/dcgan/benchmarks/segmentation.json"),
    }
    assert sorted(path for path in out.rglob("*") if path.is_file()) == sorted(written)
    assert not any(str(tmp_path) in path.read_text() for path in written)
    tables = [CliRunner().invoke(app, ["compare", str(folder), "--format", "csv"]) for folder in (finished, out)]
    assert tables[0].stdout == tables[1].stdout
    assert "0.7 [0.6, 0.8]" in tables[0].stdout
