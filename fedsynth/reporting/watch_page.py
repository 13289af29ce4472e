"""A page that shows a run or a suite while it goes on: how far it is, losses by site, newest pictures, epsilon spent.

Everything is read from the run's files when it is asked for; the run knows nothing of it. It shows no real image.
"""

import base64
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fedsynth.config import load_toml
from fedsynth.errors import FedSynthError
from fedsynth.experiments.suite import SUITE, Job, failed_steps, is_trained, jobs_of
from fedsynth.experiments.suite_config import load_suite
from fedsynth.federation.round_log import read_rounds
from fedsynth.privacy.accounting import rounded_up
from fedsynth.reporting.figures import Chart
from fedsynth.reporting.page_templates import style, templates
from fedsynth.reporting.training_curves import training_curves
from fedsynth.runs import Run, open_run
from fedsynth.training.session import recipe_of
from fedsynth.training.settings import TrainSettings

ADDRESS, PORT = "127.0.0.1", 8642
STILL = "/still"
"""The same page, for whoever reads longer than it stands."""
NAMES = ("127.0.0.1", "localhost")
SECONDS = 10
"""How often the page asks again; charts are drawn anew only when the run has written something."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """How far a run is. `total` and `seconds_left` are None where nobody can know them; `epsilon` is by site.

    `exchanges` of sums may follow the rounds of training.
    """

    name: str
    unit: str
    done: int
    exchanges: int
    total: int | None
    finished: bool
    seconds_left: float | None
    epsilon: dict[str, str]
    declared: str
    sites: dict[str, str]
    charts: Sequence[Chart]
    picture: str
    picture_name: str

    @property
    def left(self) -> str:
        """The time that is left, as a clock shows it."""
        if self.seconds_left is None:
            return "not known"
        minutes, seconds = divmod(round(self.seconds_left), 60)
        return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def look_at_run(run: Run, *, now: float) -> Watched:
    """Read a run's files as they are at this moment."""
    settings, rows = run.settings(), read_rounds(run.rounds)
    federated = "rounds" in settings
    done = max((int(row["round" if federated else "steps"] or 0) for row in rows), default=0)
    total = int(settings["rounds"]) if federated else _steps(run)
    finished = is_trained(run.folder)
    pictures = sorted(run.samples.glob("*.png"), key=lambda path: path.stat().st_mtime)
    pictures = [path for path in pictures if path.name != "real-and-synthetic.png"]
    last = {row["site"]: row for row in rows}
    return Watched(
        name=run.folder.name,
        unit="rounds" if federated else "steps",
        done=done if total is None else min(done, total),
        exchanges=0 if total is None else max(0, done - total),
        total=total,
        finished=finished,
        seconds_left=None if finished or not done or total is None or done >= total else _left(run, done, total, now),
        epsilon={row["site"]: f"{rounded_up(float(row['epsilon']), 3):g}" for row in rows if row["epsilon"]},
        declared=f"{settings['privacy']['epsilon']:g}" if settings.get("privacy") else "",
        sites={site: row["reason"] or f"{row['round']}" for site, row in last.items()},
        charts=training_curves(run),
        picture=base64.b64encode(pictures[-1].read_bytes()).decode() if pictures else "",
        picture_name=pictures[-1].name if pictures else "",
    )


def watch_page(folder: Path, *, now: float) -> str:
    """The page of a run, or of a suite with the run that wrote last."""
    jobs = jobs_of(load_suite(folder / SUITE), folder) if (folder / SUITE).is_file() else []
    begun = [Run(folder=job.run) for job in jobs if (job.run / "config.toml").is_file()]
    newest = max(begun, key=_written, default=None) if jobs else open_run(folder)
    return (
        templates()
        .get_template("watch.html")
        .render(
            name=folder.resolve().name,
            cells=[_cell(job) for job in jobs],
            run=None if newest is None else look_at_run(newest, now=now),
            seconds=SECONDS,
            still=STILL,
            style=style(),
        )
    )


def open_watch_page(folder: Path, *, port: int = PORT) -> ThreadingHTTPServer:
    """The server of the page, open on loopback and not yet serving."""
    if not (folder / SUITE).is_file():
        open_run(folder)

    class Handler(_Handler):
        watched = folder
        kept = _Kept()

    try:
        return ThreadingHTTPServer((ADDRESS, port), Handler)
    except OSError as error:
        problem = f"the port {port} cannot be opened: {(error.strerror or str(error)).lower()}"
        raise FedSynthError(problem, remedy="choose another with --port") from error


@dataclass
class _Kept:
    """The last page, and the state of the files that it shows."""

    state: str = ""
    page: str = ""


class _Handler(BaseHTTPRequestHandler):
    watched: Path
    kept: _Kept
    timeout = 10.0
    server_version, sys_version = "fedsynth", ""

    def do_GET(self) -> None:
        """The page, for whoever asks by the name of this machine's loopback: no other page's script reads it."""
        host = self.headers.get("Host", "")
        if host.partition(":")[0].lower() not in NAMES:
            self._send(421, "ask by 127.0.0.1 or localhost\n")
        elif self.path not in ("/", STILL):
            self._send(404, f"there are / and {STILL}\n")
        else:
            try:
                self._send(200, self._page())
            except (FedSynthError, OSError) as error:
                self._send(503, f"the run cannot be read just now: {error}\n")

    def _page(self) -> str:
        now = time.time()
        state = f"{_written_below(self.watched)} {int(now) // (6 * SECONDS)}"  # the time left is told anew
        if state != self.kept.state:
            self.kept.page, self.kept.state = watch_page(self.watched, now=now), state
        return self.kept.page

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the page asks every few seconds."""

    def _send(self, code: int, text: str) -> None:
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", f"text/{'html' if code == 200 else 'plain'}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if self.path == "/":
            self.send_header("Refresh", str(SECONDS))
        self.end_headers()
        self.wfile.write(body)


def _steps(run: Run) -> int | None:
    """Of a run on one site; the family's own number where none was asked for."""
    with suppress(FedSynthError):
        return recipe_of(load_toml(TrainSettings, run.config)).steps
    return None


def _left(run: Run, done: int, total: int, now: float) -> float:
    """By what the rounds so far took, from the run's beginning to the last line of its log."""
    facts: dict[str, Any] = json.loads(run.environment.read_text(encoding="utf-8"))
    begun, last = datetime.fromisoformat(facts["created"]).timestamp(), run.rounds.stat().st_mtime
    return max(0.0, (last - begun) / done * (total - done) - (now - last))


def _cell(job: Job) -> dict[str, str]:
    failed = ", ".join(failed_steps(job.run))
    done = f"{len(job.done)} of {len(job.work)} steps done"
    return {"name": job.cell.name, "state": f"{done}; failed: {failed}" if failed else done}


def _written(run: Run) -> float:
    files = [run.config, run.rounds, *run.samples.glob("*.png"), *run.folder.glob("benchmarks/*.json")]
    return max(path.stat().st_mtime for path in files if path.is_file())


def _written_below(folder: Path) -> float:
    """When a run, or any cell of a suite, last wrote something that the page shows."""
    runs = [folder] if not (folder / SUITE).is_file() else [path.parent for path in folder.glob("cells/*/config.toml")]
    notes = [path.stat().st_mtime for path in folder.glob("cells/*.txt")]
    return max([*(_written(Run(folder=run)) for run in runs), *notes], default=0.0)
