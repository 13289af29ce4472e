"""Pages as a person sees them, in headless Chromium: nothing in the console, nothing asked for, nothing too wide."""

import json

import pytest
from PIL import Image

from fedsynth.evaluation.reader_study.answer_key import draw_key
from fedsynth.evaluation.reader_study.page import sheet_page
from fedsynth.evaluation.score import Score
from fedsynth.experiments.suite_config import Figure, Published
from fedsynth.reporting.html_page import report_page
from fedsynth.reporting.summary import read_facts
from fedsynth.reporting.watch_page import watch_page
from tests.evaluation.reader_study.sets import real_and_synthetic
from tests.reporting.browser import browser, find_axe, find_browser
from tests.reporting.test_comparison import add_result, make_run

PROGRAM, AXE = find_browser(), find_axe()
WIDTHS = (1280, 390)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium on PATH, and $FEDSYNTH_CHROMIUM names none"),
]


@pytest.fixture
def tab(tmp_path):
    with browser(PROGRAM, tmp_path / "profile") as found:
        yield found


def whole_report(folder, runs):
    """Every section that a page can have, with words as long as they get."""
    rows = []
    for number in range(runs):
        run = make_run(folder / f"generator-{number}_epsilon-8.0_seed-{number}", epsilon=None if number else 8.0)
        scores = {"copied_share": Score(value=0.0, high=0.006), "minimal_detectable_share": Score(value=0.005)}
        add_result(run, "memorization", scores, verdict="pass")
        taught = {"dice/synthetic": Score(value=0.7, low=0.6, high=0.8, baseline=0.2, control=0.8)}
        taught |= {"dice_ratio/synthetic": Score(value=0.9, low=0.8, high=1.0), "dice_ratio/public": Score(value=0.7)}
        group = {"dice_ratio/synthetic": {"value": 0.8, "low": 0.7, "high": 0.9, "n": 20}}
        add_result(run, "segmentation", taught, details={"subgroups": {"class": {"high-grade": group}}})
        attack = {"calibrated@components": Score(value=0.55, low=0.45, high=0.64)}
        add_result(run, "membership", attack, verdict="pass", details={"strongest": "calibrated@components"})
        for path in (run.samples / "synthetic.png", run.site("hospital-1") / "memorization" / "pairs.png"):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (1400, 300)).save(path)
        rows.append(read_facts(run.folder))
    figure = Figure(
        what="Dice on whole tumours of somebody else", value="0.8 to 0.9", ours="segmentation.dice/synthetic"
    )
    published = Published(source="A paper, doi 10.1000/" + "1" * 60, figures=(figure,), differs=("The data.",))
    page = folder / f"{runs}.html"
    page.write_text(report_page(rows, published=published), encoding="utf-8")
    return page


def findings(tab):
    """What axe-core says of the page as it stands: how grave, which rule, where."""
    tab.ask(AXE.read_text(encoding="utf-8") + ";0")
    told = "axe.run().then((r) => JSON.stringify(r.violations.map((v) => [v.impact, v.id, v.nodes[0].html])))"
    return json.loads(tab.ask(told))


@pytest.mark.parametrize("runs", [1, 2, 6])
def test_the_report_fits_and_is_silent(tab, tmp_path, runs):
    page = whole_report(tmp_path, runs)
    for width in WIDTHS:
        tab.open(page, width=width)
        assert tab.errors == []
        assert tab.ask("document.documentElement.scrollWidth") <= width
        tab.ask("document.querySelectorAll('details').forEach((one) => one.open = true)")
        assert tab.ask("document.documentElement.scrollWidth") <= width
        assert tab.ask("document.querySelectorAll('figure svg').length") >= runs
        assert tab.ask("[...document.images].every((one) => one.naturalWidth > 0)")
        tiny = "[...document.querySelectorAll('svg text')].filter((t) => t.getBoundingClientRect().height < 9).length"
        assert tab.ask(tiny) == 0


@pytest.mark.skipif(AXE is None, reason="`npm install axe-core`, and FEDSYNTH_AXE=node_modules/axe-core/axe.min.js")
@pytest.mark.parametrize("runs", [1, 6])
def test_axe_has_no_finding(tab, tmp_path, runs):
    page = whole_report(tmp_path, runs)
    for width in WIDTHS:
        tab.open(page, width=width)
        tab.ask("document.querySelectorAll('details').forEach((one) => one.open = true)")
        assert findings(tab) == []


@pytest.mark.skipif(AXE is None, reason="as above")
def test_the_page_that_watches_has_no_finding_and_fits(tab, tmp_path):
    page = tmp_path / "watch.html"
    page.write_text(watch_page(make_run(tmp_path / "generator_seed-0", epsilon=8.0).folder, now=0.0), encoding="utf-8")
    for width in WIDTHS:
        tab.open(page, width=width)
        assert tab.errors == []
        assert tab.ask("document.documentElement.scrollWidth") <= width
        assert findings(tab) == []


def test_the_first_screen_of_a_phone_holds_the_whole_answer(tab, tmp_path):
    tab.open(whole_report(tmp_path, 1), width=390, height=844)
    said = "[...document.querySelectorAll('.way dt')].map((one) => one.textContent)"
    assert tab.ask(said) == ["Use", "Guarantee", "Not tested"]
    assert tab.ask("document.querySelector('.way').getBoundingClientRect().bottom") <= 844


@pytest.mark.parametrize("width", WIDTHS)
def test_a_word_is_explained_where_the_keyboard_stands_and_nothing_is_moved(tab, tmp_path, width):
    tab.open(whole_report(tmp_path, 2), width=width)
    before = tab.ask("document.documentElement.scrollHeight")
    for number in range(tab.ask("document.querySelectorAll('.term').length")):
        one = f"document.querySelectorAll('.term')[{number}]"
        tab.ask(f"{one}.scrollIntoView({{block: 'center'}}); {one}.focus()")
        tip = f"document.getElementById({one}.getAttribute('aria-describedby'))"
        box = json.loads(tab.ask(f"JSON.stringify({tip}.getBoundingClientRect())"))
        assert box["height"] > 20
        assert box["left"] >= 0
        assert box["right"] <= width
    assert tab.ask("document.documentElement.scrollHeight") == before
    assert tab.ask("getComputedStyle(document.querySelector('.tip')).display") == "none"


def test_print_shows_what_the_screen_folds_away(tab, tmp_path):
    tab.open(whole_report(tmp_path, 6), width=1280)
    folded = "[...document.querySelectorAll('details > :not(summary)')].map((one) => one.checkVisibility())"
    assert not any(tab.ask(folded))
    tab.call("Emulation.setEmulatedMedia", media="print")
    assert all(tab.ask(folded))
    tallest = "Math.max(...[...document.querySelectorAll('svg')].map((one) => one.getBoundingClientRect().height))"
    assert tab.ask(tallest) < 25 / 2.54 * 96, "a page of paper"
    assert tab.ask("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert tab.call("Page.printToPDF")["data"]


def test_the_sheet_of_readers_is_filled_in_kept_and_saved(tab, tmp_path):
    real, made = real_and_synthetic(patients=24, slices=1)
    key = draw_key(real, made, count=12)
    page = tmp_path / "sheet.html"
    page.write_text(sheet_page(real, made, key), encoding="utf-8")
    for width in WIDTHS:
        tab.open(page, width=width)
        assert tab.errors == []
        assert tab.ask("document.documentElement.scrollWidth") <= width
    nameless = "[...document.querySelectorAll('input')].filter((one) => one.labels.length !== 1).length"
    assert tab.ask(nameless) == 0
    large = (
        "[...document.querySelectorAll('#answers label, button')].every((b) => b.getBoundingClientRect().height >= 44)"
    )
    assert tab.ask(large)  # enough for a thumb

    tab.ask("document.getElementById('next').click()")  # from here on by keyboard alone
    assert tab.ask("document.activeElement.name") == "kind-1"
    tab.press(" ", 32, " ")
    tab.press("ArrowRight", 39)
    tab.press("Tab", 9)
    assert tab.ask("document.activeElement.name") == "quality-1"
    assert tab.ask("document.querySelector('input[name=kind-1]:checked').value") == "synthetic"
    tab.ask("for (const one of document.querySelectorAll('input[value=real], input[value=\"4\"]')) one.click()")
    tab.ask("for (const one of document.querySelectorAll('input[value=no]')) one.click()")
    tab.ask("document.getElementById('reader').value = 'A, B'")
    tab.ask("document.getElementById('reader').dispatchEvent(new Event('input'))")
    assert tab.ask("document.getElementById('progress').textContent") == "12 of 12 answered"
    tab.open(page, width=390)  # the browser was closed and opened again
    assert tab.ask("document.getElementById('progress').textContent") == "12 of 12 answered"
    text = tab.ask("document.getElementById('text').value")
    (tmp_path / "answers.csv").write_text(text, encoding="utf-8")

    from fedsynth.evaluation.reader_study.answers import read_answers

    found = read_answers(tmp_path / "answers.csv", key)
    assert found.reader == "A, B"
    assert found.called_real.tolist() == [1.0] * 12
    assert found.quality.tolist() == [4.0] * 12
    tab.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "saved"))
    tab.ask("document.getElementById('save').click()")
    assert tab.ask("document.getElementById('progress').textContent") == "Saved; all answered"
    assert tab.errors == []
