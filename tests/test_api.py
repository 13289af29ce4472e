"""The Python interface does what the command line does."""

import subprocess
import sys
from functools import partial

import pytest

import fedsynth
from fedsynth.api.evaluation import BENCHMARKS
from fedsynth.data.phantoms.cohort import make_phantoms
from fedsynth.data.phantoms.settings import PhantomSettings
from fedsynth.errors import FedSynthError, RefusedError


def test_importing_fedsynth_imports_nothing_heavy():
    said = "import sys, fedsynth; print([m for m in ('torch', 'pandas', 'flwr', 'monai') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    with pytest.raises(AttributeError):
        _ = fedsynth.nothing


def test_simulate_evaluate_and_compare(tmp_path, monkeypatch):
    monkeypatch.setitem(BENCHMARKS, "fidelity", partial(fedsynth.fidelity, steps=2))
    make_phantoms(tmp_path / "data", PhantomSettings(size=16, patients=54, slices=1, sites=2), workers=1)
    run = fedsynth.simulate(sites=2, data=tmp_path / "data", run=tmp_path / "run", rounds=1, local_steps=1, count=24)
    found = fedsynth.evaluate(run, benchmarks=["fidelity"])
    assert {"benchmark", "score", "value", "low", "high", "baseline", "control"} <= set(found.columns)
    assert "kid/filters" in set(found["score"])
    table = fedsynth.compare(run)
    assert table.loc["run", "generator"] == "two-stage"
    assert len(fedsynth.load(fedsynth.generate(run, count=3, out=tmp_path / "more"))) == 3
    assert fedsynth.report(run, out=tmp_path / "page.html").is_file()
    with pytest.raises(RefusedError, match="memorization was not run"):
        fedsynth.release(run, tmp_path / "released")
    assert not (tmp_path / "released").exists()
    made = fedsynth.load(run.synthetic)
    assert len(made) == 24
    arms = fedsynth.evaluate(real=tmp_path / "data", synthetic=made, benchmarks=["segmentation"], steps=1, seeds=1)
    assert "dice/synthetic+augmentation" in set(arms["score"])


def test_unknown_settings_and_benchmarks_are_refused(tmp_path):
    make_phantoms(tmp_path / "data", PhantomSettings(size=32, patients=4, slices=1, sites=2), workers=1)
    with pytest.raises(FedSynthError, match="rounds"):
        fedsynth.simulate(sites=2, data=tmp_path / "data", run=tmp_path / "run", ronds=1)
    assert not (tmp_path / "run").exists()
    with pytest.raises(FedSynthError, match="fidelity"):
        fedsynth.evaluate(benchmarks=["fidelty"])
