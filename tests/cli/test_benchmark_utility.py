"""`fedsynth benchmark segmentation | classification | fidelity` in process: results, files, and one line for errors."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

import fedsynth
from fedsynth.api.evaluation import evaluate
from fedsynth.cli import app
from fedsynth.data.phantoms.cohort import make_phantoms
from fedsynth.data.phantoms.settings import PhantomSettings
from fedsynth.errors import FedSynthError
from fedsynth.evaluation.evidence import real_images_of
from fedsynth.evaluation.score import load_result
from fedsynth.evaluation.utility import patient_scores
from fedsynth.runs import create_run
from fedsynth.training.roles import roles_mark
from tests.evaluation.reader_study.sets import real_and_synthetic


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    real = make_phantoms(folder / "real", PhantomSettings(size=32, patients=24, slices=3, sites=2), workers=1)
    members = real.select(role="member")
    cases = members.cases.assign(patient="", site="", role="")
    header = replace(members.header, origin="synthetic", split=None)
    replace(members, cases=cases, header=header).save(folder / "synthetic")
    return ["--real", str(folder / "real"), "--synthetic", str(folder / "synthetic")]


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(patient_scores, "REPEATS", 40)


def run(*arguments):
    return CliRunner().invoke(app, ["benchmark", *arguments])


def test_segmentation_prints_a_table_and_writes_the_result(sets, tmp_path):
    out = tmp_path / "segmentation.json"
    public = ["--public", sets[3]]
    given = [
        "segmentation",
        *sets,
        "--steps",
        "3",
        "--arms",
        "real,synthetic",
        "--augmentation",
        "none",
        "--seeds",
        "1",
    ]
    given += public
    done = run(*given, "--out", str(out))
    assert done.exit_code == 0, done.output
    shown, found = done.stdout, load_result(out).scores.keys()
    arms = ("real", "synthetic", "public", "threshold", "mean-image")
    assert {f"{name}/{arm}" for name in ("dice", "fp_area", "brats_slice_dice", "hd95") for arm in arms} <= found
    assert {"dice_ratio/synthetic", "dice_skill/synthetic", "dice_over_public/synthetic"} <= found
    assert "trained on" in shown
    assert "no difference is claimed" in shown
    assert "how lucky its training was is left out" in shown
    heads = shown.splitlines()[0].split()
    assert heads.index("Dice,") < heads.index("FP") < heads.index("mean") < heads.index("slice") < heads.index("skill")
    assert "images not derived from members (public)" in shown


def test_rows_of_one_suite_share_the_arms_on_real_images(tmp_path):
    real, made = real_and_synthetic(patients=24)
    real.save(tmp_path / "real")
    for name in ("a", "b"):
        place = create_run({"images": str(tmp_path / "real")}, generator="x", folder=tmp_path / "cells" / name)
        made.save(place.synthetic)
        place.roles.write_text(roles_mark(real) + "\n")
        done = run("classification", str(place.folder), "--steps", "1", "--seeds", "1", "--arms", "real,synthetic")
        assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "cells" / "cache" / "arms").glob("*.json"))) == 1
    first, second = (load_result(tmp_path / "cells" / name / "benchmarks" / "classification.json") for name in "ab")
    assert first.scores["auc/real+augmentation"] == second.scores["auc/real+augmentation"]


def test_classification_and_fidelity(sets, tmp_path):
    given = ["classification", *sets, "--steps", "3", "--arms", "real", "--seeds", "1", "--json"]
    told = json.loads(run(*given, "--out", str(tmp_path / "found.json")).stdout)["scores"]
    assert "accuracy/real+augmentation" in told
    assert load_result(tmp_path / "found.json").scores.keys() == told.keys()
    done = run("fidelity", *sets, "--steps", "2", "--json")
    told = json.loads(done.stdout)["scores"]
    assert {"kid/filters", "fd/grid", "ms_ssim", "inception_score"} <= told.keys()
    assert fedsynth.fidelity(real=sets[1], synthetic=sets[3], steps=2).as_json()["scores"] == told
    assert "real against real" in run("fidelity", *sets, "--steps", "0").stdout


def test_rows_of_sites_are_printed_and_exports_name_no_patient(sets, tmp_path):
    arms = "real,real-local,real-federated,real-federated-fine-tuned"
    given = ["classification", *sets, "--steps", "2", "--arms", arms, "--augmentation", "none", "--seeds", "1"]
    given += ["--strategy", "fedprox", "--strategy-option", "mu=0.1"]
    few = [one.replace(arms, "real,real-local") for one in given]
    exported = run(*few, "--export", "--out", str(tmp_path / "exported.json"))
    done = run(*given, "--out", str(tmp_path / "found.json"))
    assert done.exit_code == exported.exit_code == 0, done.output
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("hospital-")]
    assert [row[:2] for row in rows] == [
        [site, arm] for site in ("hospital-1", "hospital-2") for arm in (*arms.split(","), "majority-class")
    ]
    text = (tmp_path / "found.json").read_text()
    found = json.loads(text)
    assert (found["settings"]["strategy"], found["settings"]["strategy-options"]) == ("fedprox", {"mu": 0.1})
    real = fedsynth.load(sets[1])
    holdout = real.select(role="holdout").patients
    for site, scores in found["per_site"].items():
        own = scores["accuracy/real-federated"]
        assert own["n"] == (holdout["site"] == site).sum() > 0
        assert own["value"] is None if own["n"] < 6 else own["low"] <= own["value"] <= own["high"]
        assert str(own["n"]) in next(row for row in rows if row[:2] == [site, "real-federated"])
    text = (tmp_path / "exported.json").read_text()
    assert not [name for name in (*real.cases["patient"], *real.cases["case"]) if f'"{name}"' in text]
    assert all(score["n"] >= 6 for scores in json.loads(text)["per_site"].values() for score in scores.values())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["segmentation", "--network", "unnet"], "unet"),
        (["segmentation", "--strategy", "fedbm"], "fedbn"),
        (["segmentation", "--strategy", "fedprox", "--strategy-option", "strength=1"], "fedprox has no such option"),
        (["segmentation", "--network", "vit"], "classification"),
        (["segmentation", "--arms", "syntetic"], "synthetic"),
        (["segmentation", "--steps", "0"], "--steps"),
        (["classification", "--device", "tpu"], "cpu"),
    ],
)
def test_bad_input_is_one_line(sets, arguments, said):
    done = run(arguments[0], *sets, *arguments[1:])
    assert done.exit_code == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_half_of_two_sets_is_refused(sets):
    done = run("fidelity", *sets[2:])
    assert done.exit_code == 2
    assert "--real" in done.stderr


@pytest.fixture
def exchanged(tmp_path):
    """A run whose members and holdout changed places after the training, as its record of roles shows."""
    real, made = real_and_synthetic(patients=24)
    real.save(tmp_path / "real")
    place = create_run({"images": str(tmp_path / "real")}, generator="x", folder=tmp_path / "run")
    made.save(place.synthetic)
    place.roles.write_text(roles_mark(real) + "\n")
    assert real_images_of(place).patients["role"].value_counts()["member"] == 12
    roles = real.cases["role"].map({"member": "holdout", "holdout": "member"})
    real.with_cases(real.cases.assign(role=roles)).save(tmp_path / "real", overwrite=True)
    return place.folder


@pytest.mark.parametrize("name", ["segmentation", "classification", "fidelity", "readers", "memorization"])
def test_roles_exchanged_after_training_are_refused(exchanged, tmp_path, name):
    done = run(name, str(exchanged), *(["--out", str(tmp_path / "sheet")] if name == "readers" else []))
    assert done.exit_code == 2
    assert "trained with" in done.stderr
    assert not (tmp_path / "sheet").exists()


def test_roles_exchanged_after_training_are_refused_in_notebooks_too(exchanged):
    with pytest.raises(FedSynthError, match="trained with"):
        evaluate(exchanged, benchmarks=["fidelity"])
