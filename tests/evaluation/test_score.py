"""The form of results: nothing travels alone, files are read back as they were written."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fedsynth.data.phantoms.cohort import make_phantoms
from fedsynth.data.phantoms.settings import PhantomSettings
from fedsynth.errors import ConfigError
from fedsynth.evaluation.score import Input, Result, Score, content_hash, load_result
from tests.training.tiny import tiny_set


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return make_phantoms(tmp_path_factory.mktemp("set") / "set", PhantomSettings(size=32, patients=4, sites=2))


def result(images, **changes):
    scores = {"dice/real": Score(value=0.5, low=0.25, high=0.75, n=4), "auc": Score(value=None, why="one class only")}
    given = {"benchmark": "x", "scores": scores, "inputs": {"real": Input.of(images)}, "seed": 1, "settings": {}}
    return Result(**given | {"seconds": 0.5} | changes)


def test_a_result_is_read_back_as_it_was_written(images, tmp_path):
    made = result(images, verdict="pass", per_site={"site-1": {"auc": Score(value=1.0)}}, details={"n": 3})
    made.save(tmp_path / "x.json")
    assert load_result(tmp_path / "x.json") == made


def test_numbers_that_are_none_are_null_and_arrays_are_lists(images):
    details = {"a": np.arange(2), "b": np.float32(np.nan), "c": {1}}
    table = json.loads(json.dumps(result(images, details=details).as_json(), allow_nan=False))
    assert table["details"] == {"a": [0, 1], "b": None, "c": [1]}


def test_a_score_is_written_with_its_interval_or_with_the_reason_why_there_is_none():
    assert str(Score(value=0.81234, low=0.7, high=0.905)) == "0.812 [0.7, 0.905]"
    assert str(Score(value=0.5, low=0.25)) == str(Score(value=0.5, high=0.75)) == str(Score(value=0.5)) == "0.5"
    assert str(Score(value=None, why="one class only")) == "one class only"


def test_a_score_without_a_value_says_why():
    with pytest.raises(ValueError):
        Score(value=None)


def test_the_hash_follows_the_content_and_not_the_place(images, tmp_path):
    assert content_hash(images) == content_hash(images.save(tmp_path / "copy"))
    assert content_hash(images) != content_hash(images.rows(np.arange(len(images) - 1)))


def test_whoever_knows_all_images_but_one_cannot_test_the_last(tmp_path, monkeypatch):
    """A result that travels names the real set; without the store's key no guess at the set can be checked."""
    images = tiny_set()
    own = content_hash(images)
    monkeypatch.setenv("FEDSYNTH_STORE", str(tmp_path / "elsewhere"))
    assert content_hash(images) != own
    phantom = replace(images, header=replace(images.header, provenance={"phantom": {}}))
    found = content_hash(phantom)  # shows nobody: the same everywhere
    monkeypatch.setenv("FEDSYNTH_STORE", str(tmp_path / "third"))
    assert content_hash(phantom) == found
    assert not (tmp_path / "third").exists()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"schema": 99}', '{"schema": 1}'])
def test_a_damaged_file_is_refused(text, tmp_path):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ConfigError):
        load_result(tmp_path / "x.json")
    with pytest.raises(ConfigError):
        load_result(tmp_path / "missing.json")
