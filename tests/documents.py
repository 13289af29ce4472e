"""Commands and programs that stand in a page of Markdown, as a reader would type them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line of the page that it begins after."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """Every fenced block of the page."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [Block(match[1], match[2], text.count("\n", 0, match.start()) + 1) for match in found]


def commands(block: Block) -> list[list[str]]:
    """The words of every line that is typed: comments left out, a `$` before it taken off, long lines joined."""
    joined = block.text.replace("\\\n", " ")
    lines = [line.removeprefix("$ ") for line in joined.splitlines() if line.startswith("$ ") or block.language == ""]
    return [words for line in lines if (words := shlex.split(line, comments=True))]
