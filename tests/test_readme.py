"""Every command of the README: it is read by the command line, and what does not take long is run, at a small size."""

import ast
import re
from pathlib import Path

import click
import pytest
from typer.testing import CliRunner

import fedsynth
from fedsynth.cli import app
from fedsynth.cli.suite import check_command
from fedsynth.data import ImageSet
from tests.documents import blocks, commands

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
TYPED = [words for block in blocks(README) if block.language == "" for words in commands(block)]
PYTHON = [block for block in blocks(README) if block.language == "python"]
PROGRAMS = ("fedsynth", "make")

SMALLER = {
    "simulate --sites 4": "simulate --data hospitals --run runs/A --rounds 1 --local-steps 1 --count 60",
    "phantom hospitals --patients 200 --slices 5 --size 64": "phantom hospitals --patients 60 --slices 1 --size 32",
    "train hospitals --generator dcgan": "train hospitals --generator dcgan --steps 2",
    "synthesize --count 500": "synthesize --count 8",
    "benchmark segmentation": "benchmark segmentation --steps 1 --augmentation none",
    "benchmark classification": "benchmark classification --steps 1 --augmentation none",
    "benchmark fidelity": "benchmark fidelity --steps 0",
    "compare runs/A runs/B": "compare runs/A runs/A",
}
"""What is typed in the README, and what is run instead: the same at a size that takes a second."""

NOT_RUN = {
    "simulate --sites 4 --data lgg": "needs images that are not ours to ship; private runs are tested with the ledger",
    "import kaggle_3m": "the same",
    "import FOLDER": "needs files; proposals are tested with the importers",
    "synthesize RUN": "needs a run of that name; tested with training",
    "simulate --data xrays": "the same; releases beside a public set are tested with images that the tests make",
    "benchmark memorization": "tested with the guide of the first hour, which takes it further",
    "benchmark membership": "the same",
    "benchmark audit RUN": "takes minutes at any size; tested with the audit",
    "benchmark readers": "tested with the guide of the first hour",
    "release RUN": "the same",
    "verify SET": "the same: there is no release; tests/reporting has one",
    "compare runs/quick": "needs the main job's runs; tested with comparing",
    "deploy init": "writes keys and certificates; tested with the deployment",
    "suite": "is made of the commands above; tested with the suites",
}
"""Only read, not run, and why."""

FIRST = ("phantom hospitals", "simulate --sites 4")
"""What the others need."""


def said(words):
    return " ".join(words[1:])


def of(table, words):
    """The longest entry of a table that the command begins with."""
    return max((start for start in table if f"{said(words)} ".startswith(f"{start} ")), key=len, default=None)


@pytest.mark.parametrize("words", TYPED, ids=" ".join)
def test_every_command_of_the_readme_is_one(words):
    assert words[0] in PROGRAMS
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert words[1] in targets
    else:
        check_command(words[1:])


def test_inline_commands_and_files_exist():
    text = re.sub(r"^```.*?^```$", "", README.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found = [part.split() for part in re.findall(r"`(fedsynth [^`]+)`", text)]
    assert found
    for words in found:
        check_command([word for word in words[1:] if word != "..."])
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_a_slip_would_be_noticed():
    for wrong in (["simulate", "--sitse", "4"], ["simulat"], ["benchmark", "fidelty"], ["split", "a"]):
        with pytest.raises(click.UsageError):
            check_command(wrong)


def test_no_command_is_forgotten():
    """What is neither made smaller nor left out is run as it stands."""
    known = [words for words in TYPED if words[0] == "fedsynth"]
    assert [start for start in SMALLER if not any(of([*SMALLER, *NOT_RUN], words) == start for words in known)] == []
    assert len(known) > 15
    assert len(PYTHON) == 1
    ast.parse(PYTHON[0].text)


@pytest.mark.slow
def test_the_commands_of_the_readme_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    typed = [words for words in TYPED if words[0] == "fedsynth"]
    first = [
        words for start in FIRST for words in typed if of([start, "simulate --sites 4 --data lgg"], words) == start
    ]
    for words in [*first, *(words for words in typed if words not in first)]:
        if of([*SMALLER, *NOT_RUN], words) in NOT_RUN:
            continue
        start = of(SMALLER, words)
        run = said(words) if start is None else said(words).replace(start, SMALLER[start], 1)
        done = CliRunner().invoke(app, [word.strip('"') for word in run.split()])
        assert done.exit_code == 0, f"{run}: {done.output}"
    assert len(ImageSet.load("made")) == 8
    assert (tmp_path / "runs" / "A" / "synthetic" / "imageset.toml").is_file()


@pytest.mark.slow
def test_the_notebook_of_the_readme_works(tmp_path, monkeypatch):
    """Its own lines, with phantoms that are fewer and runs that are shorter."""
    monkeypatch.chdir(tmp_path)
    CliRunner().invoke(app, ["phantom", "few", "--patients", "60", "--slices", "1", "--size", "32", "--sites", "4"])
    text = PYTHON[0].text
    for long, short in {
        "rounds=30, local_steps=30": "rounds=1, local_steps=1, count=60, data='few'",
        '["memorization", "fidelity", "segmentation"]': '["fidelity", "segmentation"], steps=1',
        'fedsynth.compare(run, "runs/another")': "table = fedsynth.compare(run, run)",
    }.items():
        assert long in text
        text = text.replace(long, short)
    names = {"fedsynth": fedsynth, "print": lambda *shown: None}
    exec(compile(text, str(README), "exec"), names)
    assert {"score", "value", "low", "high", "baseline", "control"} <= set(names["found"].columns)
    assert list(names["table"].columns)
    assert len(names["images"].as_dicts()) == 60
