"""The first screen says no more than is known: what speaks against a set stands there, whatever else passed."""

from dataclasses import replace

import pytest

from fedsynth.evaluation.score import Score
from fedsynth.privacy.lineage import Lineage, LineageRun
from fedsynth.reporting.answer import answer
from fedsynth.reporting.html_page import report_page
from fedsynth.reporting.short_table import guarantee_in_brief, members_in_brief
from fedsynth.reporting.summary import read_facts, unfinished_facts
from fedsynth.reporting.table_cells import Cell
from fedsynth.reporting.usefulness import share_of_real
from tests.reporting.test_comparison import add_result, make_run
from tests.reporting.test_headline import first_screen, leak, learned, passing


@pytest.fixture
def run(tmp_path):
    """Everything passes: each test takes away one thing."""
    run = make_run(tmp_path / "a", epsilon=8.0)
    passing(run)
    assert answer(read_facts(run.folder)).tone == "yes"
    return run


@pytest.mark.parametrize("audit", ["audit", "audit-mechanism"])
def test_an_audit_that_failed_contradicts_the_guarantee(run, audit):
    add_result(run, audit, {"epsilon_lower_bound": Score(value=11.5)}, verdict="fail")
    facts = read_facts(run.folder)
    found = answer(facts)
    assert found.tone == "no"
    assert "the audit contradicts the guarantee" in found.headline
    assert first_screen(found)["Guarantee"] == "Contradicted by the audit: it found epsilon 11.5 at least"
    assert guarantee_in_brief(facts) == "contradicted by the audit"
    assert "Epsilon 8 at" not in report_page([facts])
    add_result(run, audit, {"epsilon_lower_bound": Score(value=2.0)}, verdict="no contradiction found")
    assert answer(read_facts(run.folder)).tone == "yes"


def test_results_of_two_sets_are_no_yes(run):
    add_result(run, "fidelity", {}, sha="of other patients")
    found = answer(read_facts(run.folder))
    assert found.tone == "open"
    assert "do not belong together" in found.headline
    assert "different real sets" in first_screen(found)["Results"]


def test_a_damaged_result_and_one_of_another_set_are_no_yes(run):
    facts = replace(read_facts(run.folder), strange=("fidelity",))
    found = answer(facts)
    assert (found.tone, "fidelity was measured on another set" in first_screen(found)["Results"]) == ("open", True)
    run.benchmark("fidelity").write_text("{")
    facts = read_facts(run.folder)
    found = answer(facts)
    assert found.tone == "open"
    assert first_screen(found)["Results"] == "1 result cannot be read: run the benchmarks again"
    page = report_page([facts], export=True)
    assert "1 result cannot be read" in page[: page.index("<nav")], "on the first screen"
    assert str(run.folder) not in page


@pytest.mark.parametrize("memorization", ["pass", "leak", "inconclusive", "invalid", "depends", None])
def test_members_who_can_be_told_stand_first_whatever_memorization_says(run, memorization):
    score = {"discriminator": Score(value=0.76, low=0.68, high=0.83)}
    add_result(run, "membership", score, verdict="leak", details={"strongest": "discriminator"})
    leak(run, memorization or "pass")
    if memorization is None:
        run.benchmark("memorization").unlink()
    found = answer(read_facts(run.folder))
    assert found.tone == "no"
    assert "members can be told from others by AUC 0.76 (0.68 to 0.83)" in found.headline
    assert ("no copies were found" in found.headline) == (memorization == "pass")


@pytest.mark.parametrize("missing", ["baseline", "ratio"])
def test_a_score_that_is_compared_with_nothing_is_no_yes(run, missing):
    more = {"dice_ratio/synthetic": Score(value=None, why="no real arm")} if missing == "ratio" else {}
    learned(run, "segmentation", 0.7, 0.6, None if missing == "baseline" else 0.2, **more)
    found = answer(read_facts(run.folder))
    assert found.tone == "open"
    assert f"segmentation has no {'trivial ' * (missing == 'baseline')}{missing}" in found.headline


def test_segmentation_that_fails_by_false_positives_is_not_praised(run):
    learned(run, "classification", 0.7, 0.6, 0.4)
    trivial = Score(value=0.5, low=0.4, baseline=0.55)
    learned(run, "segmentation", 0.7, 0.6, 0.2, **{"brats_slice_dice/synthetic": trivial})
    found = answer(read_facts(run.folder))
    where = "no better than a trivial baseline where images without a lesion count"
    assert found.headline == f"No copies were found, but segmentation is {where}"
    assert first_screen(found)["Use"] == "Classification 87 % of what real images teach; not for segmentation"


def test_a_run_with_repeatable_randomness_is_no_yes(tmp_path):
    run = make_run(tmp_path / "a", privacy={"epsilon": 8.0, "delta": 1e-5, "insecure-seed": 3})
    passing(run)
    found = answer(read_facts(run.folder))
    assert found.tone == "open"
    assert "NOT PRIVATE" in found.headline


@pytest.mark.parametrize("epsilon", [8.0, None])
def test_patients_of_an_earlier_run_without_a_guarantee_are_no_yes(tmp_path, epsilon):
    run = make_run(tmp_path / "a", epsilon=epsilon)
    passing(run)
    facts = read_facts(run.folder)
    assert answer(facts).tone == "yes"
    plain = LineageRun(run="earlier", generator="dcgan", images="clinic", steps=9, training="plain")
    here = replace(plain, run="a")
    found = answer(replace(facts, lineage=Lineage(runs=(plain, here))))
    assert found.tone == "open"
    assert "nobody tested for its patients" in found.headline
    alone = replace(facts, lineage=Lineage(runs=(here,)))
    assert epsilon is not None or answer(alone).tone == "yes", "its own patients are whom the tests ask about"


def test_an_epsilon_without_its_delta_says_so(run):
    facts = read_facts(run.folder)
    assert first_screen(answer(facts))["Guarantee"] == "Epsilon 8 at delta 1e-05 per patient in this run"
    bare = replace(facts, settings={"privacy": {"epsilon": 8.0}})
    assert guarantee_in_brief(bare) == "epsilon 8 at a delta that the run does not say"


@pytest.mark.parametrize(
    ("share", "said"),
    [
        ((0.996, 0.9951, 0.999), "99.6 % (99.5 to 99.9 %)"),
        ((0.9996, 0.99, 1.0), "99.96 % (99 to 100 %)"),
        ((0.003, 0.0, 0.0149), "0.3 % (0 to 1 %)"),
        ((1.004, None, None), "100.4 %"),
        ((0.91, 0.88, 0.94), "91 % (88 to 94 %)"),
    ],
)
def test_a_share_is_not_rounded_to_a_limit_that_it_does_not_reach(share, said):
    value, low, high = share
    assert share_of_real(Cell(text="", value=value, low=low, high=high)) == said


def test_an_interval_above_guessing_does_not_read_as_touching_it(run):
    score = {"discriminator": Score(value=0.52, low=0.5012, high=0.54)}
    add_result(run, "membership", score, verdict="leak", details={"strongest": "discriminator"})
    assert members_in_brief(read_facts(run.folder)) == "yes; AUC 0.52 (0.501 to 0.54)"
    score = {"discriminator": Score(value=0.52, low=0.5, high=0.54)}
    add_result(run, "membership", score, verdict="inconclusive", details={"strongest": "discriminator"})
    assert members_in_brief(read_facts(run.folder)) == "not known; AUC 0.52 (0.50 to 0.54)"


def test_cells_that_are_all_unfinished_have_no_list_of_what_was_not_tested(tmp_path):
    assert "Not tested for any of them" not in report_page([unfinished_facts(tmp_path / name, {}) for name in "ab"])
