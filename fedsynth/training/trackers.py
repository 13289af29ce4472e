"""Training in the trackers that people know: TensorBoard, MLflow, Weights & Biases. None is imported unless asked for.

A tracker is told what `rounds.csv` holds, never more: losses that the sites' policies let leave (in private runs those
of synthetic images alone), the epsilon that was spent, and settings that are no paths. No image, no time a step took,
no number of patients. All of them write files into the run directory; nothing is sent anywhere.
"""

import math
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fedsynth import atomic_files
from fedsynth.errors import ConfigError
from fedsynth.runs import Run
from fedsynth.training.settings import Tracker

if TYPE_CHECKING:
    from fedsynth.training.trainer import StepReport

FOLDER = "trackers"
WORDS = ("generator", "strategy", "federation", "share", "device")
"""Settings whose text is one of a list; other texts may be paths or names."""


class Sink(Protocol):
    """What a tracker must be able to do."""

    def settings(self, told: Mapping[str, str | float]) -> None:
        """The run's settings, once."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of one step or round."""

    def close(self) -> None:
        """Nothing more comes."""


class TensorBoard:
    """Event files, for `tensorboard --logdir runs`."""

    def __init__(self, folder: Path, name: str) -> None:
        library: Any = import_module("torch.utils.tensorboard")  # untyped where TensorBoard is installed
        self._writer = library.SummaryWriter(str(folder))

    def settings(self, told: Mapping[str, str | float]) -> None:
        """As a table of text."""
        rows = "\n".join(f"| {key} | {value} |" for key, value in told.items())
        self._writer.add_text("settings", f"| setting | value |\n|---|---|\n{rows}")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """A curve for each name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class MLflow:
    """A database, for `mlflow ui --backend-store-uri sqlite:///RUN/trackers/mlflow/mlflow.db`.

    The client is told everything itself: MLflow's usual functions add the user's name and the program's path.
    """

    def __init__(self, folder: Path, name: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        folder.mkdir(parents=True, exist_ok=True)
        self._client: Any = MlflowClient(tracking_uri=f"sqlite:///{(folder / 'mlflow.db').resolve()}")
        kept = folder / "run-id"  # a resumed run goes on in the same one
        if not kept.exists():
            experiment = self._client.create_experiment("fedsynth", artifact_location=(folder / "artifacts").as_uri())
            atomic_files.write_text(kept, self._client.create_run(experiment, run_name=name).info.run_id)
        self._run = kept.read_text(encoding="utf-8")

    def settings(self, told: Mapping[str, str | float]) -> None:
        """As parameters."""
        from mlflow.entities import Param

        self._client.log_batch(self._run, params=[Param(key, str(value)) for key, value in told.items()])

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """As metrics; MLflow takes fewer characters in a name than a site's name may have."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        named = {re.sub(r"[^\w\-. /]", "_", name): value for name, value in values.items()}
        self._client.log_batch(self._run, metrics=[Metric(name, value, now, step) for name, value in named.items()])

    def close(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self._run)


class WeightsAndBiases:
    """An offline run, which leaves this machine only if somebody types `wandb sync` on its folder."""

    def __init__(self, folder: Path, name: str) -> None:
        os.environ["WANDB_ERROR_REPORTING"] = "false"
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        quiet: Any = wandb.Settings(
            mode="offline",
            console="off",
            silent=True,
            save_code=False,
            disable_code=True,
            disable_git=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
        )
        self._run: Any = wandb.init(project="fedsynth", name=name, dir=str(folder), settings=quiet)

    def settings(self, told: Mapping[str, str | float]) -> None:
        """As the run's config."""
        self._run.config.update(dict(told))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """As the run's history."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Write what is left."""
        self._run.finish()


SINKS: dict[Tracker, Callable[[Path, str], Sink]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WeightsAndBiases,
}


def require_trackers(names: tuple[Tracker, ...]) -> None:
    """Refuse a tracker whose library is not installed, before anything long begins."""
    for name in names:
        found = find_spec(name)
        if found is None or found.origin is None:  # a mere folder of that name
            remedy = "pip install 'fedsynth[trackers]'"
            raise ConfigError("the library of the tracker is not installed", value=name, remedy=remedy)


class Trackers:
    """Those of a run, told the same."""

    def __init__(self, sinks: list[Sink]) -> None:
        self._sinks = sinks
        self._losses: dict[str, list[float]] = defaultdict(list)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of one step or round; what is not finite is left out."""
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        for sink in self._sinks if finite else ():
            sink.scalars(step, finite)

    def on_step(self, report: "StepReport", total: int) -> None:
        """Losses of one site that trains alone, as means over as many steps as in `rounds.csv`."""
        from fedsynth.training.loss_log import INTERVAL

        for net, loss in report.losses.items():
            self._losses[f"{net}_loss"].append(loss)
        if (report.step + 1) % INTERVAL == 0 or report.step + 1 == total:
            self.log(report.step + 1, {name: math.fsum(all_) / len(all_) for name, all_ in self._losses.items()})
            self._losses.clear()


@contextmanager
def open_trackers(names: tuple[Tracker, ...], run: Run) -> Iterator[Trackers]:
    """The trackers of these names for the block, with the run's settings told."""
    require_trackers(names)
    with ExitStack() as stack:
        sinks = []
        for name in dict.fromkeys(names):
            sink = SINKS[name](run.folder.resolve() / FOLDER / name, run.folder.resolve().name)
            stack.callback(sink.close)
            sink.settings(told_settings(run.settings()))
            sinks.append(sink)
        yield Trackers(sinks)


def told_settings(table: Mapping[str, Any], prefix: str = "") -> dict[str, str | float]:
    """Numbers, yes and no, and words of a list: what cannot be a path or somebody's name."""
    told: dict[str, str | float] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            told |= told_settings(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) or (not prefix and key in WORDS):
            told[prefix + key] = value
    return told
