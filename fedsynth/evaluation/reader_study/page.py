"""The reader-study page: one page that works offline, on which a real and a synthetic image differ in their pixels
alone.

It is told which images to show. Nothing of the key may reach the page: no case, patient, site, class or origin.
"""

import base64
from html import escape
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from fedsynth.data import ImageSet
from fedsynth.data.contact_sheet import PLANES, tiles_of
from fedsynth.data.mask_anatomy import tumour_labels
from fedsynth.data.montage import Pixels
from fedsynth.evaluation.reader_study.answer_key import Key, Shown, tumour_of

PAGE = Path(__file__).with_name("sheet.html")
SHEET = "sheet.html"
STAYS = "The page shows patients: it stays at the hospital."


def sheet_page(real: ImageSet, synthetic: ImageSet, key: Key) -> str:
    """The page as text."""
    public = real.header.phantoms
    sets = {"real": real, "synthetic": synthetic}
    through = all(one.masks is not None and tumour_labels(one.header.mask_labels) for one in sets.values())
    items = "\n".join(_item(sets[one.kind], one, len(key.shown), through=through) for one in key.shown)
    given = {
        "SHEET": key.sheet,
        "COUNT": str(len(key.shown)),
        "WHOM": "a phantom, as a scanner would show it," if public else "a patient",
        "SIZE": " x ".join(map(str, real.size)),
        "KEEP": "" if public else STAYS,
        "ITEMS": items,
    }
    page = PAGE.read_text(encoding="utf-8")
    for name, value in given.items():
        page = page.replace(f"@{name}@", value if name == "ITEMS" else escape(value))
    return page


def _item(images: ImageSet, one: Shown, count: int, *, through: bool) -> str:
    """Every image is asked the same: a question for those alone whose mask has a tumour would tell the sets apart."""
    n = one.number
    asked = [
        _question(f"kind-{n}", "Real or synthetic?", {"real": "real", "synthetic": "synthetic"}),
        _question(f"quality-{n}", "Quality, 1 to 5", {str(mark): str(mark) for mark in range(1, 6)}),
        _question(f"tumour-{n}", "Is the tumour plausible?", {"yes": "yes", "no": "no", "none": "no tumour seen"}),
    ]
    rows = "".join(f'<div class="pictures">{"".join(row)}</div>' for row in _pictures(images, one, through=through))
    return (
        f'<section id="image-{n}" aria-labelledby="title-{n}"><h2 id="title-{n}">Image {n} of {count}</h2>'
        f"{rows}{''.join(asked)}</section>"
    )


def _question(name: str, text: str, choices: dict[str, str]) -> str:
    boxes = "".join(
        f'<label><input type="radio" name="{name}" value="{value}">{said}</label>' for value, said in choices.items()
    )
    return f"<fieldset><legend>{text}</legend>{boxes}</fieldset>"


def _pictures(images: ImageSet, one: Shown, *, through: bool) -> list[list[str]]:
    """Rows of pictures of the channels, one row for each plane: `through` the tumour, or the middle of every image.

    No tumour is outlined: an outline of one set alone, or of another hand, would tell which image is whose.
    """
    image, header = np.asarray(images.images[one.row]), images.header
    tumour = tumour_of(images, one.row) if through else None
    at = () if tumour is None or tumour.ndim == 2 else tuple(int(np.median(axis)) for axis in np.nonzero(tumour))
    names = list(header.channels)
    rows = []
    for place, tiles in enumerate(tiles_of(image, None, header, at)):
        plane = f", {PLANES[place]}" if header.dimensions == 3 else ""
        heads = names if len(tiles) == len(names) else ["colour"]
        rows.append(
            [_picture(tile, f"image {one.number}, {name}{plane}") for tile, name in zip(tiles, heads, strict=True)]
        )
    return rows


def _picture(tile: Pixels, what: str) -> str:
    """Pixels alone: a file of the same kind and without a word in it, whatever the image came from."""
    grey = bool((tile[..., :1] == tile).all())
    encoded = BytesIO()
    Image.fromarray(tile[..., 0] if grey else tile).save(encoded, "PNG", optimize=True)
    data = base64.b64encode(encoded.getvalue()).decode()
    height, width = tile.shape[:2]
    caption = what.partition(", ")[2]
    image = f'<img alt="{escape(what)}" width="{width}" height="{height}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"
