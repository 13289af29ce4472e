"""`site status` and the health page: what a hospital and its monitor see, and that the policy can close it."""

import fcntl
import json
import os
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.error import HTTPError

import pytest
from typer.testing import CliRunner

from fedsynth.cli import app
from fedsynth.errors import RefusedError
from fedsynth.federation.deploy.health_page import open_health_page
from fedsynth.federation.deploy.site_status import NODE_LOCK, hold_lock, node_runs
from tests.federation.deploy.real_sites import deployed, serve, set_policy
from tests.federation.tiny import SETTINGS
from tests.training.tiny import tiny_set


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rounds were answered by both; then south changed its policy and refused another run."""
    made = deployed(tmp_path_factory.mktemp("status"), tiny_set(size=16))
    for name in ("north", "south"):
        set_policy(made, name, **{"max-epsilon": None, "allow-plain": True, "allow-one-shot": True})
    serve(made, replace(SETTINGS, rounds=2))
    set_policy(made, "south", generators=["dcgan"])
    serve(made, replace(SETTINGS, rounds=1, min_sites=1), run="second")
    return made


def status(out: Path, name: str) -> dict[str, object]:
    done = CliRunner().invoke(app, ["site", "status", str(out / name / "site.toml"), "--json"])
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout))


@contextmanager
def page(out: Path, name: str) -> Iterator[str]:
    with open_health_page(out / name / "site.toml", port=0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def read(url: str) -> str:
    with urllib.request.urlopen(url) as answer:
        return str(answer.read().decode())


def test_status_says_what_was_answered_and_refused(out: Path) -> None:
    found = status(out, "south")
    (run,) = found["runs"]  # type: ignore[misc]
    assert (run["answers"], run["last_round"], run["refusal"]) == (2, 2, "")
    assert found["refusals"] == [["refused by its policy: generators", 1]]
    assert found["used"]["bytes"] > run["bytes"] > 0  # type: ignore[index]
    assert not found["node_runs"]
    north = status(out, "north")
    assert [one["answers"] for one in north["runs"]] == [2, 1]  # type: ignore[attr-defined]
    text = CliRunner().invoke(app, ["site", "status", str(out / "south/site.toml")]).stdout
    assert "refusal  1 x refused by its policy: generators" in text
    assert "patients" not in text


def test_a_monitor_reads_numbers_over_loopback(out: Path) -> None:
    with page(out, "south") as url:
        lines = read(f"{url}/metrics").splitlines()
        assert json.loads(read(f"{url}/health")) == status(out, "south")
        with pytest.raises(HTTPError, match="404"):
            read(f"{url}/../site.toml")
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert values["fedsynth_answers_total"] == "2"
    assert values["fedsynth_node_up"] == "0"
    assert values['fedsynth_refusals_total{reason="refused by its policy: generators"}'] == "1"
    told = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert {name.partition("{")[0] for name in values} == told


def test_the_page_tells_no_place_no_other_host_and_stands_a_damaged_log(out: Path) -> None:
    set_policy(out, "south", approved="approved.toml")
    log = out / "south/state/run-damaged/egress.jsonl"
    log.parent.mkdir()
    with page(out, "south") as url:
        assert str(out) not in read(f"{url}/health")
        other = urllib.request.Request(f"{url}/health", headers={"Host": "evil.example:9464"})
        with pytest.raises(HTTPError, match="421"):
            urllib.request.urlopen(other)
        log.write_text(
            '{"when": "2026-01-01T00:00:00+00:00", "message": "refusal", "round": 1, "bytes": 0, '
            '"content": {"a\\"} 1\\nb": []}}\n'
        )
        assert 'reason="a\\"} 1\\nb"} 1' in read(f"{url}/metrics")
        log.write_text('{"when": "x"}\n')
        with pytest.raises(HTTPError, match="503"):
            read(f"{url}/metrics")
    log.unlink()
    log.parent.rmdir()
    set_policy(out, "south", approved=None)


def test_the_policy_closes_the_page(out: Path) -> None:
    with page(out, "north") as url:
        set_policy(out, "north", **{"health-page": False})
        with pytest.raises(HTTPError, match="503"):
            read(f"{url}/metrics")
    with pytest.raises(RefusedError, match="the policy closes the health page"):
        open_health_page(out / "north/site.toml", port=0)
    set_policy(out, "north", **{"health-page": True})


def test_a_node_begins_though_somebody_looks_at_that_instant(tmp_path: Path) -> None:
    (tmp_path / NODE_LOCK).touch()
    looking = os.open(tmp_path / NODE_LOCK, os.O_RDWR)
    fcntl.flock(looking, fcntl.LOCK_SH)  # as `node_runs` does
    timer = threading.Timer(0.2, os.close, [looking])
    timer.start()
    hold_lock(tmp_path)
    assert node_runs(tmp_path)
    timer.join()


def test_a_node_is_seen_at_work_whatever_program_it_became_and_no_second_one_begins(tmp_path: Path) -> None:
    assert not node_runs(tmp_path)
    with subprocess.Popen(
        ["/bin/sh", "-c", "echo ready; read line"],
        preexec_fn=partial(hold_lock, tmp_path),  # then the process becomes the shell, as a node becomes Flower's
        close_fds=False,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as node:
        assert node.stdout is not None
        assert node.stdout.readline() == b"ready\n"
        assert node_runs(tmp_path)
        with pytest.raises(RefusedError, match="runs already"):
            hold_lock(tmp_path)
        node.communicate(b"\n")
    assert not node_runs(tmp_path)
