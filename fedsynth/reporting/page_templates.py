"""The templates of pages and their one style sheet."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).with_name("templates")


def style() -> str:
    """For the head of a page: nothing is fetched."""
    return (TEMPLATES / "report.css").read_text(encoding="utf-8")


def templates() -> Environment:
    """Every value is escaped but what a template marks as safe, and a name that it does not know is an error."""
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda text: text.replace(" %", "\u00a0%") if isinstance(text, str) else text,  # a share is one word
    )
