"""A wrong option is refused before a network library is loaded."""

import subprocess
import sys

import pytest

CODE = """
import sys
from fedsynth.cli import app
try:
    app({words!r})
except SystemExit as end:
    assert end.code == 2, end.code
assert "torch" not in sys.modules
"""


@pytest.mark.parametrize(
    "words",
    [
        ["simulate", "--rounds", "0"],
        ["simulate", "-g", "dcgn"],
        ["simulate", "--epsilon", "-1", "--patients", "3"],
        ["train", "nowhere", "--steps", "0"],
        ["train", "nowhere", "-g", "dcgn"],
        ["train", "nowhere", "--epsilon", "3"],
    ],
)
def test_refusals_load_no_network_library(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", CODE.format(words=words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
