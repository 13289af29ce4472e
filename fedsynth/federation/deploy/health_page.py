"""A hospital's health page: `/health` for people and monitors, `/metrics` in the text form of Prometheus.

Whoever can reach it reads it: it opens on loopback if not told otherwise, and the policy can close it. Everything on it
is read from the hospital's files when it is asked for.
"""

import json
import shutil
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from fedsynth.errors import FedSynthError, RefusedError
from fedsynth.federation.deploy.site_status import SiteStatus, look_at
from fedsynth.federation.policy import load_policy
from fedsynth.federation.site_context import load_site_file

ADDRESS, PORT = "127.0.0.1", 9464
_SECONDS = 10.0  # a client that says nothing for longer is left
_TEXT, _JSON = "text/plain; version=0.0.4; charset=utf-8", "application/json"


def open_health_page(path: Path, *, address: str = ADDRESS, port: int = PORT) -> ThreadingHTTPServer:
    """The page of the hospital with this site file, open and not yet serving; refused where its policy closes it."""
    _refuse_closed(path)

    class Handler(_Handler):
        site_file = path
        bound = (address.lower(), socket.gethostname().lower())

    try:
        return ThreadingHTTPServer((address, port), Handler)
    except OSError as error:
        problem = f"the port {port} of {address} cannot be opened: {(error.strerror or str(error)).lower()}"
        raise FedSynthError(problem, remedy="choose another with --port") from error


def as_json(status: SiteStatus) -> dict[str, Any]:
    """The status as one object."""
    table = asdict(status)
    table["policy"] = {key: value for key, value in table["policy"].items() if value is not None}
    if "approved" in table["policy"]:
        table["policy"]["approved"] = True  # the list's place on this machine is nobody's business
    return {"schema": "fedsynth.site-status/1", **json.loads(json.dumps(table, default=str))}


def metrics(status: SiteStatus, *, free_bytes: int) -> str:
    """The status as Prometheus reads it."""
    last = [run.last.timestamp() for run in status.runs if run.last is not None]
    lines = [
        *_metric("node_up", "Whether the hospital's node runs.", "gauge", int(status.node_runs)),
        *_metric("runs_kept", "Folders of runs that are kept.", "gauge", len(status.runs)),
        *_metric("answers_total", "Rounds answered, of the runs kept.", "counter", sum(r.answers for r in status.runs)),
        *_metric("sent_bytes_total", "Bytes of arrays that left.", "counter", sum(run.bytes for run in status.runs)),
        *_metric("last_message_timestamp_seconds", "When a message last left.", "gauge", max(last, default=0.0)),
        *_metric("worked_today_seconds", "At work on rounds since midnight UTC.", "gauge", status.used.seconds),
        *_metric("sent_today_bytes", "Bytes that left since midnight UTC.", "gauge", status.used.bytes),
        *_metric("spent_epsilon", "Epsilon of the most charged patient.", "gauge", status.spent),
        *_metric("plans_waiting", "Plans that wait for approval.", "gauge", len(status.waiting)),
        *_metric("free_bytes", "Left on the disk of the hospital's folder.", "gauge", free_bytes),
    ]
    if status.policy.max_epsilon is not None:
        lines += _metric("max_epsilon", "The policy's cap per patient.", "gauge", status.policy.max_epsilon)
    lines += _head("refusals_total", "Messages that were refused, by reason.", "counter")
    lines += [f'fedsynth_refusals_total{{reason="{_label(code)}"}} {count}' for code, count in status.refusals]
    return "\n".join(lines) + "\n"


class _Handler(BaseHTTPRequestHandler):
    site_file: Path
    bound: tuple[str, ...]
    timeout = _SECONDS
    server_version, sys_version = "fedsynth", ""

    def do_GET(self) -> None:
        """Answer one of two paths."""
        kinds = {"/health": _JSON, "/metrics": _TEXT}
        if not self._is_asked_by_name():
            self._send(421, _TEXT, "ask by this machine's address, or by localhost\n")
            return
        if self.path not in kinds:
            self._send(404, _TEXT, "there are /health and /metrics\n")
            return
        try:
            _refuse_closed(self.site_file)  # it may have been closed since
            site = load_site_file(self.site_file)
            status = look_at(site)
            free = shutil.disk_usage(next(one for one in (site.folder, *site.folder.parents) if one.exists())).free
        except FedSynthError:
            self._send(503, _TEXT, "the hospital's files cannot be read, or its policy closes this page\n")
            return
        page = metrics(status, free_bytes=free) if self.path == "/metrics" else json.dumps(as_json(status)) + "\n"
        self._send(200, kinds[self.path], page)

    def _is_asked_by_name(self) -> bool:
        """A page of somebody else's, whose name was made to point here, does not read this one in a browser here."""
        host = self.headers.get("Host", "").strip().lower()
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
        with suppress(ValueError):
            ip_address(name.strip("[]"))
            return True
        return name in {"", "localhost", *self.bound}

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a monitor asks every few seconds."""

    def _send(self, code: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _refuse_closed(path: Path) -> None:
    policy = load_site_file(path).policy
    if not load_policy(policy).health_page:
        raise RefusedError("the policy closes the health page", file=policy, remedy="health-page = true opens it")


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _metric(name: str, help: str, kind: str, value: float) -> Iterable[str]:  # noqa: A002
    return [*_head(name, help, kind), f"fedsynth_{name} {value:.15g}"]


def _head(name: str, help: str, kind: str) -> list[str]:  # noqa: A002
    return [f"# HELP fedsynth_{name} {help}", f"# TYPE fedsynth_{name} {kind}"]


def seconds_ago(timestamp: float) -> str:
    """A time as a person says it."""
    passed = max(0.0, time.time() - timestamp)
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if passed >= 2 * size:
            return f"{passed // size:.0f} {unit} ago"
    return f"{passed:.0f} seconds ago"
