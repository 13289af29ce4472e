"""What is wrong before a server or a node starts: one line, exit code 2, and no process."""

import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socket import socket
from threading import Thread

import pytest
from typer.testing import CliRunner

from fedsynth import config
from fedsynth.cli import app
from fedsynth.federation.deploy.certificates import Pair, make_server_certificate
from fedsynth.federation.deploy.cost_estimate import count_cost
from fedsynth.federation.deploy.flower_programs import Flower, leashed, wait_until
from fedsynth.federation.deploy.folders import Plan, init
from fedsynth.federation.deploy.server_files import ServerFolder, load_server
from fedsynth.federation.deploy.start_client import node_command
from fedsynth.federation.exchange import Facts
from fedsynth.federation.flower_start import free_port
from fedsynth.federation.settings import FederationSettings
from fedsynth.federation.site_context import load_site_file
from tests.training.tiny import tiny_set


@pytest.fixture
def out(tmp_path: Path) -> Path:
    made = tmp_path / "out"
    init(made, ("north", "south"), Plan(host="localhost", port=free_port()))
    tiny_set().save(tmp_path / "images")
    site = made / "north" / "site.toml"
    config.save_toml(site, config.parse_toml(site) | {"images": str(tmp_path / "images")})
    server = made / "server" / "server.toml"
    server.write_text(server.read_text().replace("0.0.0.0", "127.0.0.1"))
    return made


def _refused(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["deploy", *arguments])
    assert (done.exit_code, len(done.output.splitlines())) == (2, 1), done.output
    return done.output


def _put_certificate(out: Path, name: str, days: int = 730, now: datetime | None = None) -> ServerFolder:
    folder = out / "authority"
    authority = Pair(certificate=(folder / "authority.pem").read_bytes(), key=(folder / "authority.key").read_bytes())
    made = make_server_certificate(authority, (name,), days=days, now=now)
    place = load_server(out / "server")
    for path, content in zip(place.outer, (made.certificate, made.key), strict=True):
        path.write_bytes(content)
    return place


def test_a_server_with_a_wrong_certificate_does_not_start(out: Path) -> None:
    _put_certificate(out, "localhost", days=1, now=datetime.now(UTC) - timedelta(days=3))
    line = _refused("serve", str(out / "server"), "--run")
    assert "server.pem: the certificate expired on" in line
    assert "fedsynth deploy renew" in line
    _put_certificate(out, "elsewhere.org")
    line = _refused("serve", str(out / "server"), "--run")
    assert "the certificate is of another host (found 'localhost')" in line
    assert "elsewhere.org" in line
    assert not (out / "server" / "state").exists()


def test_a_port_in_use_stops_the_server_before_anything_starts(out: Path) -> None:
    place = load_server(out / "server")
    with socket() as other:
        other.bind(("127.0.0.1", place.file.port))
        other.listen()
        line = _refused("serve", str(out / "server"))
    assert f"the port {place.file.port} of 127.0.0.1 cannot be opened: address already in use" in line
    assert not place.state.exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('federation = "none"', "'federation' cannot be deployed (found 'none')"),
        ("rounds = 0", "--rounds must be at least 1"),
        ("sites = 2\nmin-sites = 3", "--min-sites must lie within the number of sites"),
        ("roundz = 3", "did you mean 'rounds'?"),
    ],
)
def test_wrong_settings_stop_the_server_before_anything_starts(out: Path, text: str, words: str) -> None:
    place = load_server(out / "server")
    place.settings.write_text(text)
    assert words in _refused("serve", str(out / "server"), "--run")
    assert not place.state.exists()


def test_a_folder_that_is_no_servers_is_named(out: Path) -> None:
    assert "it has no server.toml" in _refused("serve", str(out / "north"))
    assert "it has no server.toml" in _refused("proxy", str(out), "--inner-port", "1")


def test_a_hospital_that_cannot_reach_the_server_says_so(out: Path) -> None:
    assert "is not reached" in _refused("join", str(out / "north"))
    assert not (out / "north" / "state").exists()


@contextmanager
def _server(place: ServerFolder) -> Iterator[None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*place.outer)
    with HTTPServer(("127.0.0.1", place.file.port), BaseHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def test_a_hospital_takes_no_server_with_a_wrong_certificate(out: Path) -> None:
    with _server(_put_certificate(out, "localhost", days=1, now=datetime.now(UTC) - timedelta(days=3))):
        assert "certificate has expired" in _refused("join", str(out / "north"))
    with _server(_put_certificate(out, "elsewhere.org")):
        assert "its certificate is refused: Hostname mismatch" in _refused("join", str(out / "north"))


def test_what_a_hospital_must_mend_itself_is_said_first(out: Path) -> None:
    (out / "north" / "node.key").chmod(0o644)
    assert "others can read this private key" in _refused("join", str(out / "north"))
    (out / "north" / "node.key").chmod(0o600)
    (out / "north" / "policy.toml").write_text("max-epsilon = 0\n")
    assert "no run could ever pass" in _refused("join", str(out / "north"))
    assert "images: /srv/images/imageset" in _refused("join", str(out / "south"))


def test_a_node_is_started_with_its_key_and_tells_the_app_where_its_file_is(out: Path) -> None:
    path = out / "north" / "site.toml"
    command, environment = node_command(load_site_file(path), path)
    told = dict(zip(command[1::2], command[2::2], strict=True))
    assert told["--superlink"] == f"localhost:{load_server(out / 'server').file.port}"
    assert told["--auth-supernode-private-key"] == str(out / "north" / "node.key")
    assert told["--node-config"] == f'site-file="{path}"'
    assert "--insecure" not in command
    assert (environment["FLWR_TELEMETRY_ENABLED"], environment["FLWR_DISABLE_UPDATE_CHECK"]) == ("0", "1")
    assert environment["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert environment["FLWR_HOME"].startswith(str(out / "north" / "state"))
    assert "127.0.0.1" in environment["NO_PROXY"]


def test_a_leashed_program_ends_with_the_block(tmp_path: Path) -> None:
    environment = Flower(home=tmp_path).environment()
    with leashed(["/bin/sleep", "60"], environment=environment, log=tmp_path / "log") as child:
        assert child.poll() is None
    assert child.poll() is not None


def test_a_leashed_program_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    """The parent starts a program on the leash and is killed before it can end it."""
    code = (
        "import os, subprocess, sys, time\n"
        "command = ['fedsynth.federation.deploy.parent_guard', str(os.getpid()), '/bin/sleep', '60']\n"
        "print(subprocess.Popen([sys.executable, '-m', *command]).pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert wait_until(lambda: b"sleep" in Path(f"/proc/{child}/cmdline").read_bytes()[:20], seconds=30, every=0.05)
        os.kill(parent.pid, signal.SIGKILL)

    def is_over() -> bool:
        stat = Path(f"/proc/{child}/stat")
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"

    assert wait_until(is_over, seconds=20, every=0.05)


def test_the_cost_is_counted_from_what_is_shared() -> None:
    facts = Facts(
        channels=("t1",), size=(16, 16), classes=("a",), mask_labels=("b", "l"), spacing_mm=(1.0, 1.0), phantoms=True
    )
    settings = FederationSettings(options={"base": 8})
    everything = count_cost(settings, facts)
    alone = count_cost(replace(settings, share="generator", rounds=3), facts)
    assert everything.networks == ("generator", "discriminator")
    assert alone.networks == ("generator",)
    assert 0 < alone.bytes_up < everything.bytes_up
    assert alone.total_bytes == 3 * (alone.bytes_up + alone.bytes_down)


def test_the_cost_of_a_folder_is_shown(out: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["deploy", "cost", str(out / "server"), "--like", str(tmp_path / "images")])
    assert done.exit_code == 0, done.output
    assert "Each hospital, each round:" in done.output
    assert "20 rounds" in done.output
    assert "3.0 to 6.7 minutes" in done.output
    text = 'generator = "dcgan"\nfederation = "one-shot"\nsites = 2\n[options]\nbase = 8\n'
    (out / "server" / "federation.toml").write_text(text)
    done = CliRunner().invoke(app, ["deploy", "cost", str(out / "server"), "--like", str(tmp_path / "images")])
    assert "Each hospital, each round: 0" in done.output
    assert "After them sums and, last, its whole sampler: 0" in done.output
