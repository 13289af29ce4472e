"""A notebook with its outputs as one page of Markdown: pictures are in the page, nothing is fetched to show it."""

import re
from typing import Any

STYLE = re.compile(r"<style.*?</style>", re.DOTALL)


def as_markdown(notebook: dict[str, Any]) -> str:
    """Every cell in its order, and below a cell of code what it gave."""
    return "\n\n".join(part for cell in notebook["cells"] for part in _cell(cell)) + "\n"


def _cell(cell: dict[str, Any]) -> list[str]:
    text = "".join(cell["source"])
    if cell["cell_type"] != "code":
        return [text]
    outputs = [_output(output) for output in cell["outputs"]]
    return [f"```python\n{text}\n```", *filter(None, outputs)]


def _output(output: dict[str, Any]) -> str:
    if "text" in output:
        return _plain(output["text"])
    data = output.get("data", {})
    if "image/png" in data:
        return f'<img alt="What the cell above drew." src="data:image/png;base64,{"".join(data["image/png"]).strip()}">'
    if "text/html" in data:
        return STYLE.sub("", "".join(data["text/html"]))
    return _plain(data.get("text/plain", ""))


def _plain(text: str | list[str]) -> str:
    joined = "".join(text).rstrip()
    return f"```text\n{joined}\n```" if joined else ""
