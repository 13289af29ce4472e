"""docs/cli.md is what the code says."""

from pathlib import Path

from fedsynth.cli import app
from fedsynth.cli.reference_page import page

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def test_the_page_is_what_the_code_says():
    assert PAGE.read_text(encoding="utf-8") == page(app), "run `make docs`"


def test_the_page_has_every_command_and_option():
    text = page(app)
    for said in ("## fedsynth simulate", "## fedsynth benchmark memorization", "`--epsilon`", "`RUN...`"):
        assert said in text
