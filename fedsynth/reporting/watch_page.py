"""A page that shows a run or a suite while it goes on: how far it is, losses by site, newest pictures, epsilon spent.

Everything is read from the run's files when it is asked for; the run knows nothing of it. It shows no real image, no
label map of a patient, and nothing to whoever does not know the address that was printed.
"""

import base64
import hmac
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any

from fedsynth.config import load_toml, parse_toml, read_table
from fedsynth.errors import FedSynthError
from fedsynth.experiments.suite import SUITE, Job, failed_steps, is_trained, jobs_of
from fedsynth.experiments.suite_config import load_suite
from fedsynth.federation.round_log import read_rounds
from fedsynth.privacy.accounting import rounded_up
from fedsynth.privacy.lineage import Lineage
from fedsynth.reporting.figures import Chart
from fedsynth.reporting.page_pictures import begins_with_real_cases
from fedsynth.reporting.page_templates import style, templates
from fedsynth.reporting.table_cells import delta_of, epsilon_cell
from fedsynth.reporting.training_curves import training_curves
from fedsynth.runs import Run, open_run
from fedsynth.training.checkpoint import CARD
from fedsynth.training.session import recipe_of
from fedsynth.training.settings import TrainSettings

ADDRESS, PORT = "127.0.0.1", 8642
STILL = "still"
"""The same page, which does not reload."""
NAMES = ("127.0.0.1", "localhost")
SECONDS = 10
"""How often the page reloads; charts are drawn again only when the run has written something."""
DAMAGED = (FedSynthError, OSError, ValueError, LookupError, TypeError)
"""What files raise that were damaged, or are being written at this moment."""
REAL_CASES = "Not shown: a run with --pairing draws them from images or label maps of real cases."


@dataclass(frozen=True, kw_only=True)
class Watched:
    """How far a run is. `total` and `seconds_left` are None where nobody can know them; `epsilon` is by site.

    A private run has no `seconds_left`: time tells how many patients were drawn. Rounds in which sites send sums may
    follow those of training: they are `sum_rounds`.
    """

    name: str
    unit: str
    done: int
    sum_rounds: int
    total: int | None
    finished: bool
    seconds_left: float | None
    epsilon: dict[str, str]
    private: bool
    guarantee: str
    sites: dict[str, str]
    charts: Sequence[Chart]
    picture: str
    picture_name: str
    no_picture: str

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
    hidden = begins_with_real_cases(settings)
    pictures = [] if hidden else [path for path in pictures if path.name != "real-and-synthetic.png"]
    private = bool(settings.get("privacy"))
    known = not finished and done and total is not None and done < total and not private
    last = {row["site"]: row for row in rows}
    return Watched(
        name=run.folder.name,
        unit="rounds" if federated else "steps",
        done=done if total is None else min(done, total),
        sum_rounds=0 if total is None else max(0, done - total),
        total=total,
        finished=finished,
        seconds_left=_left(run, done, total, now) if known and total is not None else None,
        epsilon=_spent(settings, rows),
        private=private,
        guarantee=_guarantee(run, settings, rows, finished=finished),
        sites={site: row["reason"] or f"{row['round']}" for site, row in last.items()},
        charts=training_curves(run),
        picture=base64.b64encode(pictures[-1].read_bytes()).decode() if pictures else "",
        picture_name=pictures[-1].name if pictures else "",
        no_picture=REAL_CASES if hidden else "None yet.",
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


class WatchServer(ThreadingHTTPServer):
    """Serves the page at `url` alone, whose random part is known to whoever started it."""

    def __init__(self, port: int, folder: Path) -> None:
        self.watched, self.kept, self.token = folder, _Kept(), secrets.token_urlsafe(16)
        super().__init__((ADDRESS, port), _Handler)

    @property
    def url(self) -> str:
        """The address to open."""
        return f"http://{ADDRESS}:{self.server_port}/{self.token}/"


def open_watch_page(folder: Path, *, port: int = PORT) -> WatchServer:
    """The server of the page, open on loopback and not yet serving."""
    if not (folder / SUITE).is_file():
        open_run(folder)

    try:
        return WatchServer(port, folder)
    except OSError as error:
        problem = f"the port {port} cannot be opened: {(error.strerror or str(error)).lower()}"
        raise FedSynthError(problem, remedy="choose another with --port") from error


@dataclass
class _Kept:
    """The last page, and the state of the files that it shows.

    One page is drawn at a time: matplotlib's settings are those of all threads.
    """

    state: str = ""
    page: str = ""
    drawing: Lock = field(default_factory=Lock)


class _Handler(BaseHTTPRequestHandler):
    server: WatchServer
    timeout = 10.0
    server_version, sys_version = "fedsynth", ""

    def do_GET(self) -> None:
        """The page, for whoever knows its address and asks by the name of this machine's loopback."""
        host = self.headers.get("Host", "")
        if host.partition(":")[0].lower() not in NAMES:
            self._send(421, "ask by 127.0.0.1 or localhost\n")
        elif not any(hmac.compare_digest(self.path.encode(), path.encode()) for path in (self._top, self._top + STILL)):
            self._send(404, "open the whole address that `fedsynth watch` printed\n")
        else:
            try:
                page = self._page()
            except DAMAGED:  # what it says may name a path
                self._send(503, "the run cannot be read just now: a file of it is damaged or being written\n")
            else:
                self._send(200, page)

    @property
    def _top(self) -> str:
        return f"/{self.server.token}/"

    def _page(self) -> str:
        folder, kept, now = self.server.watched, self.server.kept, time.time()
        with kept.drawing:
            state = f"{_written_below(folder)} {int(now) // (6 * SECONDS)}"  # the time left changes without a file
            if state != kept.state:
                kept.page, kept.state = watch_page(folder, now=now), state
            return kept.page

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the page reloads every few seconds."""

    def _send(self, code: int, text: str) -> None:
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", f"text/{'html' if code == 200 else 'plain'}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if self.path == self._top:
            self.send_header("Refresh", str(SECONDS))
        self.end_headers()
        self.wfile.write(body)


def _spent(settings: Mapping[str, Any], rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """By site; nothing where repeatable randomness makes the number mean nothing."""
    if (settings.get("privacy") or {}).get("insecure-seed") is not None:
        return {}
    return {row["site"]: f"{rounded_up(float(row['epsilon']), 3):g}" for row in rows if row["epsilon"]}


def _guarantee(run: Run, settings: Mapping[str, Any], rows: Sequence[Mapping[str, str]], *, finished: bool) -> str:
    """As in the table once the run is finished; before, what it declared, which says nothing of earlier runs."""
    declared = settings.get("privacy")
    if not declared:
        return "Trained without differential privacy: no epsilon is spent"
    card = run.checkpoints / CARD
    lineage = read_table(Lineage, parse_toml(card).get("lineage", {}), file=card) if finished else Lineage()
    own = settings if finished else {key: value for key, value in settings.items() if key != "start"}
    cell = epsilon_cell(own, rows, lineage)
    if cell.value is None:
        return f"Epsilon: {cell.text}{f', {cell.why}' if cell.why else ''}"
    delta = delta_of(settings, lineage)
    at = "" if delta is None else f" at delta {delta:g}"
    if finished:
        return f"Epsilon {cell.text}{at} per patient"
    earlier = "; the end of the run tells what the runs that it goes on from cost" if "start" in settings else ""
    return f"Epsilon {declared['epsilon']:g}{at} per patient declared{earlier}"


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
