"""What leaves the site: no picture that begins with real cases, and no path of the machine."""

from PIL import Image

from fedsynth.reporting.answer import answer
from fedsynth.reporting.html_page import report_page
from fedsynth.reporting.summary import read_facts
from tests.reporting.test_comparison import make_run
from tests.reporting.test_headline import passing
from tests.reporting.test_html_page import with_pictures


def test_an_exported_page_shows_no_sheet_of_training_and_none_that_begins_with_real_cases(tmp_path):
    run = make_run(tmp_path / "a")
    passing(run)
    run.samples.mkdir(exist_ok=True)
    Image.new("L", (4, 4)).save(run.samples / "step-000004.png")
    assert report_page([read_facts(run.folder)]).count("data:image/png") == 1
    assert "data:image/png" not in report_page([read_facts(run.folder)], export=True)
    paired = make_run(tmp_path / "b", pairing="label-to-image")
    passing(paired)
    with_pictures(paired)
    facts = read_facts(paired.folder)
    assert answer(facts).tone == "yes"
    page = report_page([facts], export=True)
    assert "data:image/png" not in page
    assert "begins with real cases" in page


def test_no_setting_of_an_exported_page_is_a_path(tmp_path):
    places = {"public": "brats", "source": "mri", "options": {"maps": "/srv/maps", "styles": ["C:\\data", "wide"]}}
    run = make_run(tmp_path / "a", start="phantoms", **places)
    page = report_page([read_facts(run.folder)], export=True)
    shown = page[page.index("<h3>Settings</h3>") : page.index('id="full-table"')]
    assert [word for word in ("brats", "mri", "srv", "data") if word in shown] == []
    assert [word in shown for word in ("phantoms", "wide", "withheld", "strategy", "sites = 2")] == [True] * 5
