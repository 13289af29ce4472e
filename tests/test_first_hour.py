"""The page of the first hour does what it says: its commands are run in their order, at a smaller size."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedsynth.cli import app
from fedsynth.cli.suite import check_command
from fedsynth.evaluation.reader_study.answer_key import load_key
from tests.documents import blocks, commands
from tests.evaluation.reader_study.test_reader_scores import right, written

ROOT = Path(__file__).parents[1]
PAGE, SUITES = ROOT / "docs" / "first-hour.md", ROOT / "benchmarks" / "README.md"

SMALLER = {
    "--patients 200 --slices 3": "--patients 80 --slices 1",
    "--steps 1500": "--steps 4",
    "--count 500": "--count 60",
    "--steps 300": "--steps 1",
}
"""What stands on the page, and what is run instead."""

NOT_HERE = ("git clone", "cd fedsynth", "make simulate", "source .venv")
"""The clone, and what is run for itself; the targets of make are checked with the README."""

ANY_VERDICT = ("fedsynth benchmark memorization", "fedsynth benchmark membership")
LAST = "fedsynth release results --synthetic theirs --criteria release.toml --out shared"


def typed():
    """Each command as it stands, a document that it is given with it."""
    text = "".join(block.text for block in blocks(PAGE) if block.language == "console")
    return [part.rstrip("\n") for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]]


def test_every_command_of_the_page_is_one():
    found = [line for line in typed() if line.startswith("fedsynth")]
    assert len(found) > 15
    text = PAGE.read_text(encoding="utf-8")
    for line in [*found, *re.findall(r"`(fedsynth [^`]+)`", text)]:
        check_command(shlex.split(line, comments=True)[1:])
    assert all(any(long in line for line in typed()) for long in SMALLER)
    assert all(any(line.startswith(start) for line in typed()) for start in NOT_HERE)
    assert typed()[-1] == LAST
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert (PAGE.parent / target).exists(), target


def test_the_page_of_suites_names_every_suite_and_commands_that_there_are():
    for block in blocks(SUITES):
        for words in commands(block):
            if words[0] == "python":
                assert (ROOT / words[1]).is_file()
                continue
            check_command(words[1:])
            assert not words[2].startswith("benchmarks/") or (ROOT / words[2]).exists()
    named = re.findall(r"^\| `([\w-]+\.toml)`", SUITES.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(named) >= {path.name for path in SUITES.parent.glob("*.toml")}


@pytest.mark.slow
def test_the_commands_of_the_page_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    codes = {}
    for command in typed():
        if command.startswith(NOT_HERE):
            continue
        if "--score answers.csv" in command:
            written(tmp_path / "answers.csv", load_key(tmp_path / "sheet"), right)
        codes[command] = run(command)
        allowed = {0, 1, 3} if command.startswith(ANY_VERDICT) else {0, 1} if command == LAST else {0}
        assert codes[command] in ({1} if "# exit 1" in command else allowed), command
    assert (tmp_path / "mine.png").is_file()
    assert "Readers told real from synthetic" in (tmp_path / "results" / "report.html").read_text()
    assert (tmp_path / "shared" / "README.md").is_file() == (codes[LAST] == 0)


def run(command):
    """The exit code at the smaller size; fedsynth runs in this process, so that it is imported once."""
    for long, short in SMALLER.items():
        command = command.replace(long, short)
    if not command.startswith("fedsynth"):
        return subprocess.run(["bash", "-c", command], check=False).returncode
    done = CliRunner().invoke(app, shlex.split(command, comments=True)[1:])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    return done.exit_code
