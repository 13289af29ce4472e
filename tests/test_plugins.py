"""An installed package adds a generator and a reader by entry points: `tests/example_package` is one."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fedsynth.cli import app
from fedsynth.data import ImageSet
from fedsynth.errors import ConfigError
from fedsynth.models.facts import stated_facts
from fedsynth.models.generators import catalog
from fedsynth.plugins import GENERATORS, plugins
from tests.training.tiny import tiny_set

EXAMPLE = Path(__file__).parent / "example_package"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package, installed as pip would: on the path, with its entry points beside it."""
    before = dict(catalog.catalog())
    monkeypatch.syspath_prepend(str(EXAMPLE))
    yield
    for name in [name for name in sys.modules if name.startswith("fedsynth_example")]:
        del sys.modules[name]
    catalog._entries.clear()
    catalog._entries.update(before)


def call(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == code, done.output
    return done.output


def test_a_generator_of_another_package_is_listed_trained_and_drawn_from(example: None, tmp_path: Path) -> None:
    listed = {row["name"]: row for row in json.loads(call("list", "generators", "--json"))["generators"]}
    assert listed["linear-autoencoder"]["how"] == "nobody has measured it"
    assert "fedsynth_example.linear_autoencoder" not in sys.modules, "listing imports no family"
    tiny_set().save(tmp_path / "set")
    call("train", tmp_path / "set", "--generator", "linear-autoencoder", "--steps", 2, "--batch", 2, "--sheets", 0,
         "--run", tmp_path / "run")  # fmt: skip
    call("synthesize", tmp_path / "run", "--count", 3)
    assert len(ImageSet.load(tmp_path / "run" / "synthetic")) == 3
    refused = call(
        "train", tmp_path / "set", "--generator", "linear-autoencoder", "--epsilon", 8, "--patients", 9, code=2
    )
    assert "nobody has measured it" in refused


def test_a_reader_of_another_package_reads(example: None, tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for patient in "abcd":
        np.save(tmp_path / "scans" / f"{patient}.npy", np.random.default_rng(0).random((2, 8, 8)))
    call("import", tmp_path / "scans", tmp_path / "set", "--reader", "npy-folder", "--size", 8)
    assert sorted(ImageSet.load(tmp_path / "set").cases["patient"]) == ["a", "a", "b", "b", "c", "c", "d", "d"]


def test_without_the_package_both_names_are_unknown(tmp_path: Path) -> None:
    assert "linear-autoencoder" not in stated_facts()
    assert "unknown reader" in call("import", tmp_path, tmp_path / "set", "--reader", "npy-folder", "--size", 8, code=2)


def test_two_packages_of_one_name_are_refused(example: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other-1.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (other / "entry_points.txt").write_text("[fedsynth.generators]\nlinear-autoencoder = other.family\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r"two installed packages add 'linear-autoencoder'"):
        plugins(GENERATORS)
