"""The gate opens only when everything that was asked for was measured and holds."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from fedsynth.cli import app
from fedsynth.config import save_toml
from fedsynth.data import ImageSet
from fedsynth.errors import FedSynthError
from fedsynth.evaluation.score import Input, Score, load_result
from fedsynth.privacy.lineage import Lineage, LineageRun, PatientGroup
from fedsynth.reporting.answer import answer
from fedsynth.reporting.comparison import differences, reasons
from fedsynth.reporting.html_page import report_page
from fedsynth.reporting.release_gate import Criteria, card, objections
from fedsynth.reporting.summary import read_facts
from tests.cli.test_privacy import spend
from tests.reporting.test_comparison import add_result, make_run
from tests.training.tiny import tiny_set

PHANTOM_RUN = LineageRun(
    run="run",
    generator="dcgan",
    images="made",
    steps=4,
    training="private",
    public="phantoms",
    patients=(PatientGroup(site="a", epsilon=8.0, delta=1e-5),),
)


@pytest.fixture
def run(tmp_path):
    run = make_run(tmp_path / "run", epsilon=8.0)
    images = tiny_set()
    blank = images.cases.assign(patient="", site="", role="")
    made = replace(images, cases=blank, header=replace(images.header, origin="synthetic", split=None))
    made.save(run.synthetic)
    judge(run, "pass")
    return run


def judge(run, verdict, auc=0.55):
    from fedsynth.evaluation.score import Result

    inputs = {"real": Input(path="", sha256="x", images=1, patients=1, roles={})}
    inputs["synthetic"] = Input.of(ImageSet.load(run.synthetic))
    for name, score, said in (("memorization", "copied_share", verdict), ("membership", "auc", "pass")):
        scores = {score: Score(value=auc if score == "auc" else 0.0, low=0.0, high=0.6 if score == "auc" else 0.004)}
        Result(benchmark=name, scores=scores, inputs=inputs, seed=0, settings={}, seconds=1.0, verdict=said).save(
            run.benchmark(name)
        )


def said(run, **criteria):
    return objections(read_facts(run.folder), Criteria(**criteria), ImageSet.load(run.synthetic))


def test_a_set_that_meets_everything_leaves_with_its_card(run, tmp_path):
    done = CliRunner().invoke(app, ["release", str(run.folder), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert len(ImageSet.load(tmp_path / "out")) == len(tiny_set())
    text = (tmp_path / "out" / "README.md").read_text()
    for word in ("epsilon 8", "memorization: pass", "not themselves private", "Licence"):
        assert word in text
    again = CliRunner().invoke(app, ["release", str(run.folder), "--out", str(tmp_path / "out")])
    assert again.exit_code == 2


def test_criteria_come_from_a_file(run, tmp_path):
    file = tmp_path / "release.toml"
    file.write_text(
        'max-epsilon = 4.0\nlicence = "CC0"\n[verdicts]\nmemorization = ["pass"]\n[most]\n"membership.auc" = 0.7\n'
    )
    done = CliRunner().invoke(
        app, ["release", str(run.folder), "--out", str(tmp_path / "out"), "--criteria", str(file)]
    )
    assert done.exit_code == 1
    assert "more than 4" in done.stderr
    file.write_text("max-epsilom = 4.0\n")
    done = CliRunner().invoke(
        app, ["release", str(run.folder), "--out", str(tmp_path / "out"), "--criteria", str(file)]
    )
    assert done.exit_code == 2
    assert "max-epsilon" in done.stderr


def test_a_leak_stays(run, tmp_path):
    judge(run, "leak")
    done = CliRunner().invoke(app, ["release", str(run.folder), "--out", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert "leak" in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_worse_end_of_an_interval_counts(run):
    assert said(run, most={"membership.auc": 0.65}) == []
    assert "0.6" in said(run, most={"membership.auc": 0.58})[0]
    assert "0.6" in said(run, least={"segmentation.dice/synthetic": 0.65})[0]


def test_the_strongest_attack_is_bounded_whichever_it_is(run):
    scores = {"distance@pixels": Score(value=0.55, high=0.6), "discriminator": Score(value=0.8, low=0.7, high=0.9)}
    add_result(run, "membership", scores, details={"strongest": "discriminator"}, verdict="leak")
    facts, made = read_facts(run.folder), ImageSet.load(run.synthetic)
    assert objections(facts, Criteria(), made)[0] == "membership: the verdict is leak, not pass"
    alone = {"verdicts": {"membership": ("pass", "leak")}}
    assert "up to 0.9" in objections(facts, Criteria(**alone, most={"membership.strongest": 0.85}), made)[0]
    assert objections(facts, Criteria(**alone, most={"membership.strongest": 0.95}), made) == []


def test_readers_who_can_tell_are_a_reason_to_stay(run):
    asked = {"most": {"readers.accuracy": 0.75}, "least": {"readers.plausible/synthetic": 0.5}}
    assert "readers was not run" in said(run, **asked)[0]
    scores = {"accuracy": Score(value=0.7, low=0.5, high=0.8), "plausible/synthetic": Score(value=None, why="no mask")}
    add_result(run, "readers", scores)
    found = said(run, **asked)
    assert "up to 0.8" in found[0]
    assert "no mask" in found[1]


def test_a_bound_on_a_score_that_there_is_not_is_an_error(run, tmp_path):
    with pytest.raises(FedSynthError, match="did you mean 'auc'"):
        said(run, most={"membership.aucc": 0.6})
    file = tmp_path / "release.toml"
    file.write_text('[least]\n"segmentation.dise/synthetic" = 0.5\n')
    arguments = ["release", str(run.folder), "--out", str(tmp_path / "out"), "--criteria", str(file)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert "dice/synthetic" in done.stderr


def test_what_was_not_measured_is_not_met(run):
    assert "not run" in said(run, verdicts={"audit": ["no contradiction found"]})[0]
    assert "not known" in said(run, most={"fidelity.kid/filters": 0.1})[0]
    run.benchmark("memorization").unlink()
    assert any("memorization was not run" in reason for reason in said(run))


def test_epsilon_is_bounded_and_a_run_without_one_is_refused(run, tmp_path):
    save_toml(run.checkpoints / "generator.toml", {"generator": "dcgan", "lineage": Lineage(runs=(PHANTOM_RUN,))})
    assert said(run, max_epsilon=8.0) == [], "phantoms have nothing to spend elsewhere"
    assert "more than 4" in said(run, max_epsilon=4.0)[0]
    plain = make_run(tmp_path / "plain")
    tiny_set().save(plain.synthetic)
    facts = read_facts(plain.folder)
    assert any(
        "not private" in reason for reason in objections(facts, Criteria(verdicts={}, max_epsilon=4), tiny_set())
    )


def test_what_patients_spent_over_all_runs_must_be_known(run, tmp_path, monkeypatch):
    """In the store of each hospital that trained; one ledger that is missing is a budget that nobody knows."""
    monkeypatch.setenv("FEDSYNTH_STORE", str(tmp_path / "store"))
    assert "no ledger" in said(run, max_epsilon=100.0)[0]
    assert said(run, max_epsilon=8.0, this_run_alone=True) == []
    assert "over all runs not known" in card(read_facts(run.folder), Criteria(), tiny_set())
    ledgers = {site: spend(tmp_path / "store", site, [site], "this", 20) for site in "ab"}
    ledgers["a"].copy("this", run.site("a") / "ledger.jsonl")
    assert "the ledger of b is not here" in said(run, max_epsilon=100.0)[0]
    ledgers["b"].copy("this", run.site("b") / "ledger.jsonl")
    assert said(run, max_epsilon=100.0) == []
    spend(tmp_path / "store", "b", ["b"], "another", 4000)
    (reason,) = said(run, max_epsilon=20.0)
    assert "more than 20" in reason
    monkeypatch.setenv("FEDSYNTH_STORE", str(tmp_path / "empty"))
    assert read_facts(run.folder).cells["cumulative"].text.startswith("at least")
    assert "is not counted" in said(run, max_epsilon=100.0)[0]
    facts = read_facts(run.folder)
    for told in (card(facts, Criteria(), tiny_set()), report_page([facts], export=True)):
        assert "is not counted" in told
        assert str(tmp_path) not in told, "what leaves names no place on a disk"


def test_no_readers_name_stands_in_the_card(run):
    scores = {f"accuracy/Dr {name} Smith": Score(value=0.5) for name in "ABC"}
    scores |= {"accuracy": Score(value=0.6), "kappa": Score(value=0.1), "quality/real": Score(value=4.0)}
    add_result(run, "readers", scores)
    told = card(read_facts(run.folder), Criteria(), tiny_set())
    assert "readers: accuracy 0.6, quality/real 4\n" in told
    assert "Smith" not in told


def test_a_set_made_elsewhere_is_judged_by_its_results(run, tmp_path):
    """Results of two sets in a folder of their own, as the benchmarks write them; nothing is known of the making."""
    results = tmp_path / "results"
    results.mkdir()
    for name in ("memorization", "membership", "segmentation"):
        shutil.copy(run.benchmark(name), results)
    made = ImageSet.load(run.synthetic).save(tmp_path / "theirs")
    arguments = ["release", str(results), "--out", str(tmp_path / "out")]
    assert "--synthetic SET" in CliRunner().invoke(app, arguments).stderr
    done = CliRunner().invoke(app, [*arguments, "--synthetic", str(tmp_path / "theirs")])
    assert done.exit_code == 0, done.output
    told = (tmp_path / "out" / "README.md").read_text()
    assert "made elsewhere" in told
    assert "memorization: pass" in told
    facts = read_facts(results)
    assert "made elsewhere" in objections(facts, Criteria(max_epsilon=8.0), made)[0]
    assert "made elsewhere" in " ".join(answer(facts).sentences)
    assert facts.cells["dice"].value == 0.7
    for command in ("compare", "report"):
        assert CliRunner().invoke(app, [command, str(results)]).exit_code == 0
    assert "0.7 [0.6, 0.8]" in (results / "report.html").read_text()
    with pytest.raises(FedSynthError, match="no such run"):
        read_facts(tmp_path / "nothing")


def test_a_plain_set_does_not_leave_under_a_private_runs_epsilon(run, tmp_path):
    """Its results stand in the run, as they did when any set could be measured there: the run's own set is another."""
    private = ImageSet.load(run.synthetic)
    plain = replace(private, images=255 - np.asarray(private.images)).save(tmp_path / "plain")
    for name in ("memorization", "membership"):
        found = load_result(run.benchmark(name))
        replace(found, inputs={**found.inputs, "synthetic": Input.of(plain)}).save(run.benchmark(name))
    arguments = ["release", str(run.folder), "--synthetic", str(tmp_path / "plain"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    assert "not said of it" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_set_that_was_put_in_the_place_of_the_own_one_stays(run):
    """Both the generator's card and the set say who made it."""
    of_generator = {"generator": "dcgan", "privacy": "epsilon 8", "private": True}
    save_toml(run.checkpoints / "generator.toml", of_generator)
    assert "another generator" in said(run)[0]
    own = ImageSet.load(run.synthetic)
    for told, fits in (("epsilon 8", True), ("not private", False)):
        made = own.with_cases(own.cases, provenance={"generator": "dcgan", "privacy": told})
        made.save(run.synthetic, overwrite=True)
        assert (said(run) == []) == fits


def test_verdicts_add_to_those_of_leakage(run):
    """An empty or a narrowed table once dropped a leak in silence."""
    judge(run, "leak")
    for narrowed in ({}, {"membership": ("pass",)}, {"audit": ("no contradiction found",)}):
        assert any(line.startswith("memorization: the verdict is leak") for line in said(run, verdicts=narrowed))
    run.benchmark("membership").unlink()
    assert said(run, verdicts={"memorization": ("pass", "leak")}) == ["membership was not run"]


def test_results_on_different_real_images_stay(run):
    other = replace(load_result(run.benchmark("memorization")).inputs["real"], sha256="y")
    found = load_result(run.benchmark("memorization"))
    replace(found, inputs={**found.inputs, "real": other}).save(run.benchmark("memorization"))
    (reason,) = said(run)
    assert "2 different real sets (memorization | membership, segmentation)" in reason
    facts = read_facts(run.folder)
    assert any("different real sets" in line for line in differences([facts]))
    assert "different real sets" in report_page([facts])


def test_results_of_a_set_that_was_drawn_anew_are_marked(run):
    """Everything was measured; then the generator drew another set into the run."""
    own = ImageSet.load(run.synthetic)
    replace(own, images=255 - np.asarray(own.images)).save(run.synthetic, overwrite=True)
    facts = read_facts(run.folder)
    assert facts.cells["verdict"].text == facts.cells["membership"].text == "of another set"
    assert set(facts.strange) == {"memorization", "membership"}
    assert facts.cells["dice"].value == 0.7, "its result does not say of which set it is"
    assert any("measured on another set" in line for line in reasons([facts]))
    assert answer(facts).tone == "open"
    assert [line for line in said(run) if "memorization was measured on another set" in line]


def test_another_set_than_the_measured_one_stays(run):
    other = ImageSet.load(run.synthetic).rows(range(3))
    assert any("not the one" in line for line in objections(read_facts(run.folder), Criteria(), other))


@pytest.mark.parametrize(
    "wrong",
    [
        {"verdicts": {"memorisation": ["pass"]}},
        {"verdicts": {"audit": ["ok"]}},
        {"most": {"auc": 1.0}},
        {"max_epsilon": -1.0},
        {"verdicts": {"fidelity": ["pass"]}},
        {"most": {"membership.auc": float("nan")}},
        {"max_epsilon": float("nan")},
    ],
)
def test_criteria_that_mean_nothing_are_refused(wrong):
    with pytest.raises(FedSynthError):
        Criteria(**wrong)


def test_a_release_in_the_receivers_form_is_signed_verified_and_withdrawn(run, tmp_path):
    def call(*words, code=0):
        done = CliRunner().invoke(app, [*map(str, words)])
        assert done.exit_code == code, done.output
        return done.stdout

    out, key = tmp_path / "out", tmp_path / "hospital.pem"
    told = call("release", run.folder, "--out", out, "--format", "huggingface", "--key", key)
    public = told.split("publish")[1].split()[0]
    assert f"fedsynth verify {out} --key {public}" in told
    assert (out / "README.md").read_text().startswith("---\npretty_name:")
    assert "What was measured" in (out / "README.md").read_text()
    assert "as you expect" in call("verify", out, "--key", public)
    assert "--key tells whether" in call("verify", out)
    call("withdraw", out, "--reason", "a patient objected", "--key", key, "--out", tmp_path / "notice.json")
    assert "a patient objected" in call("verify", out, "--notice", tmp_path / "notice.json", code=1)
    assert "with the hash x. The generator was trained on the members" in (out / "README.md").read_text()
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["release"] |= {"signed": "by the hospital, as you expect", "licence": "free\x1b[2K"}
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "manifest.json").write_text(json.dumps(manifest | {"files": {}, "public-key": ""}))
    told = call("verify", tmp_path / "fake")
    assert told.count("signed ") == 1
    assert "by nobody" in told
    assert "free?[2K" in told
    next(out.rglob("*.png")).write_bytes(b"")
    assert "has changed" in call("verify", out, code=1)
    plain = tmp_path / "plain"
    call("release", run.folder, "--out", plain)
    assert len(ImageSet.load(plain)) == len(ImageSet.load(run.synthetic))
    assert "signed     by nobody" in call("verify", plain)
    call("withdraw", plain, "--reason", "x", "--key", key, code=2)
    call("release", run.folder, "--out", tmp_path / "other", "--format", "pngs", code=2)


def test_table_page_and_card_say_one_sentence_of_how_much_single_patients_are_told(run):
    sentence = "An attacker recognises 12 % of the members."
    scores = {"copied_share": Score(value=0.0, low=0.0, high=0.03), "recognised_members": Score(value=0.12)}
    add_result(run, "memorization", scores, details={"effect": {"sentence": sentence}}, verdict="depends")
    facts = read_facts(run.folder)
    assert facts.cells["recognised"].value == 0.12
    assert sentence in " ".join(answer(facts).sentences)
    assert sentence in card(facts, Criteria(), ImageSet.load(run.synthetic))
