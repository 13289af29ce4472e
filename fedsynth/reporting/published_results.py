"""Published numbers beside ours: which is which, and what differs. It compares nothing and judges nothing."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from fedsynth.experiments.suite_config import Figure, Published
from fedsynth.reporting.summary import Facts

HEADS = ("published", "there", "here", "cell")
Row = tuple[str, str, str, str]


def published_rows(published: Published, rows: Sequence[Facts]) -> list[Row]:
    """What, their number, ours and in which cell: a row per cell that has ours, or one that says that none has."""
    found: list[Row] = []
    by_cell = {row.run.folder.name: row for row in rows}
    for figure in published.figures:
        ours = _ours(figure, by_cell)
        first = (figure.what if not figure.source else f"{figure.what} ({figure.source})", figure.value)
        if not ours:
            found.append((*first, "not measured" if figure.ours else "nothing to compare", ""))
        for cell, text in ours:
            found.append((*first, text, cell))
            first = ("", "")
    return found


def published_lines(published: Published) -> list[str]:
    """Where the numbers are from, and what is different here."""
    source = [f"published: {published.source}"] if published.source else []
    return [*source, *(f"differs: {text}" for text in published.differs)]


def _ours(figure: Figure, by_cell: Mapping[str, Facts]) -> list[tuple[str, str]]:
    benchmark, _, key = figure.ours.partition(".")
    found = []
    for cell, facts in by_cell.items():
        result = facts.results.get(benchmark)
        if result is not None and key in result.scores and fnmatchcase(cell, figure.cells):
            found.append((cell, str(result.scores[key])))
    return found
