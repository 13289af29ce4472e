"""One self-contained HTML page: the answer first, then pictures, table, figures, limits, and how to repeat it.

It needs no network and no script. The exported page has no pixels and no names of real patients.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from fedsynth.config import to_toml
from fedsynth.experiments.suite_config import Published
from fedsynth.reporting.answer import (
    ADDED,
    GUARANTEE,
    LIMITS,
    NOT_PRIVATE_OUTPUT,
    QUESTION,
    RESULTS,
    USE,
    Answer,
    Part,
    Tone,
    answer,
)
from fedsynth.reporting.comparison import differences, reasons, shown_columns
from fedsynth.reporting.figures import Chart
from fedsynth.reporting.forest_plots import group_forests, groups, groups_without_ratio, utility_forests
from fedsynth.reporting.frontier import frontiers
from fedsynth.reporting.page_pictures import Pictures, pictures_of
from fedsynth.reporting.page_templates import style, templates
from fedsynth.reporting.page_terms import NOTES, Words
from fedsynth.reporting.published_results import HEADS as PUBLISHED_HEADS
from fedsynth.reporting.published_results import published_rows
from fedsynth.reporting.short_table import HEADS, Reference, references, short_cells
from fedsynth.reporting.summary import COLUMNS, Facts, unfinished_facts
from fedsynth.reporting.training_curves import training_curves
from fedsynth.reporting.usefulness import TASKS, share_of_real
from fedsynth.reporting.withheld_paths import without_paths

TONES: Mapping[Tone, str] = {"yes": "Tests passed", "open": "Not decided", "no": "Do not share"}
SIDE_BY_SIDE = 4
"""Rows in one part of the full table: more do not fit on paper."""
COMMANDS = "commands.txt"


@dataclass(frozen=True, kw_only=True)
class Repeat:
    """What somebody needs who measures the same again."""

    settings: str
    fingerprints: Mapping[str, str]
    versions: Sequence[str]
    commands: str = ""


@dataclass(frozen=True, kw_only=True)
class Way:
    """Everything that the page says of one row; `untested` is what the other rows tested and this one did not."""

    facts: Facts
    export: bool
    answer: Answer
    untested: Sequence[str] = ()

    @property
    def name(self) -> str:
        """The run's folder."""
        return self.facts.run.folder.name

    @cached_property
    def pictures(self) -> Pictures:
        """Those that this page may show."""
        return pictures_of(self.facts, export=self.export)

    @property
    def first(self) -> list[Part]:
        """What the first screen says below the headline, in its order."""
        by_question = {part.question: part for part in self.answer.parts if part.brief}
        return [by_question[question] for question in (RESULTS, USE, GUARANTEE, ADDED) if question in by_question]

    @property
    def short(self) -> dict[str, str]:
        """Its cells of the short table."""
        return short_cells(self.facts)

    @property
    def training(self) -> list[Chart]:
        """The losses of each network, by site."""
        return training_curves(self.facts.run)

    @property
    def repeat(self) -> Repeat:
        """Commands name places of this machine: a page that leaves has none."""
        row, prints = self.facts, defaultdict(list)
        for name, result in row.results.items():
            for kind, given in result.inputs.items():
                prints[kind, given.sha256].append(name)
        beside = row.run.folder.with_name(f"{row.run.folder.name}-{COMMANDS}")
        return Repeat(
            settings=to_toml(without_paths(row.settings) if self.export else row.settings),
            fingerprints={f"{kind} ({', '.join(of)})": one for (kind, one), of in prints.items()},
            versions=_versions(row),
            commands=beside.read_text(encoding="utf-8") if beside.is_file() and not self.export else "",
        )


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
    answers = [answer(row) for row in rows]
    several = len(rows) > 1
    asked = [one.untested for one in answers if one.untested] if several else [()]
    common = [text for text in asked[0] if all(text in one for one in asked)] if asked else []
    ways = [
        Way(facts=row, export=export, answer=one, untested=[text for text in one.untested if text not in common])
        for row, one in zip(rows, answers, strict=True)
    ]
    beside = {task: references(rows, task) for task in TASKS}
    found = {
        "title": title,
        "whose": f"{title}: {len(rows)} runs" if several else f"{title}: {rows[0].run.folder.name}",
        "stays": not export and not all(row.public for row in rows),
        "question": QUESTION,
        "lead": _lead(answers),
        "tones": TONES,
        "ways": ways,
        "untested": common,
        "shown": [way for way in ways if way.pictures],
        "heads": HEADS,
        "beside": _beside(beside),
        "references": any(beside.values()),
        "differences": differences(rows),
        "forests": utility_forests(rows),
        "frontiers": frontiers(rows) if len({row.cells["epsilon"].value for row in rows} - {None}) > 1 else [],
        "subgroups": [chart for task in TASKS for chart in group_forests(rows, task)],
        "missing_groups": _missing_groups(rows),
        "without_ratio": [text for task in TASKS for text in groups_without_ratio(rows, task)],
        "published": published,
        "published_heads": PUBLISHED_HEADS,
        "published_rows": [] if published is None else published_rows(published, rows),
        "limits": [NOT_PRIVATE_OUTPUT, *LIMITS],
        "reasons": reasons(rows, damaged=not export),  # a damaged file is named with its path
        "columns": shown_columns(rows),
        "column_heads": {name: head.strip() for name, head in COLUMNS.items()},
        "side_by_side": SIDE_BY_SIDE,
        "words": Words(),
        "notes": NOTES,
        "style": style(),
    }
    return templates().get_template("report.html").render(found, sections=_sections(found))


def _lead(answers: Sequence[Answer]) -> str:
    """How many of the rows came to which end."""
    counted = Counter(one.tone for one in answers)
    said: dict[Tone, str] = {"yes": "passed the tests", "open": "not decided", "no": "must not be shared"}
    told = [f"{counted[tone]} {words}" for tone, words in said.items() if counted[tone]]
    return f"{len(answers)} ways to make them were measured: {', '.join(told)}."


def _beside(found: Mapping[str, Sequence[Reference]]) -> list[dict[str, Any]]:
    """The references as lines of the short table."""
    names = {one.name: one.term for of in found.values() for one in of}
    texts = {(one.name, task): share_of_real(one.score) for task, of in found.items() for one in of}
    return [
        {
            "name": name,
            "term": term,
            "cells": dict.fromkeys(HEADS, "") | {task: texts.get((name, task), "") for task in TASKS},
        }
        for name, term in names.items()
    ]


def _missing_groups(rows: Sequence[Facts]) -> str:
    """Which kinds of groups the results do not hold."""
    measured = [task for task in TASKS if any(task in row.results for row in rows)]
    kinds = {group.kind for task in measured for group in groups(rows, task)}
    missing = [kind for kind in ("site", "class", "lesion size") if kind not in kinds]
    return f"By {' and '.join(missing)} nothing was measured." if missing else ""


def _sections(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    listed = [
        ("pictures", "Pictures", found["shown"]),
        ("table", "In one table", True),
        ("privacy-and-utility", "Privacy and utility", found["forests"] or found["frontiers"]),
        ("subgroups", "Subgroups", found["subgroups"] or found["without_ratio"]),
        ("findings", "Findings in full", True),
        ("published", "Published numbers", found["published"] and found["published"].figures),
        ("limits", "Limits", True),
        ("repeat", "How to repeat it", True),
        ("full-table", "Full table", True),
        ("glossary-h", "Words", True),
    ]
    return [(anchor, text) for anchor, text, there in listed if there]


def _versions(row: Facts) -> list[str]:
    """Of what measured last; results name neither the machine nor the user."""
    made = next((dict(result.environment) for result in reversed(list(row.results.values()))), {})
    git = made.get("git") or {}
    changed = " with changes" if git.get("changed") else ""
    found = [f"fedsynth {made['fedsynth']}"] if "fedsynth" in made else []
    found += [f"commit {git['commit'][:12]}{changed}"] if git.get("commit") else []
    found += [f"Python {made['python']}"] if "python" in made else []
    return [*found, *(f"{name} {version}" for name, version in made.get("packages", {}).items())]


def _without_reasons(row: Facts) -> Facts:
    """What a step said when it failed may name paths and patients."""
    failed = dict.fromkeys(row.failed, "")
    return unfinished_facts(row.run.folder, failed) if row.unfinished else replace(row, failed=failed)
