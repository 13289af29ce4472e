"""What follows from the real set alone: computed once, told from everything else, and the same to the bit."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from fedsynth import code_digest
from fedsynth.data import Shares
from fedsynth.data.phantoms.cohort import make_phantoms
from fedsynth.data.phantoms.settings import PhantomSettings
from fedsynth.evaluation.evidence import gather
from fedsynth.evaluation.feature_spaces.encoder import Encoder
from fedsynth.evaluation.membership.benchmark import run_membership
from fedsynth.evaluation.memorization.benchmark import run_memorization
from fedsynth.evaluation.memorization.result import as_result
from fedsynth.evaluation.settings import MembershipSettings, MemorizationSettings
from fedsynth.evaluation.shared_cache import Form, SharedCache
from tests.evaluation.memorization.test_hostile import as_output
from tests.test_atomic_files import disk_that_takes

FEW = MemorizationSettings(control_repeats=2, spaces=("pixels", "left"))


def phantoms(folder, seed):
    settings = PhantomSettings(patients=24, slices=2, size=24, sites=2, seed=seed, shares=Shares())
    return make_phantoms(folder, settings, workers=1)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    return phantoms(tmp_path_factory.mktemp("real") / "set", 1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return [as_output(phantoms(tmp_path_factory.mktemp(f"made-{seed}") / "set", seed)) for seed in (2, 3)]


def features(encoder, real, seed=0):
    encoder.fit(real, seed=seed)
    return encoder.features(real)


def test_an_encoder_is_trained_once_and_gives_the_same_features_to_the_bit(real, tmp_path):
    kept = SharedCache(folder=tmp_path)
    alone = features(Encoder(steps=2), real)
    before = torch.get_rng_state()
    for _ in range(2):
        assert np.array_equal(features(Encoder(steps=2, kept=kept), real), alone)
        assert torch.equal(torch.get_rng_state(), before)
        (file,) = tmp_path.glob("*.safetensors")
        written = file.stat().st_mtime_ns
    features(Encoder(steps=2, kept=kept), real)
    assert file.stat().st_mtime_ns == written
    file.write_bytes(b"damaged")
    assert np.array_equal(features(Encoder(steps=2, kept=kept), real), alone)


def test_another_seed_length_or_patient_is_another_encoder(real, tmp_path):
    kept = SharedCache(folder=tmp_path)
    cases = real.cases.copy()
    cases.loc[0, "patient"] = cases.loc[5, "patient"]
    first = features(Encoder(steps=2, kept=kept), real)
    for other in (
        features(Encoder(steps=2, kept=kept), real, seed=1),
        features(Encoder(steps=3, kept=kept), real),
        features(Encoder(steps=2, kept=kept), replace(real, cases=cases)),
        features(Encoder(steps=2, kept=kept), real.rows(np.arange(len(real) - 1)))[: len(real) - 1],
    ):
        assert not np.array_equal(first[: len(other)], other)
    assert len(list(tmp_path.glob("*.safetensors"))) == 5


def scores(found):
    result = as_result(found)
    return {name: asdict(score) for name, score in result.scores.items()}, result.details, result.verdict


def test_memorization_is_the_same_with_what_was_kept(real, made, tmp_path):
    kept = SharedCache(folder=tmp_path)
    for synthetic in made:
        evidence = gather(real, synthetic)
        assert scores(run_memorization(evidence, FEW, kept=kept)) == scores(run_memorization(evidence, FEW))
    (file,) = tmp_path.glob("*.json")  # both sets shared the controls of the real images
    told = json.loads(file.read_text())
    told["honest"][0] |= {"fired": 2, "allowed": 0}
    file.write_text(json.dumps(told))
    evidence = gather(real, made[0])
    assert not run_memorization(evidence, FEW, kept=kept).controls["half of the holdout"].holds
    for other in (replace(FEW, seed=1), replace(FEW, control_repeats=3), replace(FEW, spaces=("pixels", "right"))):
        assert scores(run_memorization(evidence, other, kept=kept)) == scores(run_memorization(evidence, other))


def test_membership_takes_the_encoder_that_was_kept(real, made, tmp_path):
    settings = MembershipSettings(spaces=("encoder",), permutations=99, halves=2)
    kept = SharedCache(folder=tmp_path)
    for synthetic in made:
        run_membership(gather(real, synthetic), settings, kept=kept)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1


TEXT = Form(ending=".txt", write=str.encode, read=bytes.decode)


def fails():
    raise AssertionError("it was kept")


def test_what_is_kept_can_be_read_by_nobody_else(tmp_path):
    (tmp_path / "beside").mkdir()
    kept = SharedCache(folder=tmp_path / "runs" / "cache" / "real")
    assert kept.get({"of": 1}, lambda: "made", TEXT) == "made"
    assert kept.get({"of": 1}, fails, TEXT) == "made"
    assert kept.folder.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in kept.folder.iterdir()] == [0o600, 0o600]
    assert (tmp_path / "runs").stat().st_mode == (tmp_path / "beside").stat().st_mode


def test_a_full_disk_costs_no_result(tmp_path):
    kept = SharedCache(folder=tmp_path)
    with disk_that_takes(100):
        assert kept.get({"of": 1}, lambda: "x" * 1000, TEXT) == "x" * 1000
    assert not list(tmp_path.glob("*.txt"))
    assert kept.get({"of": 1}, lambda: "again", TEXT) == "again"


def test_what_code_that_was_edited_meanwhile_gives_is_not_kept(tmp_path, monkeypatch):
    kept = SharedCache(folder=tmp_path)
    kept.get({"of": 1}, lambda: "before", TEXT)
    monkeypatch.setattr(code_digest, "_read", lambda: {"models/base.py": "edited"})
    assert kept.get({"of": 1}, fails, TEXT) == "before"
    assert kept.get({"of": 2}, lambda: "after", TEXT) == "after"
    assert len(list(tmp_path.glob("*.txt"))) == 1
