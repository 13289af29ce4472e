"""The privacy/utility table: one row per way of sharing, in the forms that people paste elsewhere."""

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any

from fedsynth.evaluation.score import Result
from fedsynth.reporting.summary import BESIDE_NOBODY, COLUMNS, Facts
from fedsynth.reporting.usefulness import NOBODY


def shown_columns(rows: Sequence[Facts]) -> list[str]:
    """All columns but those in which no run has anything: no delta without an epsilon, nothing over a public pool that
    there was not."""
    empty = {name: ("not run", "-") if name in (*BESIDE_NOBODY, "delta") else ("not run",) for name in COLUMNS}
    return [name for name in COLUMNS if any(row.cells[name].text not in empty[name] for row in rows)]


def _way(result: Result) -> list[tuple[str, object]]:
    """How a run was measured; public and placebo arms beside it change nothing about its own."""
    own = [arm for arm in result.settings.get("arms", ()) if str(arm).partition("+")[0] not in NOBODY]
    return sorted({**result.settings, "arms": own}.items())


def differences(rows: Sequence[Facts]) -> list[str]:
    """Why rows must not be compared: other real images or roles, other hospitals, another effort. Empty when they may.

    One row alone is looked at too: its own results may rest on different images.
    """
    rows = [row for row in rows if not row.unfinished]
    found = [f"{row.run.folder.name}: {text}" for row in rows for text in mixed(row)]
    for name in sorted({name for row in rows for name in row.results}):
        results = [row.results[name] for row in rows if name in row.results]
        if not any(result.inputs for result in results):  # the audit of a mechanism reads no image
            continue
        if len({result.inputs["real"].sha256 for result in results}) > 1:
            found.append(f"{name}: the real images, their patients or their roles differ between runs")
        if len({result.seed for result in results}) > 1:
            found.append(f"{name}: measured with different seeds")
        if len({repr(_way(result)) for result in results}) > 1:
            found.append(f"{name}: measured with different settings")
        missing = [row.run.folder.name for row in rows if name not in row.results]
        if missing:
            found.append(f"{name}: not run for {', '.join(missing)}")
    for what, of in MADE.items():
        values = {row.run.folder.name: v for row in rows if (v := of(row)) is not None}
        if len(set(values.values())) > 1:
            found.append(f"{what}: {', '.join(f'{name} {value}' for name, value in values.items())}")
    seeds = {row.settings.get("seed") for row in rows}
    return [*found, f"trained with different seeds: {sorted(map(str, seeds))}"] if len(seeds) > 1 else found


def mixed(row: Facts) -> list[str]:
    """Which results of one row do not belong together: they rest on other real images, or on other synthetic ones."""
    found = []
    for kind in ("real", "synthetic"):
        by_set: dict[str, list[str]] = {}
        for name, result in row.results.items():
            if kind in result.inputs:
                by_set.setdefault(result.inputs[kind].sha256, []).append(name)
        if len(by_set) > 1:
            apart = " | ".join(", ".join(names) for names in by_set.values())
            found.append(f"the results rest on {len(by_set)} different {kind} sets ({apart}): run the benchmarks again")
    return found


def _took_part(row: Facts) -> str | None:
    if row.hospitals is None or not row.hospitals.rounds:
        return None
    return f"{len(row.hospitals.trained)} ({', '.join(row.hospitals.trained)})"


def _steps(row: Facts) -> int | None:
    """Of each hospital over all rounds, or of the one site."""
    if row.steps is not None:
        return row.steps
    rounds, local = row.settings.get("rounds"), row.settings.get("local-steps")
    return None if rounds is None or local is None else int(rounds) * int(local)


def _drawn(row: Facts) -> int | None:
    measured = {r.inputs["synthetic"].images for r in row.results.values() if "synthetic" in r.inputs}
    return measured.pop() if len(measured) == 1 else row.settings.get("count")


MADE: dict[str, Callable[[Facts], Any]] = {
    "trained by different hospitals": _took_part,
    "trained for different numbers of steps": _steps,
    "different numbers of synthetic images": _drawn,
}
"""What must be alike before two rows say anything about what is varied between them."""


def reasons(rows: Sequence[Facts], *, damaged: bool = True) -> list[str]:
    """What the cells without a number say, each once; which steps failed, and which results are `damaged`."""
    said = {
        f"{COLUMNS[name].strip()}: {cell.why}": None
        for row in rows
        for name, cell in row.cells.items()
        if cell.why and cell.text != "not run"
    }
    broken = {text: None for row in rows for text in row.damaged} if damaged else {}
    failed = [
        f"{row.run.folder.name}: {step} failed{f': {why}' if why else ''}"
        for row in rows
        for step, why in row.failed.items()
    ]
    return [*failed, *said, *broken]


def as_csv(rows: Sequence[Facts], columns: Sequence[str]) -> str:
    """Texts and, for what has one, the bare number in a column of its own."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    numbers = [name for name in columns if any(row.cells[name].value is not None for row in rows)]
    writer.writerow([*columns, *(f"{name}_value" for name in numbers)])
    for row in rows:
        values = ["" if (v := row.cells[name].value) is None else repr(v) for name in numbers]
        writer.writerow([*(row.cells[name].text for name in columns), *values])
    return out.getvalue()


def as_markdown(rows: Sequence[Facts], columns: Sequence[str]) -> str:
    """A pipe table."""
    lines = [[COLUMNS[name].strip() for name in columns], ["---"] * len(columns)]
    lines += [[row.cells[name].text.replace("|", "\\|") for name in columns] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_latex(rows: Sequence[Facts], columns: Sequence[str]) -> str:
    """A tabular environment with the rules of booktabs."""
    head = " & ".join(_escaped(COLUMNS[name].strip()) for name in columns)
    body = [" & ".join(_escaped(row.cells[name].text) for name in columns) + r" \\" for row in rows]
    frame = [rf"\begin{{tabular}}{{{'l' * len(columns)}}}", r"\toprule", head + r" \\", r"\midrule"]
    return "\n".join([*frame, *body, r"\bottomrule", r"\end{tabular}"]) + "\n"


Form = Callable[[Sequence[Facts], Sequence[str]], str]
FORMS: dict[str, Form] = {"csv": as_csv, "markdown": as_markdown, "latex": as_latex}


def _escaped(text: str) -> str:
    for sign in "&%$#_{}":
        text = text.replace(sign, f"\\{sign}")
    return text
