"""`fedsynth benchmark membership` in process: exit codes, the result's form, the picture, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import Result as Called
from PIL import Image
from typer.testing import CliRunner

from fedsynth.cli import app
from fedsynth.data import Header, ImageSet, Shares, Split
from fedsynth.evaluation.score import content_hash, load_result
from fedsynth.runs import create_run
from fedsynth.training.centralised import run_training
from fedsynth.training.settings import TrainSettings

SIZE = 12


def blobs(n_patients: int, images: int, seed: int) -> np.ndarray:
    """Patients as smooth fields, their images as noisy views of them; (n, 1, size, size)."""
    rng = np.random.default_rng(seed)
    shared = np.repeat(rng.normal(size=(n_patients, 1, 4, 4)), images, axis=0)
    fields = np.kron(shared + 0.4 * rng.normal(size=shared.shape), np.ones((1, 1, 3, 3)))
    fields += 0.1 * rng.normal(size=fields.shape)
    return np.clip(128 + 40 * fields, 1, 254).astype(np.uint8)


def real_set(n_patients: int = 100, *, roles: bool = True, split: bool = True) -> ImageSet:
    """Two images of each patient; members and holdout drawn at random within two sites."""
    rng = np.random.default_rng(5)
    role = np.empty(n_patients, object)
    for site in range(2):
        inside = rng.permutation(np.arange(site, n_patients, 2))
        role[inside[: len(inside) // 2]], role[inside[len(inside) // 2 :]] = "member", "holdout"
    rows = [
        {
            "case": f"p{i:03d}-{slice_}",
            "patient": f"p{i:03d}",
            "site": ["north", "south"][i % 2],
            "role": role[i] if roles else "",
            "class": "",
            "slice": str(slice_),
        }
        for i in range(n_patients)
        for slice_ in range(2)
    ]
    drawn = Split(seed=0, shares=Shares(member=0.5, holdout=0.5, reference=0.0)) if split else None
    header = Header(name="real", origin="real", channels=("t1",), spacing_mm=(1.0, 1.0), split=drawn)
    return ImageSet(header=header, cases=pd.DataFrame(rows, dtype=str), images=blobs(n_patients, 2, 1))


def synthetic_set(images: np.ndarray, channel: str = "t1") -> ImageSet:
    empty = {"patient": "", "site": "", "role": "", "class": "", "slice": ""}
    rows = [{"case": f"s{i}", **empty} for i in range(len(images))]
    header = Header(name="made", origin="synthetic", channels=(channel,), spacing_mm=(1.0, 1.0))
    return ImageSet(header=header, cases=pd.DataFrame(rows, dtype=str), images=images)


def of_members(real: ImageSet) -> ImageSet:
    """Noisy images of the members: what an overfitted generator draws."""
    images = real.images[np.flatnonzero((real.cases["role"] == "member").to_numpy())].astype(int)
    noisy = images + np.random.default_rng(0).integers(-6, 7, images.shape)
    return synthetic_set(np.clip(noisy, 0, 255).astype(np.uint8))


def call(*arguments: object) -> Called:
    return CliRunner().invoke(app, ["benchmark", "membership", *map(str, arguments)])


def given(folder: Path, real: ImageSet, synthetic: ImageSet) -> list[object]:
    real.save(folder / "real")
    synthetic.save(folder / "synthetic")
    return ["--real", folder / "real", "--synthetic", folder / "synthetic", "--spaces", "components"]


def test_an_honest_set_passes_and_an_overfitted_one_does_not(tmp_path: Path) -> None:
    real = real_set()
    arguments = given(tmp_path, real, synthetic_set(blobs(150, 1, 2)))
    honest = call(*arguments, "--out", tmp_path / "report")
    assert honest.exit_code == 0, honest.output
    assert "PASS" in honest.output
    assert "not resolvable: 50 holdout patients" in honest.output
    result = load_result(tmp_path / "report/membership.json")
    assert (result.benchmark, result.verdict, set(result.per_site)) == ("membership", "pass", {"north", "south"})
    assert set(result.details["attacks"]) == {f"{name}@components" for name in ATTACKS}
    with Image.open(tmp_path / "report/membership-roc.png") as picture:
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 20

    of_members(real).save(tmp_path / "synthetic", overwrite=True)
    synthetic_set(blobs(60, 1, 3)).save(tmp_path / "reference")
    leaking = call(*arguments, "--reference", tmp_path / "reference", "--json", "--out", tmp_path / "out", "--export")
    assert leaking.exit_code == 1, leaking.output
    found = json.loads(leaking.stdout)
    best = found["scores"]["calibrated@components"]
    assert best["low"] > 0.8
    assert 0.3 < best["control"] < 0.7
    assert found["inputs"]["real"]["roles"] == {"member": 50, "holdout": 50}
    assert found["inputs"]["real"]["sha256"] == content_hash(real), "the same as every other benchmark says"
    assert found["inputs"]["reference"]["images"] == 60
    left = leaking.stdout + (tmp_path / "out/membership.json").read_text()
    assert str(tmp_path) in (tmp_path / "report/membership.json").read_text()
    assert str(tmp_path) not in left
    assert not [name for name in set(real.cases["patient"]) if f'"{name}"' in left]


ATTACKS = ("distance", "calibrated", "density", "monte_carlo")


@pytest.mark.parametrize("what", ["few", "not drawn"])
def test_what_cannot_be_known_is_neither_pass_nor_leak(tmp_path: Path, what: str) -> None:
    real = real_set(12) if what == "few" else real_set(split=False)
    called = call(*given(tmp_path, real, of_members(real) if what == "not drawn" else synthetic_set(blobs(40, 1, 2))))
    assert called.exit_code == 3, called.output
    assert "INCONCLUSIVE" in called.output


def test_brighter_members_void_the_test(tmp_path: Path) -> None:
    real = real_set()
    member = (real.cases["role"] == "member").to_numpy()
    images = real.images.copy()
    images[member] = np.clip(images[member].astype(int) + 25, 0, 254)
    biased = ImageSet(header=real.header, cases=real.cases, images=images)
    called = call(*given(tmp_path, biased, synthetic_set(blobs(150, 1, 2))))
    assert called.exit_code == 3, called.output
    assert "INVALID" in called.output


def test_a_run_brings_its_discriminator(tmp_path: Path) -> None:
    real = real_set().save(tmp_path / "real")
    settings = TrainSettings(generator="mlp", images=tmp_path / "real", steps=3, batch=16, sheets=0)
    run = create_run(settings, generator="mlp", folder=tmp_path / "runs/one")
    run_training(real, settings, run)
    synthetic_set(blobs(80, 1, 2)).save(run.synthetic)
    called = call(run.folder, "--spaces", "components")
    assert called.exit_code in (0, 3), called.output
    result = load_result(run.benchmark("membership"))
    assert "discriminator" in result.scores
    assert (run.folder / "benchmarks/membership-roc.png").is_file()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("roles", "no patient has a role"),
        ("channels", "differ in channels"),
        ("space", "no such feature space"),
        ("reference", "the reference must be a synthetic set"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path: Path, wrong: str, said: str) -> None:
    real = real_set(12, roles=wrong != "roles", split=wrong != "roles")
    arguments = given(tmp_path, real, synthetic_set(blobs(9, 1, 2), "flair" if wrong == "channels" else "t1"))
    if wrong == "space":
        arguments[-1] = "pixel"
    if wrong == "reference":
        arguments += ["--reference", tmp_path / "real"]
    called = call(*arguments)
    assert called.exit_code == 2
    assert said in called.stderr
    assert len(called.stderr.strip().splitlines()) == 1
