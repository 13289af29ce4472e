"""Training in the trackers that people know: TensorBoard, MLflow, Weights & Biases. None is imported unless asked for.

A tracker is told what `rounds.csv` holds, never more: losses that the sites' policies let leave, and settings that are
no paths. Their files lie in the run directory, and nothing is sent. Libraries note when they were told, and time tells
how many patients a private step drew: private runs have no trackers. A tracker that fails is left out with a warning:
it never ends a training.
"""

import logging
import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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

log = logging.getLogger("fedsynth")
FOLDER = "trackers"
AT_ONCE = 1000
"""Metrics that MLflow takes in one call."""
WORDS = ("generator", "strategy", "federation", "share", "device")
"""Settings whose text is one of a list; other texts may be paths or names."""


class Sink(Protocol):
    """What a tracker must be able to do."""

    def settings(self, told: Mapping[str, str | float]) -> None:
        """The run's settings, once."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of one step or round."""

    def close(self, *, failed: bool) -> None:
        """Nothing more comes, as the run has ended or has failed."""


class TensorBoard:
    """Event files, for `tensorboard --logdir runs`. A resumed run takes back what it told from its first step on."""

    def __init__(self, folder: Path, name: str, first: int) -> None:
        library: Any = import_module("torch.utils.tensorboard")  # untyped where TensorBoard is installed
        self._writer = library.SummaryWriter(str(folder), purge_step=first)

    def settings(self, told: Mapping[str, str | float]) -> None:
        """As a table of text."""
        rows = "\n".join(f"| {key} | {value} |" for key, value in told.items())
        self._writer.add_text("settings", f"| setting | value |\n|---|---|\n{rows}")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """A curve for each name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self, *, failed: bool) -> None:
        """Write what is left."""
        self._writer.close()


class MLflow:
    """A database, for `mlflow ui --backend-store-uri sqlite:///RUN/trackers/mlflow/mlflow.db`.

    The client is told everything itself: MLflow's usual functions add the user's name and the program's path.
    """

    def __init__(self, folder: Path, name: str, first: int) -> None:
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # read when it is imported: see docs/trackers.md
        from mlflow import MlflowClient

        folder.mkdir(parents=True, exist_ok=True)
        self._client: Any = MlflowClient(tracking_uri=f"sqlite:///{(folder / 'mlflow.db').resolve()}")
        kept = folder / "run-id"  # a resumed run goes on in the same one
        if not kept.exists():
            found, artifacts = self._client.get_experiment_by_name("fedsynth"), (folder / "artifacts").as_uri()
            own = found.experiment_id if found else self._client.create_experiment("fedsynth", artifacts)
            atomic_files.write_text(kept, self._client.create_run(own, run_name=name).info.run_id)
        self._run = kept.read_text(encoding="utf-8")
        self._client.set_terminated(self._run, status="RUNNING")

    def settings(self, told: Mapping[str, str | float]) -> None:
        """As parameters."""
        from mlflow.entities import Param

        self._client.log_batch(self._run, params=[Param(key, str(value)) for key, value in told.items()])

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """As metrics."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(_quoted(name), value, now, step) for name, value in values.items()]
        for start in range(0, len(metrics), AT_ONCE):
            self._client.log_batch(self._run, metrics=metrics[start : start + AT_ONCE])

    def close(self, *, failed: bool) -> None:
        """Mark the run as finished, or as failed."""
        self._client.set_terminated(self._run, status="FAILED" if failed else "FINISHED")


def _quoted(name: str) -> str:
    """Of `site/metric` the site with every character that MLflow may not take as its code: two sites stay two."""
    site, slash, metric = name.rpartition("/")
    return "".join(one if one.isalnum() or one in " -" else f"_{ord(one):x}_" for one in site) + slash + metric


class WeightsAndBiases:
    """An offline run, which leaves this machine only if somebody types `wandb sync` on its folder."""

    def __init__(self, folder: Path, name: str, first: int) -> None:
        os.environ["WANDB_ERROR_REPORTING"] = "false"
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        quiet: Any = wandb.Settings(
            mode="offline",
            host="fedsynth",
            x_save_requirements=False,
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

    def close(self, *, failed: bool) -> None:
        """Write what is left."""
        self._run.finish(exit_code=int(failed))


SINKS: dict[Tracker, Callable[[Path, str, int], Sink]] = {
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
    """Those of a run, told the same. They are opened when there is something to tell, under the run's own lock."""

    def __init__(self, names: tuple[Tracker, ...], run: Run) -> None:
        self._waiting, self._run = tuple(dict.fromkeys(names)), run
        self._sinks: dict[Tracker, Sink] = {}
        self._losses: dict[str, list[float]] = defaultdict(list)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of one step or round; what is not finite is left out."""
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        if not finite:
            return
        for name in self._waiting:
            with self._surviving(name):
                self._open(name, step)
        self._waiting = ()
        for name, sink in [*self._sinks.items()]:
            with self._surviving(name):
                sink.scalars(step, finite)

    def on_step(self, report: "StepReport", total: int) -> None:
        """Losses of one site that trains alone, as means over as many steps as in `rounds.csv`."""
        from fedsynth.training.loss_log import INTERVAL

        for net, loss in report.losses.items():
            self._losses[f"{net}_loss"].append(loss)
        if (report.step + 1) % INTERVAL == 0 or report.step + 1 == total:
            self.log(report.step + 1, {name: math.fsum(all_) / len(all_) for name, all_ in self._losses.items()})
            self._losses.clear()

    def close(self, *, failed: bool) -> None:
        """Nothing more comes."""
        for name, sink in [*self._sinks.items()]:
            with self._surviving(name):
                sink.close(failed=failed)

    def _open(self, name: Tracker, first: int) -> None:
        folder = self._run.folder.resolve()
        sink = self._sinks[name] = SINKS[name](folder / FOLDER / name, folder.name, first)
        sink.settings(told_settings(self._run.settings()))

    @contextmanager
    def _surviving(self, name: Tracker) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of a library that the training does not need
            self._sinks.pop(name, None)
            log.warning("the tracker %s failed and hears no more of this run: %s", name, error)


@contextmanager
def open_trackers(names: tuple[Tracker, ...], run: Run) -> Iterator[Trackers]:
    """The trackers of these names for the block."""
    require_trackers(names)
    trackers = Trackers(names, run)
    try:
        yield trackers
    except BaseException:
        trackers.close(failed=True)
        raise
    trackers.close(failed=False)


def told_settings(table: Mapping[str, Any], prefix: str = "") -> dict[str, str | float]:
    """Numbers, yes and no, and words of a list: what cannot be a path or somebody's name."""
    told: dict[str, str | float] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            told |= told_settings(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) or (not prefix and key in WORDS):
            told[prefix + key] = value
    return told
