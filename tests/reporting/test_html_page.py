"""The page: well formed, self-contained, honest in its headline, and without patients when it leaves the site."""

import re
from dataclasses import replace
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
from fedsynth.evaluation.score import Score, load_result
from fedsynth.reporting.answer import answer
from fedsynth.reporting.comparison import shown_columns
from fedsynth.reporting.figures import Point, curves, roc, scatter
from fedsynth.reporting.forest_plots import MARKS
from fedsynth.reporting.frontier import frontier_text, frontiers
from fedsynth.reporting.html_page import report_page
from fedsynth.reporting.page_templates import style
from fedsynth.reporting.page_terms import TERMS
from fedsynth.reporting.summary import read_facts
from tests.reporting.test_comparison import add_result, make_run

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


def leak(run, verdict, value=0.0):
    scores = {"copied_share": Score(value=value), "minimal_detectable_share": Score(value=0.005)}
    add_result(run, "memorization", scores, verdict=verdict)


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


@pytest.mark.parametrize(
    ("verdict", "tone", "said"),
    [
        ("pass", "yes", "no copies"),
        ("leak", "no", "copies"),
        ("depends", "open", "depend"),
        ("invalid", "open", "Unknown"),
    ],
)
def test_the_headline_says_no_more_than_the_verdict(tmp_path, verdict, tone, said):
    run = make_run(tmp_path / "a")
    passing(run)
    leak(run, verdict)
    found = answer(read_facts(run.folder))
    assert found.tone == tone
    assert said in found.headline
    assert any("no guarantee" in sentence for sentence in found.sentences)


def test_members_who_can_be_distinguished_stand_in_the_headline(tmp_path):
    run = make_run(tmp_path / "a")
    passing(run)
    score = {"discriminator": Score(value=0.76, low=0.68, high=0.83)}
    add_result(run, "membership", score, verdict="leak", details={"strongest": "discriminator"})
    found = answer(read_facts(run.folder))
    assert found.tone == "no", "as at the release gate"
    assert "can be told from others" in found.headline
    told = " ".join(found.sentences)
    assert "0.76" in told
    assert "the server has them" in told
    add_result(run, "membership", score, verdict="pass", details={"strongest": "distance@pixels"})
    assert answer(read_facts(run.folder)).tone == "yes"


def passing(run):
    leak(run, "pass")
    add_result(
        run, "membership", {"discriminator": Score(value=0.5)}, verdict="pass", details={"strongest": "discriminator"}
    )
    learned(run, "segmentation", 0.7, 0.6, 0.2)


def learned(run, name, value, low, baseline, **more):
    measure = {"segmentation": "dice", "classification": "accuracy"}[name]
    score = Score(value=value, low=low, high=2 * value - low, baseline=baseline, control=0.8)
    ratio = Score(value=value / 0.8)
    add_result(run, name, {f"{measure}/synthetic": score, f"{measure}_ratio/synthetic": ratio, **more})


@pytest.mark.parametrize("membership", [None, "inconclusive", "invalid"])
def test_no_green_while_membership_is_open(tmp_path, membership):
    run = make_run(tmp_path / "a")
    leak(run, "pass")
    if membership is not None:
        add_result(run, "membership", {"discriminator": Score(value=0.5)}, verdict=membership)
    found = answer(read_facts(run.folder))
    assert found.tone == "open"
    assert "not known" in found.headline


def test_no_green_on_tests_alone(tmp_path):
    run = make_run(tmp_path / "a")
    passing(run)
    assert answer(read_facts(run.folder)).tone == "yes"
    run.benchmark("segmentation").unlink()
    found = answer(read_facts(run.folder))
    assert found.tone == "open"
    assert "not measured" in found.headline


@pytest.mark.parametrize(("low", "tone"), [(0.41, "yes"), (0.4, "open"), (0.2, "open")])
def test_an_interval_that_holds_its_baseline_is_no_use(tmp_path, low, tone):
    run = make_run(tmp_path / "a")
    passing(run)
    run.benchmark("segmentation").unlink()
    learned(run, "classification", 0.45, low, 0.4)
    facts = read_facts(run.folder)
    found = answer(facts)
    assert found.tone == tone
    assert (f"({0.4:g}), no better than a trivial baseline" in facts.cells["accuracy"].text) == (tone == "open")
    assert ("of no use that was measured: classification" in found.headline) == (tone == "open")
    learned(run, "segmentation", 0.7, 0.6, 0.2)
    found = answer(read_facts(run.folder))
    said = "No copies were found, but classification is no better than a trivial baseline"
    assert (found.headline == said) == (tone == "open"), "one of two works"


def test_one_noise_picture_six_hundred_times_is_no_yes(tmp_path):
    """What a private run of too few steps gave: a Dice above its baseline, and false positives everywhere."""
    run = make_run(tmp_path / "a", epsilon=10.0)
    passing(run)
    learned(run, "segmentation", 0.448, 0.409, 0.174)
    assert answer(read_facts(run.folder)).tone == "yes"
    more = {
        "brats_slice_dice/synthetic": Score(value=0.5, low=0.4, baseline=0.55),
        "fp_area/synthetic": Score(value=31.0, control=0.8),
    }
    learned(run, "segmentation", 0.448, 0.409, 0.174, **more)
    facts = read_facts(run.folder)
    assert facts.cells["fp_area"].text == "31 (0.8)"
    assert facts.cells["slice_dice"].text == "0.5 (0.55), no better than a trivial baseline"
    assert "where images without a lesion count" in answer(facts).headline
    assert any("31 pixels in an image without a lesion (0.8 after" in sentence for sentence in answer(facts).sentences)
    learned(run, "segmentation", 0.448, 0.409, 0.174)
    same = {"ms_ssim": Score(value=0.992, control=0.673), "recall/filters": Score(value=0.0, control=0.735)}
    add_result(run, "fidelity", {**same, "kid/filters": Score(value=133.0, low=132.0, high=134.0, control=-0.06)})
    facts = read_facts(run.folder)
    found = answer(facts)
    assert found.tone == "open"
    assert "one image over and over" in found.headline
    assert any("0.735" in sentence for sentence in found.sentences)
    assert facts.cells["kid"].text == "133 [132, 134] (-0.06)"
    page = report_page([facts])
    assert "KID, own filters (real)" in page
    assert 'class="answer yes"' not in page
    add_result(run, "fidelity", {"ms_ssim": Score(value=0.836, control=0.673)})
    assert answer(read_facts(run.folder)).tone == "yes", "less varied than real images, and no single picture"


def test_public_images_and_collapsed_trainings_are_told(tmp_path):
    run = make_run(tmp_path / "a")
    passing(run)
    trainings = {"synthetic": {"steps": [50], "repeated": 2, "collapsed": 1}, "real": {"repeated": 0, "collapsed": 0}}
    gains = {"over_public": {"synthetic": "patients added 0.1"}, "over_placebo": {"synthetic": "no gain shown over it"}}
    details = gains | {"trainings": trainings}
    scores = {"dice/synthetic": Score(value=0.7), "dice_over_public/synthetic": Score(value=0.0, low=-0.1, high=0.1)}
    add_result(run, "segmentation", scores, details=details)
    facts = read_facts(run.folder)
    told = answer(facts).sentences
    gave = "What patients gave, segmentation, synthetic: patients added 0.1 over public images; no gain shown over it."
    assert told.index(gave) == len(answer(facts).parts[0].sentences), "it stands beside the answer on leakage"
    assert any("segmentation, synthetic: 2 collapsed" in sentence and "1 again" in sentence for sentence in told)
    assert facts.cells["over_public"].text == "0 [-0.1, 0.1]"
    assert "over_public" in shown_columns([facts])
    assert "over_public" not in shown_columns([read_facts(make_run(tmp_path / "b").folder)])


def first_screen(found):
    return {part.question: part.brief for part in found.parts}


def test_the_first_screen_tells_use_guarantee_and_what_nobody_tested(tmp_path):
    run = make_run(tmp_path / "a", epsilon=8.0)
    passing(run)
    run.benchmark("segmentation").unlink()
    learned(run, "classification", 0.7, 0.6, 0.4)
    ratio = {"dice_ratio/synthetic": Score(value=0.91, low=0.88, high=0.94)}
    learned(run, "segmentation", 0.7, 0.6, 0.2, **ratio)
    found = answer(read_facts(run.folder))
    assert first_screen(found)["Use"] == (
        "Segmentation 91 % (88 to 94 %), classification 87 % of what real images teach"
    )
    assert first_screen(found)["Guarantee"] == "Epsilon 8 at delta 1e-05 per patient in this run"
    assert "reading by physicians" in found.untested
    assert "copies of patients" not in found.untested
    assert not any("other trainings" in what for what in found.untested)
    add_result(run, "membership", {"distance": Score(value=0.5)}, verdict="inconclusive")
    kept = load_result(run.benchmark("segmentation"))
    replace(kept, settings={**kept.settings, "seeds": 1}).save(run.benchmark("segmentation"))
    again = answer(read_facts(run.folder)).untested
    assert again[0] == "whether members can be told from others (inconclusive)"
    assert "other trainings (one of each)" in again
    learned(run, "classification", 0.45, 0.3, 0.4)
    assert first_screen(answer(read_facts(run.folder)))["Use"].endswith("; not for classification")
    run.benchmark("segmentation").unlink()
    use = first_screen(answer(read_facts(run.folder)))["Use"]
    assert use == "None that was measured", "the headline says why"
    run.benchmark("memorization").unlink()
    use = first_screen(answer(read_facts(run.folder)))["Use"]
    assert use == "None that was measured: classification is no better than a trivial baseline"


def test_what_patients_added_is_a_verdict_on_the_first_screen_and_a_number_below(tmp_path):
    run = make_run(tmp_path / "a", epsilon=8.0)
    few = "not known from 1 training of each arm: 0.03 beside images not derived from members (public)"
    add_result(run, "segmentation", {"dice/synthetic": Score(value=0.7)}, details={"over_public": {"synthetic": few}})
    found = answer(read_facts(run.folder))
    assert first_screen(found)["Patients added"] == "Segmentation: not known from 1 training of each arm"
    assert any("0.03 beside images" in sentence for sentence in found.sentences)


def test_without_a_test_nothing_is_promised(tmp_path):
    found = answer(read_facts(make_run(tmp_path / "a").folder))
    assert found.tone == "open"
    assert "not run" in found.headline


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
