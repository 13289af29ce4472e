"""The ROC of membership attacks as a picture with a logarithmic axis of false positives, where harm to a few shows."""

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fedsynth.benchmark.leakage.curves import RESOLVED_BY, Curve
from fedsynth.images.montage import COLOURS

WIDTH, HEIGHT = 760, 560
LEFT, TOP, BOTTOM, RIGHT = 70, 46, 58, 24
PAPER, INK, GREY, PALE = (255, 255, 255), (30, 30, 34), (120, 120, 126), (232, 232, 236)
DARKER = 0.72

Point = tuple[float, float]


def roc_picture(curves: Mapping[str, Curve], *, n_holdout: int, title: str) -> Image.Image:
    """One line per attack over the dashed line of guessing; grey on the left is what the holdout cannot resolve."""
    page = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    draw = ImageDraw.Draw(page)
    lowest = 10.0 ** -max(1, int(np.ceil(np.log10(max(2, n_holdout)))))
    _draw_ground(draw, lowest, min(1.0, RESOLVED_BY / n_holdout))
    for number, curve in enumerate(curves.values()):
        draw.line(_steps(curve, lowest), fill=_colour(number), width=2)
    _draw_legend(draw, list(curves))
    draw.text((LEFT, 14), title, fill=INK, font=_font(15))
    return page


def _draw_ground(draw: ImageDraw.ImageDraw, lowest: float, resolved: float) -> None:
    left, right = _x(lowest, lowest), _x(1, lowest)
    draw.rectangle((left, _y(1), _x(resolved, lowest), _y(0)), fill=(245, 245, 247))
    for power in range(round(np.log10(lowest)), 1):
        x = _x(10.0**power, lowest)
        draw.line([(x, _y(0)), (x, _y(1))], fill=PALE)
        draw.text((x, _y(0) + 8), f"{10.0**power:g}", fill=GREY, font=_font(12), anchor="ma")
    for share in np.linspace(0, 1, 6):
        draw.line([(left, _y(share)), (right, _y(share))], fill=PALE)
        draw.text((left - 8, _y(share)), f"{share:.1f}", fill=GREY, font=_font(12), anchor="rm")
    draw.rectangle((left, _y(1), right, _y(0)), outline=GREY)
    rates = np.geomspace(lowest, 1, 120)
    points = [(_x(rate, lowest), _y(rate)) for rate in rates]
    for first in range(0, len(points) - 1, 2):
        draw.line(points[first : first + 2], fill=GREY, width=1)
    draw.text((left + 6, _y(1) + 6), "too few holdout patients to resolve", fill=GREY, font=_font(11))
    middle = (left + right) / 2
    draw.text((middle, HEIGHT - 26), "holdout patients taken for members", fill=INK, font=_font(13), anchor="ma")
    sideways = Image.new("L", (220, 20), 0)
    ImageDraw.Draw(sideways).text((110, 2), "members recognised", fill=255, font=_font(13), anchor="ma")
    draw.bitmap((8, round((_y(0) + _y(1)) / 2) - 110), sideways.rotate(90, expand=True), fill=INK)


def _draw_legend(draw: ImageDraw.ImageDraw, labels: list[str]) -> None:
    """Top left below the remark: an attack that works runs above it, one that does not far below."""
    for number, label in enumerate(labels):
        y = TOP + 30 + 17 * number
        draw.line([(LEFT + 10, y), (LEFT + 32, y)], fill=_colour(number), width=3)
        draw.text((LEFT + 40, y), label, fill=INK, font=_font(12), anchor="lm")


def _steps(curve: Curve, lowest: float) -> list[Point]:
    """As stairs: between two thresholds nothing is reached that the lower one does not reach."""
    points: list[Point] = []
    before = 0.0
    for rate, reached in zip(curve.false_positive, curve.true_positive, strict=True):
        x = _x(max(rate, lowest), lowest)
        points += [(x, _y(before)), (x, _y(reached))]
        before = float(reached)
    return points


def _x(rate: float, lowest: float) -> float:
    return float(LEFT + (WIDTH - LEFT - RIGHT) * (1 - np.log10(rate) / np.log10(lowest)))


def _y(share: float) -> float:
    return float(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share)


def _colour(number: int) -> tuple[int, int, int]:
    red, green, blue = (int(DARKER * part) for part in COLOURS[number % len(COLOURS)])
    return red, green, blue


def _font(size: int) -> "ImageFont.FreeTypeFont | ImageFont.ImageFont":
    return ImageFont.load_default(size)
