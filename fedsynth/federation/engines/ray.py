"""The engine for many sites, GPUs and clusters: Flower's own simulation on Ray, through `flwr run`.

It starts a SuperLink of its own on a port of its own, hands it an app of a few lines that names the installed package,
and ends everything it started. The apps are the same as everywhere.
"""

import fcntl
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import tomli_w

from fedsynth import atomic_files
from fedsynth.errors import ConfigError, FedSynthError, RefusedError
from fedsynth.federation.engines import process_trees
from fedsynth.federation.flower_start import QUIET, Scalar, free_port, last_line, write_app

HOME, LOG, SUPERLINK_LOG = "flower", "run.log", "superlink.log"
CONNECTION = "fedsynth"
MARK = "FLWR_HOME"  # of this run alone: it tells its processes from all others
START_SECONDS = 60.0
BEAT_SECONDS = 0.25


def run_on_ray(
    run_config: Mapping[str, Scalar],
    folder: Path,
    *,
    sites: int,
    workers: int,
    gpus: float = 0.0,
    beat: Callable[[], None] = lambda: None,
) -> None:
    """Run the two apps for `sites` simulated sites, `workers` at a time, each with its share `gpus` of a GPU.

    Flower's files and logs go to `flower/` in the run directory `folder`. `beat` is called while it works. A run that
    fails raises what the server's app said.
    """
    require_ray()
    home = folder / HOME
    with atomic_files.told_when_unwritable(home):
        home.mkdir(parents=True, exist_ok=True)
    mark = f"{MARK}={home.resolve()}"
    with _alone(home), tempfile.TemporaryDirectory(prefix="fs-") as scratch, process_trees.leashed(mark):
        process_trees.end_marked(mark)  # of a run that was killed here a moment ago
        with _superlink(home, Path(scratch), mark) as (server, env):
            app = write_app(Path(scratch) / "app", run_config)
            command = _flwr_run(app, sites=sites, workers=workers, gpus=gpus)
            _run_to_the_end(command, server, home, env, beat)
            _check_status(home / LOG, env)


def _run_to_the_end(
    command: list[str],
    server: "subprocess.Popen[bytes]",
    home: Path,
    env: Mapping[str, str],
    beat: Callable[[], None],
) -> None:
    log = home / LOG
    log.write_bytes(b"")
    running = process_trees.start(command, env=env, log=log)
    try:
        while running.poll() is None:
            if server.poll() is not None:
                raise FedSynthError("Flower's SuperLink died", file=home / SUPERLINK_LOG)
            beat()
            time.sleep(BEAT_SECONDS)
    finally:
        process_trees.end(running)
    beat()


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Nobody else runs this run on Ray: whatever is left over here may be ended."""
    handle = os.open(home / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        remedy = "wait until it ends, or choose another run directory"
        raise RefusedError("another process works in this run", file=home.parent, remedy=remedy) from None
    else:
        yield
    finally:
        os.close(handle)


def require_ray() -> None:
    """Ray is an extra of its own."""
    if importlib.util.find_spec("ray") is None:
        remedy = 'install it with: pip install "fedsynth[ray]", or take --engine local'
        raise ConfigError("the engine 'ray' is not installed", remedy=remedy)


@contextmanager
def _superlink(home: Path, scratch: Path, mark: str) -> Iterator[tuple["subprocess.Popen[bytes]", dict[str, str]]]:
    """A SuperLink that lives as long as the block, on a free port of this machine's loopback, in memory."""
    port = free_port()
    env = _environment(home, scratch)
    link = {"superlink": {"default": CONNECTION, CONNECTION: {"address": f"127.0.0.1:{port}", "insecure": True}}}
    atomic_files.write_text(home / "config.toml", tomli_w.dumps(link))
    log = home / SUPERLINK_LOG
    log.write_bytes(b"")
    command = ["flower-superlink", "--insecure", "--simulation", "--isolation", "subprocess"]
    command += ["--disable-runtime-dependency-installation", "--host", "127.0.0.1", "--port", str(port)]
    server = process_trees.start(command, env=env, log=log)
    try:
        _wait_for(port, server, log)
        yield server, env
    finally:
        process_trees.end(server, mark=mark)


def _environment(home: Path, scratch: Path) -> dict[str, str]:
    """Nothing phones home, installs or shares a folder with another user; one thread computes at each site."""
    own = {
        MARK: str(home.resolve()),
        "RAY_TMPDIR": str(scratch),  # its sockets' paths must stay short
        "OMP_NUM_THREADS": "1",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "PYTHONUNBUFFERED": "1",
    }
    package = str(Path(__file__).resolve().parents[3])
    paths = [package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return os.environ | QUIET | own | {"PYTHONPATH": os.pathsep.join(paths)}


def _flwr_run(app: Path, *, sites: int, workers: int, gpus: float) -> list[str]:
    size = {
        "num-supernodes": sites,
        "client-resources-num-cpus": 1,
        "client-resources-num-gpus": gpus,
        "init-args-num-cpus": max(1, min(workers, sites)),
    }
    given = " ".join(f"{key}={value}" for key, value in size.items())
    return ["flwr", "run", str(app), CONNECTION, "--federation-config", given, "--stream"]


def _wait_for(port: int, server: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if server.poll() is not None:
            raise FedSynthError("Flower's SuperLink did not start", file=log, remedy="its own words stand in that file")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise FedSynthError(f"Flower's SuperLink did not answer within {START_SECONDS:g} s", file=log)


def _check_status(log: Path, env: Mapping[str, str]) -> None:
    """`flwr run` ends with 0 when the run failed: what counts is the run's own status."""
    said = log.read_text(encoding="utf-8", errors="replace")
    started = re.search(r"started run (\d+)", said)
    if started is None:
        raise FedSynthError(f"Flower did not start the run: {last_line(said)}", file=log)
    program = str(Path(sys.executable).parent / "flwr")
    command = [program, "ls", CONNECTION, "--run-id", started[1], "--format", "json"]
    answer = subprocess.run(  # noqa: S603
        command, env=dict(env), capture_output=True, check=False, text=True
    )
    try:
        status = json.loads(answer.stdout)["runs"][0]["status"]
    except (ValueError, KeyError, IndexError, TypeError):
        raise FedSynthError(f"Flower does not tell how the run ended: {last_line(answer.stdout)}", file=log) from None
    if status != "finished:completed":
        raise FedSynthError(_cause(said) or f"Flower's run ended as {status}", remedy=f"see {log}")


def _cause(said: str) -> str:
    """What the server's app raised, where it was something that a user can mend."""
    raised = re.findall(r"fedsynth\.errors\.\w+: (.+)", said)
    return str(raised[-1]).strip() if raised else ""
