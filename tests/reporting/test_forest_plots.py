"""Privacy against utility as intervals: every number, its verdict in words, and what it is compared with."""

import re
from dataclasses import replace

import pytest

from fedsynth.evaluation.score import Result, Score, load_result
from fedsynth.reporting.figures import Estimate, Slot, forest
from fedsynth.reporting.forest_plots import FEWEST, group_forests, groups, groups_without_ratio, utility_forests
from fedsynth.reporting.html_page import report_page
from fedsynth.reporting.short_table import copies_in_brief, references, short_cells
from fedsynth.reporting.summary import read_facts
from tests.reporting.test_comparison import add_result, make_run

MARK = {"a": ("o", "#123456"), "b": ("s", "#654321")}


def run_with(folder, *, epsilon=None, ratio=(0.9, 0.8, 1.0), membership="pass", public=None, **more):
    run = make_run(folder, epsilon=epsilon)
    value, low, high = ratio
    scores = {"dice/synthetic": Score(value=0.7, low=0.6, high=0.8, baseline=0.2, control=0.8)}
    scores["dice_ratio/synthetic"] = Score(value=value, low=low, high=high)
    scores |= {f"dice_ratio/{arm}": Score(value=v) for arm, v in (("threshold", 0.4), ("mean-image", 0.6))}
    scores |= {} if public is None else {"dice_ratio/public+augmentation": Score(value=public, low=0.5, high=0.9)}
    add_result(run, "segmentation", scores, **more)
    copied = {"copied_share": Score(value=0.0, low=0.0, high=0.0081)}
    add_result(run, "memorization", copied, verdict="pass")
    strongest = {"discriminator": Score(value=0.6, low=0.5, high=0.7)}
    add_result(run, "membership", strongest, verdict=membership, details={"strongest": "discriminator"})
    return read_facts(run.folder)


def texts(chart):
    return re.findall(r">([^<>]+)</text>", chart.svg)


def test_one_row_is_enough_and_its_words_hold_guarantee_and_verdicts(tmp_path):
    (chart,) = utility_forests([run_with(tmp_path / "gan", membership="leak")])
    assert {"gan", "90 % (80 to 100 %)", "guarantee: none; memorization pass; membership leak"} <= set(texts(chart))
    assert "gan 90 % (80 to 100 %) guarantee: none; memorization pass; membership leak" in chart.what
    (chart,) = utility_forests([run_with(tmp_path / "dp", epsilon=8.0)])
    assert "guarantee: epsilon 8 at delta 1e-05; memorization pass; membership pass" in texts(chart)


def test_an_interval_is_as_long_as_it_is_and_verdicts_differ_in_colour_and_shape(tmp_path):
    def lines(svg, colour):
        found = re.findall(r'<path d="M ([\d.]+) [\d.]+ ?\n?L ([\d.]+) [\d.]+ ?\n?"[^>]*stroke: ' + colour, svg)
        return [float(end) - float(start) for start, end in found]

    narrow, wide = (
        Estimate(value=0.5, low=0.4, high=0.6, series="a"),
        Estimate(value=0.5, low=0.3, high=0.7, series="b"),
    )
    chart = forest([Slot(name="x", estimates=[narrow, wide])], x="of real", marks=MARK, levels=[("real", 1.0)])
    (short,), (long,) = lines(chart.svg, "#123456"), lines(chart.svg, "#654321")
    assert long == pytest.approx(2 * short, rel=1e-3)
    assert "real" in texts(chart)
    bare = forest([Slot(name="x", estimates=[Estimate(value=0.5, series="a")])], x="of real", marks=MARK)
    assert lines(bare.svg, "#123456") == []
    assert forest([Slot(name="x")], x="of real", marks=MARK) is None
    again = forest([Slot(name="x", estimates=[narrow, wide])], x="of real", marks=MARK, levels=[("real", 1.0)])
    assert again.svg == chart.svg


def test_controls_and_public_images_are_lines_where_the_rows_agree(tmp_path):
    rows = [run_with(tmp_path / "a", public=0.75), run_with(tmp_path / "b")]
    found = {one.name: one.score.value for one in references(rows, "segmentation")}
    assert found == {"Public images alone": 0.75, "Best control (mean-image)": 0.6}
    (chart,) = utility_forests(rows)
    assert {"Public images alone: 75 %", "Best control (mean-image): 60 %"} <= set(texts(chart))
    other = [*rows, run_with(tmp_path / "c", public=0.5)]
    assert [one.term for one in references(other, "segmentation")] == ["baseline"]


def test_the_short_table_says_in_words_what_the_long_one_says_in_numbers(tmp_path):
    facts = run_with(tmp_path / "a", epsilon=8.0, membership="leak")
    assert short_cells(facts) == {
        "guarantee": "epsilon 8 at delta 1e-05",
        "copies": "none found; at most 0.81 %",
        "members": "yes; AUC 0.60 (0.50 to 0.70)",
        "segmentation": "90 % (80 to 100 %)",
        "classification": "not run",
    }
    run = facts.run
    trivial = Score(value=0.3, low=0.1, high=0.5, baseline=0.2)
    add_result(run, "segmentation", {"dice/synthetic": trivial, "dice_ratio/synthetic": Score(value=0.4)})
    add_result(run, "memorization", {"copied_share": Score(value=0.2, low=0.1, high=0.3)}, verdict="leak")
    found = short_cells(read_facts(run.folder))
    assert found["segmentation"] == "40 %, no better than a trivial baseline"
    assert found["copies"] == "20 % of the images"
    run.benchmark("memorization").unlink()
    assert copies_in_brief(read_facts(run.folder)) == "not run"


def with_groups(facts):
    """Sites in the result's own table, the rest in its details, as the benchmark leaves them."""
    kept = load_result(facts.run.benchmark("segmentation"))
    at_site = {
        f"site-{n}": {"dice_ratio/synthetic": Score(value=0.8, low=0.7, high=0.9, n=n)} for n in (FEWEST - 1, 20)
    }
    size = {"smallest third": {"dice_ratio/synthetic+augmentation": Score(value=0.5, low=0.4, high=0.6, n=9)}}
    more = {"per_site": at_site, "details": {"subgroups": {"lesion size": size}}}
    replace(kept, **more).save(facts.run.benchmark("segmentation"))
    return read_facts(facts.run.folder)


def test_groups_have_intervals_and_those_of_few_patients_are_left_out(tmp_path):
    facts = with_groups(run_with(tmp_path / "a"))
    assert isinstance(facts.results["segmentation"], Result)
    assert [(one.kind, one.name) for one in groups([facts], "segmentation")] == [
        ("site", "site-20"),
        ("lesion size", "smallest third"),
    ]
    (chart,) = group_forests([facts], "segmentation")
    assert {"site: site-20", "80 % (70 to 90 %)", "lesion size: smallest third", "50 % (40 to 60 %)"} <= set(
        texts(chart)
    )
    page = report_page([facts])
    assert 'id="subgroups"' in page
    assert "By class nothing was measured." in page
    assert 'id="subgroups"' not in report_page([run_with(tmp_path / "b")])


def test_a_group_whose_ratio_is_zero_is_drawn_and_one_without_a_ratio_is_named(tmp_path):
    facts = run_with(tmp_path / "a")
    kept = load_result(facts.run.benchmark("segmentation"))
    unknown = {"dice_ratio/synthetic": Score(value=None, why="real images reach nothing", n=20)}
    few = {"dice_ratio/synthetic": Score(value=None, why="real images reach nothing", n=FEWEST - 1)}
    zero = {"dice_ratio/synthetic": Score(value=0.0, low=0.0, high=0.0, n=20)}
    only_zero = replace(kept, per_site={"north": zero, "south": unknown, "tiny": few})
    only_zero.save(facts.run.benchmark("segmentation"))
    facts = read_facts(facts.run.folder)
    (chart,) = group_forests([facts], "segmentation")
    assert {"site: north", "0 % (0 to 0 %)"} <= set(texts(chart))
    assert groups_without_ratio([facts], "segmentation") == ["site south, segmentation: real images reach nothing"]
    replace(kept, per_site={"south": unknown}).save(facts.run.benchmark("segmentation"))
    page = report_page([read_facts(facts.run.folder)])
    assert "site south, segmentation: real images reach nothing" in page
    assert 'href="#subgroups"' in page


@pytest.mark.parametrize(("value", "high", "arrows"), [(1.9, 1.99, 0), (1.9, 2.5, 1), (2.5, 3.0, 1), (2.5, None, 1)])
def test_what_lies_beyond_the_axis_has_an_arrow(value, high, arrows):
    low = None if high is None else 0.5
    inside = Estimate(value=0.5, series="b")
    slots = [Slot(name="x", estimates=[Estimate(value=value, low=low, high=high, series="a"), inside])]
    chart = forest(slots, x="of real", marks=MARK, levels=[("real", 1.0)])
    drawn = re.findall(r'<use [^>]*x="([\d.]+)"[^>]*style="fill: (#\w+); stroke: (#\w+)', chart.svg)
    assert [(fill, stroke) for _, fill, stroke in drawn].count(("#123456", "#123456")) == arrows


def test_many_rows_are_several_charts_with_a_legend(tmp_path):
    rows = [with_groups(run_with(tmp_path / name)) for name in "abcde"]
    first, second = group_forests(rows, "segmentation")
    assert {"a", "b", "c", "d"} <= set(texts(first))
    assert "e" in texts(second)
    assert "20 patients" in texts(first)
