"""Each tracker's own library writes what it was told into the run directory, and reads it back."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fedsynth.runs import Run, create_run
from fedsynth.training.settings import TrainSettings
from fedsynth.training.trackers import Trackers, _quoted, open_trackers
from fedsynth.training.trainer import StepReport

SETTINGS = TrainSettings(generator="mlp", images=Path("a-hospital"), options={"latent": 4})
LOSS = "site a/generator_loss"


def tracked(tmp_path: Path, name: str) -> Path:
    """Two sessions of one run, the second one resumed."""
    run = create_run(replace(SETTINGS, trackers=(name,)), generator="mlp", folder=tmp_path / "run")
    for step, loss in ((1, 0.5), (2, 0.25)):
        with open_trackers((name,), Run(folder=run.folder)) as told:  # type: ignore[arg-type]
            told.log(step, {LOSS: loss, "site b/generator_loss": float("nan")})
    return run.folder / "trackers" / name


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but this machine is reached from this process."""
    connect = socket.socket.connect

    def only_here(self: socket.socket, address: object) -> None:
        assert self.family == socket.AF_UNIX or str(address[0]) in ("127.0.0.1", "localhost"), address  # type: ignore[index]
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", only_here)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of their own imports
def test_tensorboard_shows_every_round(tmp_path: Path, no_network: None) -> None:
    pytest.importorskip("tensorboard")
    folder = tracked(tmp_path, "tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    assert events.Tags()["scalars"] == [LOSS]
    assert [(one.step, one.value) for one in events.Scalars(LOSS)] == [(1, 0.5), (2, 0.25)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mlflow_shows_every_round_and_a_resumed_run_goes_on(tmp_path: Path, no_network: None) -> None:
    mlflow = pytest.importorskip("mlflow")
    folder = tracked(tmp_path, "mlflow")
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("fedsynth").experiment_id])
    assert [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, LOSS)] == [(1, 0.5), (2, 0.25)]
    assert run.data.params["options.latent"] == "4"
    assert "a-hospital" not in str(run.data.params)
    assert not {"mlflow.user", "mlflow.source.name"} & set(run.data.tags)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_wandb_keeps_an_offline_run(tmp_path: Path, no_network: None) -> None:
    pytest.importorskip("wandb")
    folder = tracked(tmp_path, "wandb")
    kept = sorted(folder.rglob("run-*.wandb"))
    assert len(kept) == 2
    assert all(LOSS.encode() in path.read_bytes() for path in kept)
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"
    assert not any(socket.gethostname().encode() in path.read_bytes() for path in kept)
    assert not [*folder.rglob("requirements.txt")]


def test_names_of_two_sites_stay_two() -> None:
    names = ["a:b/loss", "a_b/loss", "a/b/loss", "../a/loss", "a//b/loss", "loss"]
    quoted = [_quoted(name) for name in names]
    assert len(set(quoted)) == len(names)
    assert all(".." not in name and "//" not in name and name.count("/") <= 1 for name in quoted)


def test_no_tracker_is_imported_by_default() -> None:
    said = (
        "import sys, fedsynth.api.training, fedsynth.api.simulation, fedsynth.training.trackers;"
        "print([name for name in ('tensorboard', 'mlflow', 'wandb', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_losses_of_a_site_alone_are_means_over_an_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values: list[tuple[int, dict[str, float]]] = []
    told = Trackers((), Run(folder=tmp_path))
    monkeypatch.setattr(told, "log", lambda step, found: values.append((step, found)))
    for step in range(30):
        told.on_step(StepReport(step=step, losses={"generator": float(step)}), 30)
    assert values == [(25, {"generator_loss": 12.0}), (30, {"generator_loss": 27.0})]
