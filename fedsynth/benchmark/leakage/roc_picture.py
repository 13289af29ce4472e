"""The ROC of membership attacks as a picture with a logarithmic axis of false positives, where harm to a few shows."""

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import stats

from fedsynth.benchmark.leakage.curves import RESOLVED_BY, Curve
from fedsynth.images.montage import COLOURS

WIDTH, HEIGHT = 960, 560
LEFT, TOP, BOTTOM, RIGHT = 70, 46, 58, 224
PAPER, INK, GREY = (255, 255, 255), (30, 30, 34), (120, 120, 126)
PALE, BAND = (232, 232, 236), (220, 225, 234)
DARKER = 0.72
BAND_POINTS = 300

Point = tuple[float, float]


def roc_picture(curves: Mapping[str, Curve], *, n_members: int, n_holdout: int, title: str) -> Image.Image:
    """One line per attack over the band that 95 % of guessing reach; left of the rule the holdout is too small."""
    page = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    draw = ImageDraw.Draw(page)
    lowest = 10.0 ** -max(1, int(np.ceil(np.log10(max(2, n_holdout)))))
    _draw_ground(draw, lowest)
    _draw_chance(draw, lowest, n_members, n_holdout)
    _draw_rule(draw, _x(min(1.0, RESOLVED_BY / n_holdout), lowest))
    for number, curve in enumerate(curves.values()):
        draw.line(_steps(curve, lowest), fill=_colour(number), width=2)
    _draw_legend(draw, list(curves))
    draw.text((LEFT, 14), title, fill=INK, font=_font(15))
    return page


def _draw_ground(draw: ImageDraw.ImageDraw, lowest: float) -> None:
    left, right = _x(lowest, lowest), _x(1, lowest)
    for power in range(round(np.log10(lowest)), 1):
        x = _x(10.0**power, lowest)
        draw.line([(x, _y(0)), (x, _y(1))], fill=PALE)
        draw.text((x, _y(0) + 8), f"{10.0**power:g}", fill=GREY, font=_font(12), anchor="ma")
    for share in np.linspace(0, 1, 6):
        draw.line([(left, _y(share)), (right, _y(share))], fill=PALE)
        draw.text((left - 8, _y(share)), f"{share:.1f}", fill=GREY, font=_font(12), anchor="rm")
    draw.rectangle((left, _y(1), right, _y(0)), outline=GREY)
    draw.text(
        ((left + right) / 2, HEIGHT - 26), "holdout patients taken for members", fill=INK, font=_font(13), anchor="ma"
    )
    sideways = Image.new("L", (220, 20), 0)
    ImageDraw.Draw(sideways).text((110, 2), "members recognised", fill=255, font=_font(13), anchor="ma")
    draw.bitmap((8, round((_y(0) + _y(1)) / 2) - 110), sideways.rotate(90, expand=True), fill=INK)


def _draw_chance(draw: ImageDraw.ImageDraw, lowest: float, n_members: int, n_holdout: int) -> None:
    """Of random scores, the members above the (k + 1)-th holdout patient are beta-binomially many."""
    k = np.unique(np.geomspace(1, n_holdout, BAND_POINTS).round().astype(int)) - 1
    bounds = [stats.betabinom.ppf(share, n_members, k + 1, n_holdout - k) / n_members for share in (0.025, 0.975)]
    rates = np.append(k / n_holdout, 1.0)
    low, high = (_steps(Curve(false_positive=rates, true_positive=np.append(of, 1.0)), lowest) for of in bounds)
    draw.polygon([*high, *reversed(low)], fill=BAND)


def _draw_rule(draw: ImageDraw.ImageDraw, x: float) -> None:
    """Where ten holdout patients are expected beyond the threshold."""
    for y in np.arange(_y(1), _y(0), 8):
        draw.line([(x, y), (x, y + 4)], fill=GREY)
    if x > LEFT + 190:
        draw.text((x - 6, _y(1) + 6), "too few holdout patients", fill=GREY, font=_font(12), anchor="ra")


def _draw_legend(draw: ImageDraw.ImageDraw, labels: list[str]) -> None:
    """At the right, with the band of guessing last."""
    left = WIDTH - RIGHT + 18
    for number, label in enumerate(labels):
        y = TOP + 12 + 22 * number
        draw.line([(left, y), (left + 24, y)], fill=_colour(number), width=3)
        draw.text((left + 32, y), label, fill=INK, font=_font(13), anchor="lm")
    y = TOP + 12 + 22 * len(labels)
    draw.rectangle((left, y - 6, left + 24, y + 6), fill=BAND)
    draw.text((left + 32, y), "95 % of guessing", fill=INK, font=_font(13), anchor="lm")


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
    fading = DARKER ** (1 + number // len(COLOURS))  # a second round of the same hues is darker still
    red, green, blue = (int(fading * part) for part in COLOURS[number % len(COLOURS)])
    return red, green, blue


def _font(size: int) -> "ImageFont.FreeTypeFont | ImageFont.ImageFont":
    return ImageFont.load_default(size)
