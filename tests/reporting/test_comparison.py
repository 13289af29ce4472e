"""The table: every number where it belongs, every gap with its reason, and what must not be compared."""

import csv
import io
from dataclasses import replace

import pytest
from typer.testing import CliRunner

import fedsynth
from fedsynth import atomic_files, config
from fedsynth.cli import app
from fedsynth.errors import FedSynthError
from fedsynth.evaluation.score import Input, Result, Score, load_result
from fedsynth.reporting.comparison import as_csv, as_latex, as_markdown, differences, reasons, shown_columns
from fedsynth.reporting.summary import read_facts
from fedsynth.runs import create_run

ROUNDS = """round,site,answered,reason,seconds,bytes_up,bytes_down,steps,epsilon,discriminator_loss
1,a,true,,2.0,500000,500000,4,{0},1
1,b,true,,3.0,500000,500000,4,{1},1
2,a,true,,1.5,500000,500000,4,{2},1
2,b,false,failed,,0,500000,,,
"""


def make_run(folder, *, epsilon=None, sha="x", seed=0, **settings):
    table = {"generator": "dcgan", "federation": "average", "strategy": "fedavg", "sites": 2, "seed": seed} | settings
    if epsilon is not None:
        table["privacy"] = {"epsilon": epsilon, "delta": 1e-5, "patients": 100}
    run = create_run(table, generator="dcgan", folder=folder)
    spent = ("", "", "") if epsilon is None else (epsilon / 2, epsilon / 2.5, epsilon)
    atomic_files.write_text(run.rounds, ROUNDS.format(*spent))
    config.save_toml(run.checkpoints / "generator.toml", {"generator": "dcgan"})
    add_result(run, "segmentation", {"dice/synthetic": Score(value=0.7, low=0.6, high=0.8)}, sha, seed)
    return run


def add_result(run, name, scores, sha="x", seed=0, **more):
    real = Input(path="real", sha256=sha, images=10, patients=5, roles={"member": 3, "holdout": 2})
    result = Result(
        benchmark=name,
        scores=scores,
        inputs={"real": real},
        seed=seed,
        settings={"arms": ["real"]},
        seconds=1.0,
        **more,
    )
    result.save(run.benchmark(name))


def test_arms_that_no_patient_shaped_are_no_other_way_of_measuring(tmp_path):
    runs = [make_run(tmp_path / name) for name in "ab"]
    for run, arms in zip(
        runs, (["real+augmentation"], ["real+augmentation", "public+augmentation", "placebo"]), strict=True
    ):
        result = load_result(run.benchmark("segmentation"))
        replace(result, settings={"arms": arms}).save(run.benchmark("segmentation"))
    assert differences([read_facts(run.folder) for run in runs]) == []
    replace(result, settings={"arms": ["real"]}).save(runs[1].benchmark("segmentation"))
    assert differences([read_facts(run.folder) for run in runs]) == ["segmentation: measured with different settings"]


def test_the_audit_of_the_mechanism_stands_in_the_table_and_is_no_difference(tmp_path):
    one, other = make_run(tmp_path / "a"), make_run(tmp_path / "b")
    add_result(one, "audit", {"epsilon_lower_bound": Score(value=0.1)}, verdict="no contradiction found")
    add_result(other, "audit", {"epsilon_lower_bound": Score(value=0.1)}, verdict="no contradiction found")
    proven = {"epsilon_lower_bound": Score(value=7.5)}
    bare = Result(benchmark="audit-mechanism", scores=proven, inputs={}, seed=0, settings={}, seconds=1.0)
    bare.save(one.benchmark("audit-mechanism"))
    rows = [read_facts(run.folder) for run in (one, other)]
    assert [row.cells["audit"].value for row in rows] == [7.5, 0.1]
    assert differences(rows) == []


def test_every_number_stands_in_its_cell(tmp_path):
    run = make_run(tmp_path / "a", epsilon=8.0)
    scores = {"copied_share": Score(value=0.0, low=0.0, high=0.004), "minimal_detectable_share": Score(value=0.005)}
    add_result(run, "memorization", scores, verdict="pass")
    cells = read_facts(run.folder).cells
    assert cells["epsilon"].value == 8.0
    assert cells["delta"].text == "1e-05"
    assert cells["verdict"].text == "pass"
    assert cells["copied"].text == "0 [0, 0.004]"
    assert cells["detectable"].value == 0.005
    assert cells["dice"].text == "0.7 [0.6, 0.8]"
    assert cells["megabytes"].value == 3.5
    assert cells["seconds"].value == 3.0 + 1.5  # sites work at the same time: the slowest of each round counts
    assert cells["membership"].text == "not run"
    assert cells["federation"].text == "fedavg, 2 sites"


def test_a_cell_that_cannot_be_known_says_why(tmp_path):
    run = make_run(tmp_path / "a", epsilon=8.0)
    scores = {"discriminator": Score(value=None, why="not resolvable with 2 holdout patients")}
    add_result(run, "membership", scores, details={"strongest": "discriminator"})
    facts = read_facts(run.folder)
    assert facts.cells["cumulative"].why
    assert any("not resolvable" in line for line in reasons([facts]))


def test_of_all_attacks_the_strongest_is_shown(tmp_path):
    run = make_run(tmp_path / "a")
    scores = {"distance@pixels": Score(value=0.55), "discriminator": Score(value=0.76, low=0.69, high=0.83)}
    add_result(run, "membership", scores, details={"strongest": "discriminator"})
    assert read_facts(run.folder).cells["membership"].text == "0.76 [0.69, 0.83] (discriminator)"


def test_what_is_not_private_says_so(tmp_path):
    plain = read_facts(make_run(tmp_path / "a").folder).cells
    assert (plain["epsilon"].text, plain["delta"].value) == ("not private", None)
    insecure = make_run(tmp_path / "b", privacy={"epsilon": 1.0, "patients": 5, "insecure-seed": 3})
    assert read_facts(insecure.folder).cells["epsilon"].text.startswith("NOT PRIVATE")


def test_rows_on_other_images_or_seeds_are_distinguished(tmp_path):
    first = read_facts(make_run(tmp_path / "a").folder)
    assert differences([first, read_facts(make_run(tmp_path / "b").folder)]) == []
    other = read_facts(make_run(tmp_path / "c", sha="y", seed=1).folder)
    said = " ".join(differences([first, other]))
    assert "real images" in said
    assert "seeds" in said


def test_forms(tmp_path):
    rows = [read_facts(make_run(tmp_path / "a_1", epsilon=8.0).folder)]
    columns = shown_columns(rows)
    assert "verdict" not in columns
    found = list(csv.DictReader(io.StringIO(as_csv(rows, columns))))
    assert found[0]["dice_value"] == "0.7"
    assert as_markdown(rows, columns).splitlines()[1].count("---") == len(columns)
    assert r"a\_1" in as_latex(rows, columns)


def test_a_damaged_result_is_said_and_the_rest_stands(tmp_path):
    run = make_run(tmp_path / "a")
    run.benchmark("membership").write_text("{")
    facts = read_facts(run.folder)
    assert facts.cells["dice"].value == 0.7
    assert any("damaged" in line for line in reasons([facts]))


def test_an_unfinished_run_is_refused(tmp_path):
    run = make_run(tmp_path / "a")
    (run.checkpoints / "generator.toml").unlink()
    with pytest.raises(FedSynthError, match="not finished"):
        read_facts(run.folder)


def test_the_command(tmp_path):
    folders = [str(make_run(tmp_path / name, epsilon=e).folder) for name, e in (("a", 8.0), ("b", 2.0))]
    done = CliRunner().invoke(app, ["compare", *folders, "--by", "epsilon"])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[2].startswith("b ")
    assert CliRunner().invoke(app, ["compare", *folders, "--format", "latex"]).stdout.startswith(r"\begin{tabular}")
    bad = CliRunner().invoke(app, ["compare", *folders, "--by", "epsilom"])
    assert bad.exit_code == 2
    assert "epsilon" in bad.stderr


def test_the_columns_that_are_asked_for_in_their_order(tmp_path):
    make_run(tmp_path / "one")
    made = CliRunner().invoke(
        app, ["compare", str(tmp_path / "one"), "--columns", "dice, epsilon", "--format", "markdown"]
    )
    head, _, row = made.stdout.splitlines()
    assert head == "| run | Dice, ill (best control) | epsilon per patient |"
    assert row == "| one | 0.7 [0.6, 0.8] | not private |"
    assert list(fedsynth.compare(tmp_path / "one", columns=["dice"]).columns) == ["dice"]


def test_an_unknown_column_is_refused_with_the_nearest(tmp_path):
    make_run(tmp_path / "one")
    made = CliRunner().invoke(app, ["compare", str(tmp_path / "one"), "--columns", "dice,epsilom"])
    assert made.exit_code == 2
    assert "epsilon" in made.output
