"""`fedsynth simulate` in process: a whole run, resuming, private runs, ways of sharing, and what is refused."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedsynth.cli import app
from fedsynth.data import ImageSet
from fedsynth.federation import client_app
from tests.models.pictures import fans, public_fans
from tests.training.tiny import tiny_set

SMALL = ["-g", "mlp", "--rounds", "2", "--local-steps", "2", "--batch", "4", "--count", "6"]
NETS = ["--option", "latent=4", "--option", "hidden=8,8", "--option", "discriminator_hidden=8,8"]


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["simulate", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


@pytest.fixture
def held(tmp_path: Path) -> Path:
    tiny_set(patients=9).save(tmp_path / "held")
    return tmp_path / "held"


def test_a_run_from_a_set_tells_what_happened(tmp_path: Path, held: Path) -> None:
    place = tmp_path / "run"
    said = run("--sites", 3, "--data", held, "--partition", "iid", *SMALL, *NETS, "--run", place)
    assert "2 rounds of 2 steps at 3 sites, fedavg" in said
    assert "answered   6 of 6 times" in said
    assert f"fedsynth benchmark memorization {place}" in said
    drawn = ImageSet.load(place / "synthetic")
    assert len(drawn) == 6
    assert drawn.header.origin == "synthetic"
    assert drawn.masks is not None
    assert (place / "samples" / "synthetic.png").is_file()
    assert not (place / "samples" / "real-and-synthetic.png").exists()  # patients stay in the sites' folders
    assert all((place / "sites" / f"site-{i}" / "real-and-synthetic.png").is_file() for i in (1, 2, 3))


def test_resuming_takes_the_runs_own_settings_and_gives_the_same(tmp_path: Path, held: Path) -> None:
    start = ["--sites", "2", "--data", str(held), "--partition", "iid", *SMALL, *NETS]
    run(*start, "--run", tmp_path / "run")
    first = (tmp_path / "run" / "checkpoints" / "generator.safetensors").read_bytes()
    (tmp_path / "run" / "checkpoints" / "round-0002.safetensors").unlink()
    (tmp_path / "run" / "checkpoints" / "generator.safetensors").unlink()
    client_app.forget_everything()
    said = json.loads(run("--resume", "--run", tmp_path / "run", "--json"))
    assert said["answered"] == 4
    assert said["images"] == 6
    assert said["epsilon"] == {}
    assert (tmp_path / "run" / "checkpoints" / "generator.safetensors").read_bytes() == first
    assert "started with rounds = 2, not 3" in run("--resume", "--run", tmp_path / "run", "--rounds", 3, code=2)
    assert "started with options.latent = 4, not 5" in run(
        "--resume", "--run", tmp_path / "run", "--option", "latent=5", code=2
    )
    assert "started with sites = 2, not 3" in run(
        "--resume", "--run", tmp_path / "run", "--sites", 3, "--data", held, "--partition", "iid", code=2
    )


def test_phantoms_where_there_is_no_data(tmp_path: Path) -> None:
    file = tmp_path / "few.toml"
    file.write_text("sites = 2\n[phantom]\npatients = 6\nslices = 1\nsize = 16\n")
    place = tmp_path / "run"
    said = run("--sites", file, "-g", "dcgan", "--rounds", 1, "--local-steps", 1, "--batch", 2, "--count", 4,
               "--option", "base=4", "--run", place)  # fmt: skip
    assert "real-and-synthetic.png" in said
    assert (place / "phantoms" / "imageset.toml").is_file()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".phantoms")] == []


@pytest.mark.slow
def test_a_paired_family_needs_no_source_and_learns_from_phantoms_with_tissues(tmp_path: Path) -> None:
    place = tmp_path / "run"
    asked = ["--sites", 2, "-g", "spade", "--pairing", "label-to-image", "--option", "base=4", "--count", 4]
    said = run(*asked, "--rounds", 1, "--local-steps", 2, "--run", place)
    assert "answered   20 of 20 times" in said  # a round of training, then nine of fitting
    made = ImageSet.load(place / "synthetic")
    assert made.header.mask_labels[:4] == ("background", "csf", "grey", "white")
    assert json.loads(run("--resume", *asked, "--run", place, "--json"))["images"] == 4


def test_each_on_its_own_pools_its_images_once(tmp_path: Path, held: Path) -> None:
    run("--sites", 2, "--data", held, "--partition", "iid", *SMALL, *NETS, "--federation", "none",
        "--run", tmp_path / "run")  # fmt: skip
    cases = ImageSet.load(tmp_path / "run" / "synthetic").cases["case"]
    assert sorted(case.rsplit("-", 1)[0] for case in cases) == ["site-1-synthetic"] * 3 + ["site-2-synthetic"] * 3


def test_a_release_beside_a_public_set_and_what_is_refused(tmp_path: Path) -> None:
    hospital, place = tmp_path / "hospital", tmp_path / "run"
    fans(12, seed=2, name="patient").save(hospital)
    archive = public_fans(tmp_path / "archive", patients=15)
    release = ["--sites", 1, "--data", hospital, "--run", place, "--epsilon", 8, "--patients", 12]
    release += ["--option", "pool=20", "--option", "children=20", "--option", "slices=1", "--count", 4]
    for wrong, said in (
        (["-g", "fitted-pool"], "give --public SET"),
        (["--public", "phantoms"], "name public images of that kind with --public SET"),
        (["--public", archive, "-g", "dcgan"], "leave --generator away"),
        (["--public", hospital], "are in the public set"),
        (["--public", archive, "--patients", 9], "fewer than 10 patients"),
    ):
        lines = run(*release, *wrong, "--store", tmp_path / "store", code=2).splitlines()
        assert said in lines[-1]
        assert sum(line.startswith("fedsynth: ") for line in lines) == 1
    assert not place.exists()
    assert not (tmp_path / "store").exists()
    told = run(*release, "--public", archive, "--store", tmp_path / "store")
    assert "fitted     fitted-pool to one sum over patients of 1 sites" in told
    assert "public-fans" in ImageSet.load(place / "synthetic").header.provenance["consists-of"]


@pytest.mark.slow
def test_a_private_run_says_what_was_spent(tmp_path: Path, held: Path) -> None:
    small = [*SMALL[:6], "--count", "4"]
    said = run("--sites", 2, "--data", held, "--partition", "iid", *small, *NETS, "--epsilon", 8, "--patients", 10,
               "--expected-batch-size", 4, "--delta", 1e-3, "--store", tmp_path / "store",
               "--run", tmp_path / "run")  # fmt: skip
    assert "privacy    epsilon 8 at delta 0.001 per patient" in said
    assert "spent      epsilon by site: site-1 " in said
    assert sorted(path.parent.name for path in (tmp_path / "store").glob("*/ledger.jsonl")) == ["site-1", "site-2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "--rounds must be at least 1 (found 0)"),
        (["--sites", "3", "--min-sites", "4"], "--min-sites must lie within the number of sites"),
        (["--sites", "0"], "--sites must be at least 1"),
        (["--sites", "nowhere.toml"], "nowhere.toml: there is no such file"),
        (["--data", "nowhere"], "there is no such folder"),
        (["--partition", "iid"], "--partition shares out an image set; give --data SET"),
        (["-g", "dcgann"], "did you mean 'dcgan'"),
        (["--strategy", "fedprox", "--strategy-option", "tau=1"], "fedprox has no such option"),
        (["--federation", "star"], "'federation' has an unknown value"),
        (["--patients", "50"], "without --epsilon"),
        (["--epsilon", "8"], "needs the declared number of patients"),
        (["--epsilon", "8", "--patients", "50", "--weighting", "patients"], "never weights by patients"),
        (["--engine", "rya"], "did you mean 'ray'"),
        (["--workers", "0"], "--workers must be at least 1"),
        (["--resume"], "--resume needs the run"),
        (["--inject", "drop=1"], "--inject knows no such failure"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = run(*arguments, code=2)
    assert message in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_fit_the_data_leaves_nothing(tmp_path: Path, held: Path) -> None:
    base = ["--sites", "2", "--data", str(held), "--partition", "iid", "--run", str(tmp_path / "run")]
    assert "must declare every site" in run(*base, *SMALL, *NETS, "--weighting", "declared:site-1=3", code=2)
    assert "did you mean 'latent'" in run(*base, *SMALL, "--option", "latnet=4", code=2)
    assert not (tmp_path / "run").exists()
    run(*base, *SMALL, *NETS)
    assert "not empty" in run(*base, *SMALL, *NETS, code=2)
