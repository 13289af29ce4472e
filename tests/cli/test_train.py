"""train, synthesize and export from the command line, in process."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedsynth.cli import app
from fedsynth.data import ImageSet
from tests.training.tiny import tiny_set

TRAIN = ["--generator", "mlp", "--steps", "2", "--batch", "2", "--sheets", "0", "--option", "hidden=8,8"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tiny_set().save(tmp_path / "set")
    return tmp_path


def call(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    return result.output


def test_from_set_to_run_to_synthetic_set_to_export(place: Path) -> None:
    told = json.loads(call("train", "set", *TRAIN, "--json"))
    assert told["steps"] == 2
    assert Path(told["run"]).parent.name == "runs"
    call("synthesize", "--count", "5", "--out", "drawn", "--mix", "a=1")
    drawn = ImageSet.load(place / "drawn")
    assert drawn.cases["class"].tolist() == ["a"] * 5
    assert json.loads(call("export", "drawn", "bids", "--json")) == {"out": "bids", "format": "nifti", "images": 5}
    assert len(list((place / "bids").glob("sub-*/anat/*_dseg.nii.gz"))) == 5
    call("synthesize", "--count", "3", "--out", "pictures", "--format", "png")
    told = call("synthesize", "--count", "4")
    [run] = Path("runs").iterdir()
    assert len(ImageSet.load(run / "synthetic")) == 4
    assert f"fedsynth benchmark memorization {run}\n" in told
    assert len(list((place / "pictures").glob("*/*_mask.png"))) == 3


def test_resume_with_other_settings_names_the_difference(place: Path) -> None:
    call("train", "set", *TRAIN, "--run", "one")
    call("train", "set", *TRAIN, "--run", "one", "--resume")
    told = call("train", "set", *TRAIN, "--seed", "5", "--run", "one", "--resume", code=2)
    wanted = "the run was started with seed = 0, not 5; resume with the same settings, or leave them out"
    assert told == f"fedsynth: one: {wanted}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nowhere", "--generator", "mlp"], "nowhere: there is no such folder"),
        (["train", "set", "--generator", "dcgn"], "unknown generator (found 'dcgn'); did you mean 'dcgan'?"),
        (["train", "set", "--generator", "mlp", "--device", "gpu"], "'device' has an unknown value"),
        (["train", "set", "--generator", "mlp", "--device", "cuda"], "CUDA was asked for and there is none"),
        (["train", "set", "--generator", "mlp", "--option", "hidden"], "--option needs NAME=VALUE"),
        (["train", "set", "--generator", "mlp", "--steps", "0"], "--steps must be at least 1"),
        (["train", "set", "-g", "mlp", "--epsilon", "8"], "--epsilon needs the declared number of patients"),
        (["train", "set", "-g", "mlp", "--patients", "8"], "was given without --epsilon"),
        (["train", "set", "-g", "mlp", "--epsilon", "-1", "--patients", "8"], "epsilon"),
        (
            ["train", "set", "-g", "mlp", "--epsilon", "1", "--patients", "4", "--expected-batch-size", "9"],
            "within the declared",
        ),
        (["train", "set", "-g", "spade"], "needs pairs"),
        (["train", "set", "-g", "spade", "--pairing", "t1-to-flair"], "unknown channel"),
        (["train", "set", "-g", "dcgan", "--pairing", "label-to-image"], "makes no images of label maps"),
        (["synthesize", "--count", "3", "--out", "x"], "there is no run yet"),
        (["synthesize"], "there is no run yet"),
        (["synthesize", "--count", "3", "--out", "x", "--format", "nift"], "did you mean 'nifti'?"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(place: Path, arguments: list[str], message: str) -> None:
    told = call(*arguments, code=2)
    assert message in told
    assert told.count("\n") == 1
    assert {path.name for path in place.iterdir()} == {"set"}


def test_a_private_run_says_what_it_can_do_and_what_it_claims(place: Path) -> None:
    quiet = ["--generator", "mlp", "--steps", "2", "--sheets", "0", "--option", "hidden=8,8"]
    private = ["--epsilon", "8", "--patients", "8", "--expected-batch-size", "4", "--store", "store"]
    told = call("train", "set", *quiet, *private, "--run", "one")
    assert "times the clip norm" in told
    assert "epsilon 8 at delta 1e-05 per patient, add/remove" in told
    shown = CliRunner(env={"COLUMNS": "120"}).invoke(app, ["privacy", "store"]).stdout
    assert "centralised" in shown
    spent = json.loads(call("privacy", "one", "--json"))["per_site"]["centralised"]
    assert spent["steps"] == 2
    assert "why" not in spent  # the run knows its store, wherever one is by default
    call("train", "set", *quiet, *private, "--run", "one", "--resume")
    stamped = call("train", "set", *quiet, *private, "--insecure-seed", "1", "--run", "two")
    assert "NOT PRIVATE" in stamped


def test_what_patients_had_spent_before_is_said_at_the_end(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDSYNTH_STORE", str(place / "store"))
    private = ["-g", "mlp", "--steps", "2", "--sheets", "0", "--option", "hidden=8,8", "--epsilon", "4"]
    private += ["--patients", "8", "--expected-batch-size", "8"]
    assert "\nin all" not in call("train", "set", *private, "--run", "one")
    told = call("train", "set", *private, "--run", "two")
    assert "in all   epsilon 6 spent" in told
    assert "over all runs of the store; this run alone epsilon 4" in told
    again = CliRunner().invoke(app, ["train", "set", *private, "--run", "three", "--json"]).stdout
    assert json.loads(again)["epsilon_over_all_runs"] > 6


@pytest.mark.slow
def test_every_family_is_listed_with_its_path(place: Path) -> None:
    rows = {row["name"]: row for row in json.loads(call("list", "generators", "--json"))["generators"]}
    assert len(rows) == 21
    assert rows["dcgan"]["how"] == "discriminator: fast path"
    assert rows["wgan-gp"]["how"] == "discriminator: vmap(grad)"
    assert rows["spade"]["private"] is False
    assert "patients" in rows["spade"]["how"]


def test_renderers_of_label_maps_draw_from_a_source_or_from_maps_that_are_drawn(place: Path) -> None:
    tiny_set(size=16).save(place / "set", overwrite=True)
    paired = ["--generator", "pix2pix", "--pairing", "label-to-image", "--option", "base=4"]
    call("train", "set", *paired, "--steps", "1", "--batch", "2", "--sheets", "0", "--run", "one")
    call("synthesize", "one", "--count", "3", "--out", "a", "--source", "set")
    call("synthesize", "one", "--count", "3", "--out", "b")
    assert len(ImageSet.load(place / "b")) == 3
    told = call("synthesize", "one", "--count", "3", "--out", "c", "--transplant", code=2)
    assert "the source set has no healthy images" in told
    call(
        "train",
        "set",
        "--pairing",
        "denoising",
        "--generator",
        "pix2pix",
        "--option",
        "base=4",
        "--steps",
        "1",
        "--run",
        "two",
    )
    told = call("synthesize", "two", "--count", "3", "--out", "d", code=2)
    assert "give --source SET, or train two stages" in told
