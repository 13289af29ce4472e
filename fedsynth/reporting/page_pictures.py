"""Which pictures a page may show: on one that leaves, generated images where the tests passed, and never patients."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsynth.reporting.answer import answer
from fedsynth.reporting.summary import Facts

SHEET = "synthetic.png"
WITHHELD = "No picture: what a generator made is shown outside only where the tests passed, as in the answer above."
REAL_MAPS = "No picture: this generator was trained with --pairing, and what it draws begins with real cases."


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image as a data address, what it shows, and its title where it has to be opened first."""

    data: str
    text: str
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Those shown at once, the nearest pairs, and why there are none where they are `withheld`."""

    open: Sequence[Picture] = ()
    pairs: Sequence[Picture] = ()
    withheld: str = ""

    def __bool__(self) -> bool:
        return bool(self.open or self.pairs or self.withheld)


def pictures_of(row: Facts, *, export: bool) -> Pictures:
    """Real images beside generated ones, and nearest pairs, only where patients may be shown or nobody is a patient."""
    run = row.run
    made = [run.samples / SHEET, *([] if export else sorted(run.samples.glob("step-*.png"))[-1:])]
    source = ", from images or label maps of real cases" if begins_with_real_cases(row.settings) else ""
    text = f"{run.folder.name}: made by the generator{source}."
    sheets = [_picture(path, text) for path in made if path.is_file()][:1]
    if export and begins_with_real_cases(row.settings) and not row.public:
        return Pictures(withheld=REAL_MAPS)
    if export:
        return Pictures(open=sheets) if row.public or answer(row).tone == "yes" else Pictures(withheld=WITHHELD)
    paths = [run.samples / "real-and-synthetic.png", *sorted(run.folder.glob("sites/*/real-and-synthetic.png"))]
    beside = [
        _picture(path, f"{run.folder.name}: generated and real images side by side.")
        for path in paths
        if path.is_file()
    ]
    whose = "phantoms" if row.public else "patients"
    pairs = []
    for path in sorted(run.folder.glob("sites/*/memorization/pairs.png")):
        where = path.parent.parent.name
        title = f"Nearest pairs at {where}: shows {whose}"
        pairs.append(
            _picture(
                path, f"{run.folder.name}: synthetic images at {where} beside the {whose} they come nearest to.", title
            )
        )
    return Pictures(open=beside or sheets, pairs=pairs)


def begins_with_real_cases(settings: Mapping[str, Any]) -> bool:
    """Whether sheets are drawn from images or label maps of members or reference patients, and may show these."""
    return bool(settings.get("pairing"))


def _picture(path: Path, text: str, title: str = "") -> Picture:
    data = base64.b64encode(path.read_bytes()).decode()
    return Picture(data=f"data:image/png;base64,{data}", text=text, title=title)
