"""One self-contained HTML page: the answer first, then the table, figures, pictures, and how to repeat it.

It needs no network. The exported page has no pixels and no names of real patients.
"""

import base64
import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

from fedsynth.config import to_toml
from fedsynth.experiments.suite_config import Published
from fedsynth.reporting.answer import NOT_PRIVATE_OUTPUT, QUESTION, answer
from fedsynth.reporting.comparison import differences, reasons, shown_columns
from fedsynth.reporting.figures import curves
from fedsynth.reporting.frontier import frontiers
from fedsynth.reporting.published_results import published_section
from fedsynth.reporting.summary import COLUMNS, Facts, unfinished_facts

STYLE = """
:root{color-scheme:light;--ink:#1c2226;--soft:#5c676e;--line:#d8dee2;--yes:#2f7d4f;--no:#b3382c;--open:#b07a00}
*{box-sizing:border-box}
body{margin:0;overflow-wrap:anywhere;color:var(--ink);background:#fff;
font:16px/1.5 system-ui,sans-serif}
main{max-width:62rem;margin:0 auto;padding:1.2rem}h1{font-size:1.5rem;margin:.2rem 0}
h2{font-size:1.15rem;margin:2rem 0 .6rem}h3{font-size:1rem;margin:1.2rem 0 .4rem}
.answer{border-left:6px solid var(--open);padding:.6rem 1rem;margin:.8rem 0;background:#f7f9fa}.answer p{margin:.5rem 0}
.answer.yes{border-color:var(--yes)}
.answer.no{border-color:var(--no)}
.answer strong{font-size:1.25rem;display:block}.soft{color:var(--soft);font-size:.9rem}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.88rem;min-width:100%}
th,td{padding:.35rem .6rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top;white-space:nowrap}
.aside th{overflow-wrap:normal}.aside th,.aside td,.published td{white-space:normal;min-width:6rem}
.published td:first-child{min-width:14rem}.published td:nth-child(n+3){white-space:nowrap}
figure{margin:.8rem 0}svg,img{max-width:100%;height:auto}figure svg{display:block;width:100%;max-width:38rem}
details{margin:.6rem 0}summary{cursor:pointer;padding:.3rem 0}
.key{list-style:none;padding:0;margin:.2rem 0;display:flex;flex-wrap:wrap;gap:.2rem 1rem;font-size:.85rem}
.key span{display:inline-block;width:.8rem;height:.8rem;margin-right:.35rem;border-radius:2px}
pre{background:#f7f9fa;padding:.7rem;overflow-x:auto;font-size:.82rem}.mark{color:var(--no);font-weight:600}
@media print{main{max-width:none}h2{break-after:avoid}figure,table{break-inside:avoid}}
"""


STAYS = '<p class="mark">This copy may show patients: it stays at the site. --export makes one that may not.</p>'
BRACKETS = (
    "Square brackets: 95 % intervals; of Dice, accuracy and false positives over holdout patients and trainings, of "
    "membership over members and holdout patients, of KID over holdout patients and synthetic images, of the copied "
    "share over synthetic images, of readers over the images shown. What has no brackets has no interval, and what "
    "another training of the same generator would give is in none. Skill: 0 is the best control, 1 is real images. "
    "Round brackets: as the column says."
)
MOST_SIDE_BY_SIDE = 3
LOCAL = ("images", "store", "start", "sites", "workspace")
"""Settings that may hold paths of this machine."""


def report_page(
    rows: Sequence[Facts],
    *,
    export: bool = False,
    title: str = "fedsynth report",
    published: Published | None = None,
) -> str:
    """The page of one run or of several side by side, with what was `published` beside what was found here.

    With `export` nothing in it shows or names a patient.
    """
    rows = [_without_reasons(row) for row in rows] if export else rows
    first = rows[0]
    parts = [_answers(rows), _table(rows), _frontier(rows)]
    parts += [] if published is None else [published_section(published, rows)]
    for row in rows:
        parts += [_pictures(row, export=export), _training(row)]
    parts += [_open_questions(rows, export=export), _repeat(rows, export=export)]
    whose = first.run.folder.name if len(rows) == 1 else f"{title}: {len(rows)} runs"
    stays = "" if export or all(row.public for row in rows) else STAYS
    body = f"<p class='soft'>{escape(whose)}</p>{stays}{''.join(parts)}"
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<title>{escape(title)}</title><link rel="icon" href="data:,"><style>{STYLE}</style>'
    )
    page = f"<head>{head}</head><body><main>{body}</main></body>"
    return f'<!doctype html><html lang="en">{page}</html>\n'


def _answers(rows: Sequence[Facts]) -> str:
    parts = [f"<h1>{QUESTION}</h1>"]
    for row in rows:
        found = answer(row)
        whose = f"<span class='soft'>{escape(row.run.folder.name)}</span>" if len(rows) > 1 else ""
        said = "".join(f"<p>{escape(sentence)}</p>" for sentence in found.sentences)
        if len(rows) > MOST_SIDE_BY_SIDE:
            said = f"<details><summary>why</summary>{said}</details>"
        parts.append(f'<div class="answer {found.tone}">{whose}<strong>{escape(found.headline)}</strong>{said}</div>')
    return "".join([*parts, f"<p class='soft'>{escape(NOT_PRIVATE_OUTPUT)}</p>"])


def _table(rows: Sequence[Facts]) -> str:
    columns = shown_columns(rows)
    lines = [[f"<th>{escape(COLUMNS[name].strip())}</th>", *(_td(row, name) for row in rows)] for name in columns]
    aside = len(rows) <= MOST_SIDE_BY_SIDE
    if not aside:  # many runs are read from top to bottom
        lines = [list(line) for line in zip(*lines, strict=True)]
    table = "".join(f"<tr>{''.join(line)}</tr>" for line in lines)
    table = f'<div class="wide"><table class="{"aside" if aside else ""}">{table}</table></div>'
    apart = "".join(f"<li>{escape(line)}</li>" for line in differences(rows))
    said = f"<p>Not comparable without care:</p><ul>{apart}</ul>" if apart else ""
    note = f"<p class='soft'>{escape(BRACKETS)}</p>"
    return f"<h2>What was spent, what leaked, what it is good for</h2>{table}{note}{said}"


def _td(row: Facts, name: str) -> str:
    cell = row.cells[name]
    return f'<td title="{escape(cell.why)}">{escape(cell.text)}</td>'


def _frontier(rows: Sequence[Facts]) -> str:
    drawn = "".join(chart.figure() for chart in frontiers(rows))
    return f"<h2>Privacy and utility</h2>{drawn}" if drawn else ""


def _pictures(row: Facts, *, export: bool) -> str:
    """What the generator makes; beside real images and with the nearest pairs only where patients may be shown."""
    run, parts = row.run, []
    if not export or row.public or row.cells["verdict"].text == "pass":
        sheets = [run.samples / "synthetic.png", *sorted(run.samples.glob("step-*.png"))[-1:]]
        parts += [_picture(path, "Made by the generator.") for path in sheets if path.is_file()][:1]
    else:
        parts.append("<p>No picture: what a generator made is shown outside only after the leakage test passed.</p>")
    if not export:
        beside = [run.samples / "real-and-synthetic.png", *sorted(run.folder.glob("sites/*/real-and-synthetic.png"))]
        parts += [_picture(path, "Generated and real images side by side.") for path in beside if path.is_file()]
        for path in sorted(run.folder.glob("sites/*/memorization/pairs.png")):
            where = path.parent.parent.name
            whose = "phantoms" if row.public else "patients"
            shown = _picture(path, f"Nearest pairs at {where}. Shows {whose}.")
            parts.append(
                f"<details><summary>Nearest pairs at {escape(where)}: shows {whose}</summary>{shown}</details>"
            )
    return f"<h2>Pictures: {escape(run.folder.name)}</h2>{''.join(parts)}" if parts else ""


def _picture(path: Path, text: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    image = f'<img alt="{escape(text)}" src="data:image/png;base64,{data}">'
    return f'<figure>{image}<figcaption class="soft">{escape(text)}</figcaption></figure>'


def _training(row: Facts) -> str:
    if not row.run.rounds.is_file():
        return ""
    series: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    with row.run.rounds.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            for name, value in line.items():
                if name.endswith("_loss") and value:
                    series[name][line["site"]].append((float(line["round"]), float(value)))
    charts = [curves(sites, x="round", y=name.replace("_", " ")) for name, sites in sorted(series.items())]
    drawn = "".join(chart.figure() for chart in charts if chart is not None)
    return f"<h2>Training, per site: {escape(row.run.folder.name)}</h2>{drawn}" if drawn else ""


def _without_reasons(row: Facts) -> Facts:
    """What a step said when it failed may name paths and patients."""
    failed = dict.fromkeys(row.failed, "")
    return unfinished_facts(row.run.folder, failed) if row.unfinished else replace(row, failed=failed)


def _open_questions(rows: Sequence[Facts], *, export: bool) -> str:
    found = reasons(rows, damaged=not export)  # a damaged file is named with its path
    items = "".join(f"<li>{escape(line)}</li>" for line in found)
    return f"<h2>What could not be known</h2><ul>{items}</ul>" if items else ""


def _repeat(rows: Sequence[Facts], *, export: bool) -> str:
    parts = []
    for row in rows:
        used: dict[str, list[str]] = defaultdict(list)
        for name, result in row.results.items():
            if "real" in result.inputs:
                used[result.inputs["real"].sha256].append(name)
        data = "".join(
            f"<p class='soft'>real images ({escape(', '.join(names))}): fingerprint {escape(one)}</p>"
            for one, names in used.items()
        )
        settings = to_toml(_without_paths(row.settings) if export else row.settings)
        parts.append(f"<h3>{escape(row.run.folder.name)}</h3>{data}<pre>{escape(settings)}</pre>")
    return f"<h2>How to repeat it</h2>{''.join(parts)}"


def _without_paths(settings: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in settings.items() if key not in LOCAL or isinstance(value, int)}
    return {key: _without_paths(value) if isinstance(value, Mapping) else value for key, value in kept.items()}
