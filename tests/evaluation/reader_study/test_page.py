"""The sheet: who is shown, that coins decide, and that nothing on the page tells what an image is."""

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from fedsynth.errors import FedSynthError
from fedsynth.evaluation.evidence import without_masks
from fedsynth.evaluation.reader_study.answer_key import KEY, draw_key, load_key, tumour_of
from fedsynth.evaluation.reader_study.page import sheet_page
from tests.evaluation.reader_study.sets import real_and_synthetic
from tests.training.tiny import tiny_set

PICTURE = re.compile(r"data:image/png;base64,([A-Za-z0-9+/=]+)")


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.links, self.radios, self.alts = [], {}, []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.links += [given[name] for name in ("src", "href", "action") if name in given]
        if tag == "img":
            self.alts.append(given["alt"])
        if given.get("type") == "radio":
            self.radios.setdefault(given["name"], []).append(given["value"])


def read(page):
    parser = Page()
    parser.feed(page)
    return parser


def test_holdout_patients_are_shown_once_each_and_members_never():
    real, made = real_and_synthetic()
    shown = draw_key(real, made, count=6).shown
    people = [one.patient for one in shown if one.kind == "real"]
    assert len(set(people)) == len(people)
    assert {int(name[1:]) for name in people} <= set(range(6, 12))
    rows = [one.row for one in shown if one.kind == "synthetic"]
    assert len(set(rows)) == len(rows)
    asked = draw_key(real, made, count=12, roles=("holdout", "member"))
    assert {one.patient for one in asked.shown} & {f"p{i}" for i in range(6)}


def test_a_coin_decides_of_every_place():
    """720 coins: fewer than 285 or more than 435 real ones have a chance below 1e-7, and the seeds are fixed."""
    real, made = real_and_synthetic(patients=24, slices=1)
    kinds = np.array([[one.kind == "real" for one in draw_key(real, made, count=12, seed=s).shown] for s in range(60)])
    assert 285 < kinds.sum() < 435
    assert kinds.any(0).all()
    assert not kinds.all(0).any()
    again = [one.kind == "real" for one in draw_key(real, made, count=12, seed=3).shown]
    assert again == kinds[3].tolist()


def test_other_images_have_other_coins_under_the_same_seed():
    real, made = real_and_synthetic(patients=40, slices=1)
    other = replace(made, images=255 - np.asarray(made.images))
    coins = [[one.kind for one in draw_key(real, images, count=20).shown] for images in (made, other)]
    assert coins[0] != coins[1]


@pytest.mark.parametrize("lacking", ["neither", "real", "synthetic", "labels"])
def test_nothing_on_the_page_tells_what_an_image_is(lacking):
    """Nor that one of the sets has no masks, or no label that is a tumour's: all images are asked the same."""
    real, made = real_and_synthetic(patients=24, slices=1)
    real = without_masks(real) if lacking == "real" else real
    made = without_masks(made) if lacking == "synthetic" else made
    if lacking == "labels":
        made = replace(made, header=replace(made.header, mask_labels=("background", "white")))
    key = draw_key(real, made, count=12)
    page = sheet_page(real, made, key)
    for one in key.shown:
        assert one.case not in page
    assert not re.search(r"\b(p\d+|holdout|member|members)\b|real-c|made-c", page)
    found = read(page)
    assert all(link.startswith("data:") for link in found.links)
    assert "http:" not in page
    assert "https:" not in page
    blocks = re.findall(r'<section id="image-\d+".*?</section>', page, re.DOTALL)
    shapes = set()
    for block, one in zip(blocks, key.shown, strict=True):
        bare = re.sub(rf"(?<=-){one.number}(?=\")|(?<=mage ){one.number}\b", "N", PICTURE.sub("", block))
        shapes.add(bare)
    assert len(shapes) == 1, "whatever an image is and whether its mask has a tumour"
    assert {one.kind for one in key.shown} == {"real", "synthetic"}
    assert "@" not in PICTURE.sub("", page).replace("@media", "")


def test_pictures_are_the_pixels_and_hold_no_word():
    real, made = real_and_synthetic()
    key = draw_key(real, made, count=6)
    files = [base64.b64decode(text) for text in PICTURE.findall(sheet_page(real, made, key))]
    assert len(files) == len(key.shown), "and no outline"
    assert all(set(re.findall(rb"[A-Za-z]{4}", data)) & {b"tEXt", b"iTXt", b"zTXt", b"eXIf"} == set() for data in files)
    first, images = key.shown[0], real if key.shown[0].kind == "real" else made
    picture = np.asarray(Image.open(BytesIO(files[0])))
    grown = picture.shape[0] // 8
    assert np.array_equal(picture[::grown, ::grown], np.asarray(images.images[first.row])[0])


def test_all_are_asked_the_same():
    real, made = real_and_synthetic(patients=40)
    key = draw_key(real, made, count=20)
    radios = read(sheet_page(real, made, key)).radios
    for one in key.shown:
        assert radios[f"kind-{one.number}"] == ["real", "synthetic"]
        assert radios[f"quality-{one.number}"] == ["1", "2", "3", "4", "5"]
        assert radios[f"tumour-{one.number}"] == ["yes", "no", "none"]
    assert {one.tumour for one in key.shown} == {True, False}
    labels = replace(made.header, mask_labels=("background", "white"))
    assert tumour_of(replace(made, header=labels), 1) is None
    assert tumour_of(made, 0) is None
    assert tumour_of(made, 1).any()


@pytest.mark.parametrize("masked", [True, False])
def test_volumes_are_shown_in_three_planes_through_the_tumour(masked):
    """Through the middle of all where only one set knows where its tumours are."""
    rng = np.random.default_rng(0)

    def volumes(images):
        header = replace(images.header, spacing_mm=(1.0, 1.0, 2.0))
        n = len(images)
        masks = np.zeros((n, 8, 8, 8), np.uint8)
        masks[:, 2, 3, 6] = 1
        return replace(images, header=header, images=rng.integers(0, 256, (n, 1, 8, 8, 8), dtype=np.uint8), masks=masks)

    real, made = map(volumes, real_and_synthetic(patients=8, slices=1))
    key = draw_key(real, made, count=4)
    shown = made if masked else without_masks(made)
    page = sheet_page(real, shown, key)
    found = read(page)
    assert len(found.alts) == 4 * 3
    first = key.shown[0]
    axial = np.asarray(Image.open(BytesIO(base64.b64decode(PICTURE.findall(page)[0]))))
    images = real if first.kind == "real" else made
    values = np.asarray(images.images[first.row, 0, :, :, 6 if masked else 4])
    assert sorted(np.unique(axial)) == sorted(np.unique(values)), (
        "the axial plane through the tumour, or the middle one"
    )
    assert {alt.split(", ")[-1] for alt in found.alts[:3]} == {"axial", "coronal", "sagittal"}


def test_the_key_comes_back_whole_or_not_at_all(tmp_path):
    key = draw_key(*real_and_synthetic(), count=6)
    key.save(tmp_path)
    assert load_key(tmp_path) == key
    (tmp_path / KEY).write_text("{")
    with pytest.raises(FedSynthError, match="damaged"):
        load_key(tmp_path)
    (tmp_path / KEY).unlink()
    with pytest.raises(FedSynthError, match="missing"):
        load_key(tmp_path)


def test_what_cannot_be_shown_is_refused():
    real, made = real_and_synthetic()
    with pytest.raises(FedSynthError, match="--count 6"):
        draw_key(real, made, count=7)
    assert len(draw_key(real, made).shown) == 6
    with pytest.raises(FedSynthError, match="two images"):
        draw_key(real, made, count=1)
    with pytest.raises(FedSynthError, match="holdout"):
        draw_key(tiny_set(), made, count=4)
    with pytest.raises(FedSynthError, match="channels"):
        draw_key(real, replace(made, header=replace(made.header, channels=("t2",))), count=4)
