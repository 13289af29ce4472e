"""What readers answered, read from the files that the sheet saves and checked against its key.

Spreadsheets may have been at them: a byte order mark, semicolons and other line ends are no errors.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedsynth.errors import ConfigError, nearest
from fedsynth.evaluation.reader_study.answer_key import Key

COLUMNS = ("sheet", "reader", "image", "kind", "quality", "tumour")
WORDS: Mapping[str, Mapping[str, float]] = {
    "kind": {"real": 1.0, "synthetic": 0.0},
    "quality": {str(mark): float(mark) for mark in range(1, 6)},
    "tumour": {"yes": 1.0, "no": 0.0, "none": -1.0},
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """One reader's, in the order of the key; NaN for no answer. `called_real`, `seen` and `plausible` are 0 or 1.

    `seen` is whether the reader saw a tumour, and `plausible` is known only where he did.
    """

    reader: str
    called_real: NDArray[np.float64]
    quality: NDArray[np.float64]
    seen: NDArray[np.float64]
    plausible: NDArray[np.float64]


def read_all(paths: Sequence[Path], key: Key) -> list[Answers]:
    """Every reader's answers; two files of one reader are refused."""
    found = [read_answers(path, key) for path in paths]
    names = [one.reader for one in found]
    for name, path in zip(names, paths, strict=True):
        if names.count(name) > 1:
            remedy = "give each reader once, under a name of his own"
            raise ConfigError("two files are of one reader", file=path, value=name, remedy=remedy)
    return found


def read_answers(path: Path, key: Key) -> Answers:
    """One file; the reader is called as the file where it names nobody."""
    rows = _rows(path)
    number_of = {str(one.number): place for place, one in enumerate(key.shown)}
    table = {what: np.full(len(key.shown), np.nan) for what in WORDS}
    readers, seen = set(), set()
    for line, row in enumerate(rows, start=2):
        image = row["image"]
        if row["sheet"] != key.sheet:
            problem = f"the answers are to another sheet than the key, {key.sheet!r}"
            raise ConfigError(problem, file=path, row=line, value=row["sheet"], remedy="give the folder of that sheet")
        if image not in number_of:
            remedy = f"the sheet has images 1 to {len(key.shown)}"
            raise ConfigError("the sheet has no such image", file=path, row=line, value=image, remedy=remedy)
        if image in seen:
            raise ConfigError("the image is answered twice", file=path, row=line, value=image)
        seen.add(image)
        readers.add(row["reader"])
        for what, words in WORDS.items():
            if row[what]:
                table[what][number_of[image]] = _value(row[what], words, what, path, line)
    if len(readers) > 1:
        raise ConfigError("the file is of several readers", file=path, value=sorted(readers), remedy="one file each")
    if not np.isfinite(table["kind"]).any():
        raise ConfigError("the file holds no answer to 'real or synthetic'", file=path, remedy="ask the reader again")
    tumour = table["tumour"]
    return Answers(
        reader=(readers.pop() if readers else "") or path.stem,
        called_real=table["kind"],
        quality=table["quality"],
        seen=np.where(np.isfinite(tumour), tumour >= 0, np.nan),
        plausible=np.where(tumour >= 0, tumour, np.nan),
    )


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError("there is no such file", file=path) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("is not a table of answers", file=path, remedy="give what the sheet saved") from error
    lines = text.splitlines()
    head = lines[0] if lines else ""
    rows = list(csv.reader(lines, delimiter=";" if head.count(";") > head.count(",") else ","))
    columns = [name.strip() for name in rows[0]] if rows else []
    for name in COLUMNS:
        if name not in columns:
            remedy = nearest(name, columns) if columns else "give what the sheet saved"
            raise ConfigError(f"the column {name!r} is missing", file=path, remedy=remedy)
    read = []
    for line, cells in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(columns):
            problem = f"the row has {len(cells)} cells and the first line names {len(columns)} columns"
            raise ConfigError(problem, file=path, row=line)
        read.append(dict(zip(columns, (cell.strip() for cell in cells), strict=True)))
    return read


def _value(word: str, words: Mapping[str, float], what: str, path: Path, line: int) -> float:
    if word.lower() not in words:
        remedy = f"{', '.join(words)} or nothing"
        raise ConfigError(f"the column {what!r} has no such answer", file=path, row=line, value=word, remedy=remedy)
    return words[word.lower()]
