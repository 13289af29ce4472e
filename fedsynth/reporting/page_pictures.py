"""Which pictures a report page may show: generated images once they passed, patients never on a page that leaves."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedsynth.reporting.summary import Facts

WITHHELD = "No picture: what a generator made is shown outside only after the leakage test passed."


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
    made = [run.samples / "synthetic.png", *sorted(run.samples.glob("step-*.png"))[-1:]]
    sheets = [_picture(path, f"{run.folder.name}: made by the generator.") for path in made if path.is_file()][:1]
    if export:
        passed = row.public or row.cells["verdict"].text == "pass"
        return Pictures(open=sheets) if passed else Pictures(withheld=WITHHELD)
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


def _picture(path: Path, text: str, title: str = "") -> Picture:
    data = base64.b64encode(path.read_bytes()).decode()
    return Picture(data=f"data:image/png;base64,{data}", text=text, title=title)
