"""Arrays laid out as one picture: tiles side by side in captioned cells, cells in titled sections, a legend of labels.

It draws what it is given on a dark ground and knows nothing of image sets, patients or files.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]
"""Red, green and blue, shape (height, width, 3)."""
Colour = tuple[int, int, int]
Swatch = tuple[Colour, str, int]
"""One entry of the legend: colour, name and left edge."""

DARK, BRIGHT, DIM, WARNING = (18, 18, 20), (235, 235, 235), (160, 160, 165), (255, 176, 80)
COLOURS = (
    (255, 92, 92),
    (64, 200, 255),
    (255, 214, 64),
    (120, 230, 120),
    (214, 130, 255),
    (255, 150, 50),
    (110, 150, 255),
    (255, 150, 200),
)
SMALLEST_TILE, LARGEST_TILE = 96, 256
MARGIN, GAP, LINE = 14, 2, 15


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """One image: rows of tiles of one size, and lines of text below."""

    tiles: Sequence[Sequence[Pixels]]
    lines: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Section:
    """Cells under a title. `heads` names the tile columns of a cell."""

    title: str
    cells: Sequence[Cell]
    heads: Sequence[str] = ()


def montage(
    sections: Sequence[Section],
    *,
    title: str = "",
    note: str = "",
    legend: Sequence[str] = (),
    columns: int | None = None,
    width: int = 1400,
) -> Image.Image:
    """All sections below each other. `note` is set off from the title; `legend` names labels 1, 2, ... by colour.

    Cells stand `columns` in a row, or as many as `width` pixels hold.
    """
    cells = sorted((cell for section in sections for cell in section.cells), key=lambda cell: _cell_size(cell)[0])
    cell_width = _cell_size(cells[-1])[0] if cells else 0
    columns = columns or (cells_in_a_row(cells[-1], width) if cells else 1)
    columns = min(columns, max((len(section.cells) for section in sections), default=1))
    page_width = max(2 * MARGIN + columns * (cell_width + MARGIN) - MARGIN, 480)
    swatches = _wrapped_legend(legend, page_width)
    top = MARGIN + LINE * (bool(title) + bool(note) + len(swatches)) + 6
    heights = [_section_height(section, columns) for section in sections]
    page = Image.new("RGB", (page_width, top + sum(heights) + MARGIN), DARK)
    draw = ImageDraw.Draw(page)
    _draw_header(draw, title, note, swatches)
    for section, height in zip(sections, heights, strict=True):
        _draw_section(page, draw, section, top, columns, cell_width)
        top += height
    return page


def cells_in_a_row(cell: Cell, width: int = 1400) -> int:
    """How many cells of this size stand beside each other in a picture `width` pixels wide, at least one."""
    return max(1, (width - MARGIN) // (_cell_size(cell)[0] + MARGIN))


def as_tile(values: NDArray[np.generic], spacing_mm: Sequence[float] = (1.0, 1.0)) -> Pixels:
    """A grey (height, width) or colour (3, height, width) image in its own proportions, at a size that can be read.

    uint8, or floating point in [0, 1]. Small images grow by a whole number, nearest neighbour, so that pixels stay
    what they are; large ones shrink by averaging.
    """
    levels = values if values.dtype == np.uint8 else np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)
    picture = Image.fromarray(levels if levels.ndim == 2 else np.moveaxis(levels, 0, -1))
    shown = _tile_size(levels.shape[-2:], spacing_mm)
    how = Image.Resampling.NEAREST if shown[0] >= picture.width else Image.Resampling.BOX
    return np.asarray(picture.resize(shown, how).convert("RGB"))


def with_labels(tile: Pixels, mask: NDArray[np.uint8]) -> Pixels:
    """The tile with each label of its mask (height, width) tinted and outlined in the label's colour."""
    size = (tile.shape[1], tile.shape[0])
    labels = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    colours = np.array([(0, 0, 0), *[COLOURS[i % len(COLOURS)] for i in range(255)]], np.float32)[labels]
    weight = np.where(_outline(labels), 0.95, 0.28) * (labels > 0)
    mixed = tile * (1 - weight[..., None]) + colours * weight[..., None]
    return np.asarray(mixed.round(), np.uint8)


def _outline(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Labelled pixels with another label above, below, left or right."""
    padded = np.pad(labels, 1)
    around = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    outline: NDArray[np.bool_] = np.any([labels != other for other in around], axis=0)
    return outline


def _tile_size(size: tuple[int, ...], spacing_mm: Sequence[float]) -> tuple[int, int]:
    """Width and height in pixels of the sheet."""
    unit = min(spacing_mm)
    height, width = (n * step / unit for n, step in zip(size, spacing_mm, strict=True))
    longest = max(height, width)
    factor = -(-SMALLEST_TILE // longest) if longest <= LARGEST_TILE else LARGEST_TILE / longest
    return max(1, round(width * factor)), max(1, round(height * factor))


def _cell_size(cell: Cell) -> tuple[int, int]:
    """Width and height, without the heads and lines of text."""
    width = max(sum(tile.shape[1] + GAP for tile in row) for row in cell.tiles) - GAP
    height = sum(max(tile.shape[0] for tile in row) + GAP for row in cell.tiles) - GAP
    return width, height


def _row_heights(section: Section, columns: int) -> list[int]:
    rows = [section.cells[i : i + columns] for i in range(0, len(section.cells), columns)]
    return [max(_cell_size(cell)[1] + LINE * len(cell.lines) for cell in row) + 10 for row in rows]


def _section_height(section: Section, columns: int) -> int:
    return LINE * (bool(section.title) + bool(section.heads)) + 10 + sum(_row_heights(section, columns))


def _draw_section(
    page: Image.Image, draw: ImageDraw.ImageDraw, section: Section, top: int, columns: int, cell_width: int
) -> None:
    if section.title:
        _text(draw, (MARGIN, top), section.title, BRIGHT, 13)
        top += LINE + 2
    lefts = [MARGIN + i * (cell_width + MARGIN) for i in range(columns)]
    if section.heads:
        for left, cell in zip(lefts, section.cells, strict=False):
            _draw_heads(draw, section.heads, cell, left, top)
        top += LINE
    for row, height in enumerate(_row_heights(section, columns)):
        for left, cell in zip(lefts, section.cells[row * columns : (row + 1) * columns], strict=False):
            _draw_cell(page, draw, cell, left, top)
        top += height


def _draw_heads(draw: ImageDraw.ImageDraw, heads: Sequence[str], cell: Cell, left: int, top: int) -> None:
    for head, tile in zip(heads, cell.tiles[0], strict=False):
        _text(draw, (left, top), head, DIM, 11, tile.shape[1])
        left += tile.shape[1] + GAP


def _draw_cell(page: Image.Image, draw: ImageDraw.ImageDraw, cell: Cell, left: int, top: int) -> None:
    width = _cell_size(cell)[0]
    for row in cell.tiles:
        across = left
        for tile in row:
            page.paste(Image.fromarray(tile), (across, top))
            across += tile.shape[1] + GAP
        top += max(tile.shape[0] for tile in row) + GAP
    for i, line in enumerate(cell.lines):
        _text(draw, (left, top + i * LINE), line, BRIGHT if i == 0 else DIM, 11, width)


def _wrapped_legend(legend: Sequence[str], width: int) -> list[list[Swatch]]:
    lines: list[list[Swatch]] = []
    left = width
    for number, name in enumerate(map(_plain, legend)):
        needed = 28 + round(_font(11).getlength(name))
        if left + needed > width - MARGIN:
            lines.append([])
            left = MARGIN
        lines[-1].append((COLOURS[number % len(COLOURS)], name, left))
        left += needed
    return lines


def _draw_header(draw: ImageDraw.ImageDraw, title: str, note: str, legend: list[list[Swatch]]) -> None:
    top = MARGIN - 4
    if title:
        _text(draw, (MARGIN, top), title, BRIGHT, 14)
        top += LINE + 2
    if note:
        _text(draw, (MARGIN, top), note, WARNING, 12)
        top += LINE
    for line in legend:
        for colour, name, left in line:
            draw.rectangle((left, top + 4, left + 9, top + 13), fill=colour)
            _text(draw, (left + 14, top), name, DIM, 11)
        top += LINE


def _text(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    colour: Colour,
    size: int,
    width: int | None = None,
) -> None:
    """One line, cut with dots where it is wider than `width`."""
    font, line = _font(size), _plain(text)
    kept = len(line)
    while width is not None and kept > 1 and font.getlength(line) > width:
        kept -= 1
        line = _plain(text)[:kept].rstrip() + ".."
    draw.text(place, line, fill=colour, font=font)


def _plain(text: str) -> str:
    return " ".join(text.split())


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
