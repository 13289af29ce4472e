"""The page: well formed, self-contained, honest in its headline, and without patients when it leaves the site."""

import re
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fedsynth import atomic_files
from fedsynth.cli import app
from fedsynth.evaluation.score import Score
from fedsynth.reporting.figures import Point, curves, roc, scatter
from fedsynth.reporting.forest_plots import MARKS
from fedsynth.reporting.frontier import frontier_text, frontiers
from fedsynth.reporting.html_page import report_page
from fedsynth.reporting.page_templates import style
from fedsynth.reporting.page_terms import TERMS
from fedsynth.reporting.summary import read_facts
from tests.reporting.test_comparison import add_result, make_run
from tests.reporting.test_headline import leak, passing

VOID = {"meta", "link", "img", "polyline", "line"}


class Balanced(HTMLParser):
    """`links` are addresses outside figures, `ids` all identifiers, `tags` every element with its attributes."""

    def __init__(self):
        super().__init__()
        self.open, self.links, self.ids, self.tags = [], [], [], []

    def handle_starttag(self, tag, attrs):
        if "svg" not in self.open:
            self.links += [value for name, value in attrs if name in ("src", "href")]
            self.ids += [value for name, value in attrs if name == "id"]
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert tag in VOID or self.open.pop() == tag


def read(page):
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    return parser


def with_pictures(run):
    for path in (run.samples / "synthetic.png", run.site("a") / "real-and-synthetic.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(path)


def test_the_page_is_well_formed_and_asks_nothing_of_a_network(tmp_path):
    run = make_run(tmp_path / "a", epsilon=8.0)
    leak(run, "pass")
    with_pictures(run)
    page = report_page([read_facts(run.folder)])
    found = read(page)
    assert len(found.ids) == len(set(found.ids))
    for link in found.links:
        assert link.startswith("data:") or link.removeprefix("#") in found.ids, link
    assert sum(link.startswith("data:image/png") for link in found.links) == 1
    assert "default-src 'none'" in page
    assert "<script" not in page


def test_whoever_reads_by_ear_or_keyboard_gets_everything(tmp_path):
    """Language, landmarks, one first heading, heads of tables, words for pictures, focus for what scrolls."""
    rows = []
    for name in "abcd":
        run = make_run(tmp_path / name, epsilon=8.0)
        passing(run)
        with_pictures(run)
        rows.append(read_facts(run.folder))
    tags = read(report_page(rows)).tags
    names = [tag for tag, _ in tags]
    assert ("html", {"lang": "en"}) in tags
    assert [names.count(one) for one in ("h1", "main", "header", "footer", "nav")] == [1] * 5
    assert all(given.get("scope") in ("row", "col") for tag, given in tags if tag == "th")
    assert names.count("table") == names.count("caption") == 2
    assert all(given.get("alt") for tag, given in tags if tag == "img")
    assert all(given["role"] == "img" and given["aria-label"] for tag, given in tags if tag == "svg")
    assert all(given.get("tabindex") == "0" for tag, given in tags if tag == "pre" or given.get("role") == "region")
    assert all(given["aria-describedby"] for _, given in tags if given.get("class") == "term")


def test_every_word_is_defined_once_as_the_glossary_has_it(tmp_path):
    known = (Path(__file__).parents[2] / "docs" / "glossary.md").read_text(encoding="utf-8").lower()
    for term, meaning in TERMS.values():
        assert term.lower() in known, term
        assert meaning.endswith(".")
    interval = TERMS["interval"][1].lower().partition(";")[0]
    assert interval in known, "not what other patients could have given, which is an interval of prediction"
    assert "up to delta" in TERMS["epsilon"][1]
    run = make_run(tmp_path / "a")
    passing(run)
    page = report_page([read_facts(run.folder)])
    used = set(re.findall(r'href="#term-([a-z]+)"', page))
    assert used == set(re.findall(r'id="term-([a-z]+)"', page)) <= set(TERMS)
    notes = set(re.findall(r'href="#note-(\d)"', page))
    assert notes == set(re.findall(r'id="note-(\d)"', page))


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def test_every_colour_of_words_can_be_read():
    """WCAG 2.2, 1.4.3: 4.5 to 1 at least, dark on light and white on the marks."""
    named = dict(re.findall(r"--(\w+):(#[0-9a-f]{6})", style()))
    assert set(named) == {"ink", "soft", "line", "ground", "accent", "yes", "no", "open"}
    for name in ("ink", "soft", "accent", "yes", "no", "open"):
        for ground in ("#ffffff", named["ground"]):
            assert (luminance(ground) + 0.05) / (luminance(named[name]) + 0.05) >= 4.5, name
    for _, colour in MARKS.values():
        assert 1.05 / (luminance(colour) + 0.05) >= 4.5


def test_the_exported_page_shows_nobody_and_names_no_place(tmp_path):
    run = make_run(tmp_path / "a", images=str(tmp_path / "secret"))
    leak(run, "leak", 0.1)
    with_pictures(run)
    page = report_page([read_facts(run.folder)], export=True)
    assert "data:image/png" not in page
    assert str(tmp_path) not in page
    leak(run, "pass")
    assert "data:image/png" not in report_page([read_facts(run.folder)], export=True), "one test alone is not enough"
    passing(run)
    assert len(re.findall("data:image/png", report_page([read_facts(run.folder)], export=True))) == 1


def test_no_part_of_an_exported_page_names_a_patient_or_a_place(tmp_path):
    """What a run may hold of a patient is planted; the page that stays at the site shows that it would be seen."""
    run = make_run(tmp_path / "a", epsilon=8.0, images=str(tmp_path / "secret"))
    passing(run)
    copies = {"copies": [{"case": "made-1", "patient": "sub-Jane"}], "alike_patients": [["sub-Jane", "sub-Joe"]]}
    details = {
        "extraction": copies,
        "patients": {"by_site": {"clinic": ["sub-Jane"]}},
        "sentences": ["None is a copy."],
    }
    add_result(run, "memorization", {"copied_share": Score(value=0.0)}, verdict="pass", details=details)
    few = {"dice_ratio/synthetic": {"value": 0.123, "low": 0.1, "high": 0.2, "n": 1}}
    many = {"dice_ratio/synthetic": {"value": 0.9, "low": 0.8, "high": 1.0, "n": 20}}
    groups = {"subgroups": {"class": {"rare": few, "usual": many}}}
    ratio = {"dice_ratio/synthetic": Score(value=0.9, low=0.8, high=1.0)}
    add_result(run, "segmentation", {"dice/synthetic": Score(value=0.7, baseline=0.2), **ratio}, details=groups)
    atomic_files.write_text(tmp_path / "a-commands.txt", f"fedsynth simulate --data {tmp_path}/secret\n")
    pairs = run.site("clinic") / "memorization" / "pairs.png"
    with_pictures(run)
    pairs.parent.mkdir(parents=True)
    Image.new("L", (4, 4)).save(pairs)
    facts = read_facts(run.folder)
    kept, leaves = report_page([facts]), report_page([facts], export=True)
    assert "fedsynth simulate --data" in kept
    assert kept.count("data:image/png") == 2
    assert "Nearest pairs at clinic" in kept
    for text in ("sub-Jane", "sub-Joe", str(tmp_path), "fedsynth simulate", "Nearest pairs", "side by side"):
        assert text not in leaves, text
    assert leaves.count("data:image/png") == 1, "the generated images alone, which passed"
    for page in (kept, leaves):
        assert "usual" in page
        assert "rare" not in page, "one patient's number"


def test_several_runs_have_a_frontier(tmp_path):
    rows = [read_facts(make_run(tmp_path / name, epsilon=e).folder) for name, e in (("a", 8.0), ("b", 2.0))]
    page = report_page(rows)
    read(page)
    assert ">a</text>" in page
    assert ">b</text>" in page
    assert "epsilon per patient" in page


def test_a_run_without_a_guarantee_stands_beyond_the_axis(tmp_path):
    named = (("a", 8.0), ("b", 2.0), ("plain", None))
    rows = [read_facts(make_run(tmp_path / name, epsilon=e).folder) for name, e in named]
    (chart,) = frontiers(rows)
    at = {name: float(x) for x, name in re.findall(r'<text[^>]* x="([\d.]+)"[^>]*>(a|b|plain)</text>', chart.svg)}
    assert at["b"] < at["a"] < at["plain"]
    assert "no guarantee" in chart.svg
    assert frontiers(rows[:1]) == []
    assert frontiers([rows[2], rows[2]]) == []


def test_a_chart_is_a_file_of_its_own(tmp_path):
    rows = [read_facts(make_run(tmp_path / name, epsilon=e).folder) for name, e in (("a", 8.0), ("b", 2.0))]
    root = ElementTree.fromstring(frontiers(rows)[0].file())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert any("dcgan" in (text.text or "") for text in root.iter("{http://www.w3.org/2000/svg}text"))
    folders = [str(row.run.folder) for row in rows]
    picture = tmp_path / "frontier.svg"
    done = CliRunner().invoke(app, ["compare", *folders, "--by", "epsilon", "--picture", str(picture)])
    assert done.exit_code == 0, done.output
    assert picture.read_text() == frontiers(rows[::-1])[0].file()  # by epsilon: b comes first
    wrong = CliRunner().invoke(app, ["compare", *folders, "--picture", str(tmp_path / "frontier.png")])
    assert wrong.exit_code == 2
    alone = CliRunner().invoke(app, ["compare", folders[0], "--picture", str(picture)])
    assert alone.exit_code == 2
    assert "no frontier" in alone.stderr


def test_the_frontier_in_a_terminal(tmp_path):
    def row(name, epsilon, dice):
        run = make_run(tmp_path / name, epsilon=epsilon)
        score = Score(value=dice, low=dice - 0.1, high=dice + 0.1, control=0.8)
        add_result(run, "segmentation", {"dice/synthetic": score})
        return read_facts(run.folder)

    rows = [row("plain", None, 0.7), row("weak", 8.0, 0.6), row("strong", 2.0, 0.4)]
    head, *lines = frontier_text(rows).splitlines()
    assert "0.3" in head
    assert [line.split()[-1] for line in lines] == ["strong", "weak", "plain", "images"]
    assert [line.index("o", 12) for line in lines] == sorted(line.index("o", 12) for line in lines)
    assert lines[0][14:].startswith("-" * 8 + "o" + "-" * 8)
    assert frontier_text(rows[:1]) == ""


def test_figures_have_axes_and_leave_out_what_is_not_a_number():
    drawn = curves({"a": [(1, 1.0), (2, float("nan")), (3, 2.0)]}, x="round", y="loss")
    (line,) = re.findall(r'<path d="([^"]*)"[^>]*stroke: #0b6e99[^>]*stroke-linecap', drawn.svg)[:1]
    assert len(line.split("L")) == 2  # from the first point to the third
    assert {"round", "loss", "a"} <= set(re.findall(r">([^<>]+)</text>", drawn.svg))
    assert curves({"a": []}, x="round", y="loss") is None
    assert scatter({}, x="e", y="d") is None
    bare = scatter({"s": [Point(x=1, y=2, name="a")]}, x="e", y="d")
    whole = scatter({"s": [Point(x=1, y=2, low=1, high=3, name="a")]}, x="e", y="d")
    assert whole.svg.count("stroke: #0b6e99") == bare.svg.count("stroke: #0b6e99") + 1
    named = scatter({"<s>": [Point(x=1, y=2, name="<a> $b$")]}, x="e", y="d")
    for text in (named.figure(), named.file()):
        assert "&lt;a&gt; $b$" in text
        assert "&lt;s&gt;" in text
    assert curves({"a": [(1, 1.0)]}, x="round", y="loss").svg == curves({"a": [(1, 1.0)]}, x="round", y="loss").svg


@pytest.mark.parametrize("n_holdout", [4, 5000])
def test_roc_curves_are_drawn_for_few_and_for_many(n_holdout):
    false, true = np.array([0.0, 0.5, 1.0]), np.array([0.0, 1.0, 1.0])
    drawn = roc(dict.fromkeys("abc", (false, true)), n_members=9, n_holdout=n_holdout, resolved=0.1, title="many")
    picture = np.asarray(Image.open(BytesIO(drawn)).convert("RGB"))
    assert (picture == (0xDC, 0xE1, 0xEA)).all(axis=2).any()  # the band of guessing
    assert (picture == (0x58, 0x81, 0x57)).all(axis=2).any()  # the third curve, drawn last


def test_the_command_writes_the_page(tmp_path):
    run = make_run(tmp_path / "a")
    done = CliRunner().invoke(app, ["report", str(run.folder)])
    assert done.exit_code == 0, done.output
    assert run.report.is_file()
    assert CliRunner().invoke(app, ["report", str(tmp_path / "nothing")]).exit_code == 2
