"""Table, page, gate and card state what the whole lineage of a run promises, not the run's own part of it."""

import json
from dataclasses import replace
from pathlib import Path

from typer.testing import CliRunner

from fedsynth.cli import app
from fedsynth.config import save_toml
from fedsynth.images import ImageSet
from fedsynth.privacy.accounting import Mechanism, compose, rounded_up
from fedsynth.privacy.ledger import Ledger
from fedsynth.privacy.lineage import Lineage, LineageRun, PatientGroup
from fedsynth.report.answer import answer
from fedsynth.report.cells import Cell
from fedsynth.report.compare import as_markdown, reasons
from fedsynth.report.facts import read_facts
from fedsynth.report.frontier import frontier_text
from fedsynth.report.page import report_page
from fedsynth.report.release import Criteria, card, objections
from fedsynth.run import Run
from tests.cli.test_privacy import spend
from tests.report.test_compare import make_run
from tests.report.test_release import judge
from tests.training.tiny import tiny_set


def group(noise: float, digest: str, *disjoint: str) -> PatientGroup:
    mechanism = Mechanism(rate=1.0, noise=noise, steps=2)
    spent = compose([mechanism], 1e-5)
    return PatientGroup(
        site="a",
        digest=digest,
        disjoint_from=disjoint,
        mechanisms=(mechanism,),
        epsilon=spent.epsilon,
        replace_one=spent.replace_one,
        delta=1e-5,
    )


TWENTY, EIGHT = group(0.41, "x" * 32), group(0.86, "y" * 32)
FIRST = LineageRun(run="first", generator="dcgan", images="a", steps=9, training="private", patients=(TWENTY,))
SECOND = LineageRun(run="run", generator="dcgan", images="b", steps=4, training="private", patients=(EIGHT,))
PLAIN = LineageRun(run="first", generator="dcgan", images="a", steps=9, training="plain")
APART = replace(SECOND, patients=(replace(EIGHT, disjoint_from=(TWENTY.digest,)),))
DECLARED = Lineage(runs=(PLAIN,)).declared_public("run").runs[0]


def facts_of(tmp_path: Path, *runs: LineageRun):  # type: ignore[no-untyped-def]
    run = make_run(tmp_path / "run", epsilon=8.0, start="first")
    save_toml(run.checkpoints / "generator.toml", {"generator": "dcgan", "lineage": Lineage(runs=runs)})
    images = tiny_set()
    blank = images.cases.assign(patient="", site="", role="")
    replace(images, cases=blank, header=replace(images.header, origin="synthetic", split=None)).save(run.synthetic)
    judge(run, "pass")
    return read_facts(run.folder)


def asked(facts, epsilon: float) -> list[str]:  # type: ignore[no-untyped-def]
    criteria = Criteria(max_epsilon=epsilon, this_run_alone=True)
    return objections(facts, criteria, ImageSet.load(facts.run.synthetic))


def statements(facts) -> dict[str, str]:  # type: ignore[no-untyped-def]
    return {
        "table": as_markdown([facts], ["epsilon"]),
        "page": report_page([facts], export=True),
        "answer": " ".join(answer(facts).sentences),
        "card": card(facts, Criteria(), ImageSet.load(facts.run.synthetic)),
    }


def test_the_figures_are_those_of_the_review() -> None:
    assert 19.5 < TWENTY.epsilon < 20.5
    assert 7.5 < EIGHT.epsilon < 8.5


def test_a_gate_of_8_5_sees_both_runs_where_patients_may_be_in_both(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, FIRST, SECOND)
    total = compose([*TWENTY.mechanisms, *EIGHT.mechanisms], 1e-5).epsilon
    assert facts.cells["epsilon"].value == total > TWENTY.epsilon + 1
    assert f"spent epsilon {rounded_up(total, 3):g}, more than 8.5" in asked(facts, 8.5)[0]
    assert asked(facts, TWENTY.epsilon + 0.5)
    assert asked(facts, total + 0.1) == []
    for told in statements(facts).values():
        assert f"{rounded_up(total, 3):g} (this run alone 8)" in told


def test_disjoint_patients_are_promised_the_larger_of_the_two(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, FIRST, APART)
    assert facts.cells["epsilon"].value == TWENTY.epsilon
    assert asked(facts, 8.5)
    assert asked(facts, TWENTY.epsilon + 0.1) == []
    for name, told in statements(facts).items():
        assert name == "table" or "first: dcgan, 9 steps on a, epsilon" in told


def test_a_plain_run_of_patients_behind_a_private_one_leaves_no_guarantee(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, PLAIN, SECOND)
    assert facts.cells["epsilon"].value is None
    assert "trained without differential privacy" in asked(facts, 8.5)[0]
    for told in statements(facts).values():
        assert "no guarantee" in told


def test_a_run_that_does_not_say_what_it_goes_on_from_has_no_guarantee(tmp_path: Path) -> None:
    assert "does not say what that cost" in asked(facts_of(tmp_path, SECOND), 8.5)[0]


def test_a_declared_public_start_stands_everywhere_and_is_not_public(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, DECLARED, replace(SECOND, public="phantoms"))
    assert not facts.public
    for name, told in statements(facts).items():
        assert "declared public: first" in told
        assert name == "table" or "public on the word of --public-start of run: they are not covered" in told
    assert not any("epsilon per patient" in line for line in reasons([facts])), "it is known"


def test_what_patients_of_an_earlier_run_spent_elsewhere_must_be_known(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    store = tmp_path / "store"
    monkeypatch.setenv("FEDSYNTH_STORE", str(store))
    ledger = spend(store, "a", ["p"], "this", 2)
    spend(store, "b", ["q"], "this", 2)
    known = replace(TWENTY, digest=ledger.group(["p"]).digest)
    facts = facts_of(tmp_path, replace(FIRST, patients=(known,)), SECOND)
    for site in "ab":
        Ledger(site, store).copy("this", facts.run.site(site) / "ledger.jsonl")
    total = read_facts(facts.run.folder).cells["cumulative"]
    assert total.why == ""
    assert total.value == facts.cells["epsilon"].value
    strange = Lineage(runs=(replace(FIRST, run="elsewhere"), SECOND))
    save_toml(facts.run.checkpoints / "generator.toml", {"generator": "dcgan", "lineage": strange})
    total = read_facts(facts.run.folder).cells["cumulative"]
    assert "what patients of elsewhere spent elsewhere is not counted" in total.why
    assert total.text.startswith("at least")


def test_the_gate_says_that_its_answer_is_not_private(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, FIRST, SECOND)
    save_toml(tmp_path / "release.toml", {"max-epsilon": 8.5})
    call = ["release", str(facts.run.folder), "--out", str(tmp_path / "out")]
    refused = CliRunner().invoke(app, [*call, "--criteria", str(tmp_path / "release.toml")])
    passed = CliRunner().invoke(app, call)
    assert (refused.exit_code, passed.exit_code) == (1, 0)
    assert all("one bit about them" in done.stderr for done in (refused, passed))


def test_an_epsilon_that_was_edited_in_the_settings_of_a_run_is_not_stated(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", epsilon=1.0)
    save_toml(run.checkpoints / "generator.toml", {"generator": "dcgan", "lineage": Lineage(runs=(SECOND,))})
    assert read_facts(run.folder).cells["epsilon"].value == EIGHT.epsilon


def test_no_statement_rounds_what_was_spent_down(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", epsilon=8.004)
    other = make_run(tmp_path / "other", epsilon=2.0)
    told = frontier_text([read_facts(run.folder), read_facts(other.folder)])
    assert "8.01" in told
    assert "8.00 " not in told
    facts = replace(facts_of(tmp_path / "gate", SECOND), lineage=Lineage(runs=(SECOND,)))
    cells = {**facts.cells, "epsilon": Cell(text="8.01", value=8.004)}
    assert "spent epsilon 8.01, more than 8" in asked(replace(facts, cells=cells), 8.0)[0]


def test_privacy_of_an_unfinished_run_does_not_forget_what_it_goes_on_from(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("FEDSYNTH_STORE", str(tmp_path / "store"))
    run = make_run(tmp_path / "run", epsilon=8.0, start="runs/first")
    (run.checkpoints / "generator.toml").unlink()
    spend(tmp_path / "store", "a", ["p"], "this", 2).copy("this", run.site("a") / "ledger.jsonl")
    found = json.loads(CliRunner().invoke(app, ["privacy", str(run.folder), "--json"]).stdout)
    assert found["largest"] is None
    assert found["lineage"]["why"] == "first (?): none: the run does not say how it was trained"


def test_privacy_states_the_lineage_of_a_run_without_a_ledger(tmp_path: Path) -> None:
    """Phantoms charge nobody; the run that they go on from did."""
    own = replace(SECOND, public="phantoms")
    table = {
        "generator": "dcgan", "shape": {"channels": 1, "size": [8, 8], "n-classes": 0, "n-labels": 0},
        "channels": ["t1"], "classes": [], "mask-labels": [], "spacing-mm": [1.0, 1.0], "class-shares": [],
        "steps": 4, "trained-on": "b", "privacy": "", "lineage": Lineage(runs=(FIRST, own)),
    }  # fmt: skip
    save_toml(Run(folder=tmp_path / "run").checkpoints / "generator.toml", table)
    told = CliRunner().invoke(app, ["privacy", str(tmp_path / "run")]).stdout
    assert "lineage: first: dcgan, 9 steps on a, epsilon" in told
    assert f"whole lineage: epsilon {rounded_up(TWENTY.epsilon, 3):g}\n" in told


def test_a_start_of_several_sites_says_that_its_sites_are_taken_for_disjoint() -> None:
    several = replace(FIRST, patients=(TWENTY, replace(TWENTY, site="b", digest="z" * 32)))
    assert "where no patient is in two of them" in Lineage(runs=(several, APART)).claim()
    assert "where no patient is in two of them" not in Lineage(runs=(FIRST, APART)).claim()
