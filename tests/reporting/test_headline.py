"""The headline and the first screen: no more than the verdicts allow, and what nobody tested."""

from dataclasses import replace

import pytest

from fedsynth.evaluation.score import Score, load_result
from fedsynth.reporting.answer import answer
from fedsynth.reporting.comparison import shown_columns
from fedsynth.reporting.html_page import report_page
from fedsynth.reporting.summary import read_facts
from tests.reporting.test_comparison import add_result, make_run


def leak(run, verdict, value=0.0):
    scores = {"copied_share": Score(value=value), "minimal_detectable_share": Score(value=0.005)}
    add_result(run, "memorization", scores, verdict=verdict)


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
