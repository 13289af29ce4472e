"""One suite of attacks on both doors: the embedded proxy, and nginx with the configuration that `deploy init` writes.

Behind each stands a small HTTPS server that keeps what reached it. nginx is run where it is on the path.
"""

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from fedsynth.federation.deploy.certificates import Pair, make_authority, make_server_certificate
from fedsynth.federation.deploy.nginx_files import nginx_files
from fedsynth.federation.deploy.proxy import ALLOWED, LARGEST_BODY, ProxySettings, running_proxy
from fedsynth.federation.deploy.proxy_limits import Limits
from fedsynth.federation.flower_start import free_port

NGINX = shutil.which("nginx")
FLEET = "/v1/fleet/pull-messages"
HIDDEN = b"POST /v1/control/start-run HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
MAIN = """
{user} daemon off; master_process on; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
    client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    include {folder}/nginx.conf;
}}
"""
QUICK = {  # what takes half a minute in earnest
    "client_header_timeout 15s": "client_header_timeout 1s",
    "client_body_timeout 30s": "client_body_timeout 1s",
    "keepalive_timeout 120s": "keepalive_timeout 1s",
    "limit_conn fedsynth_connections 64": "limit_conn fedsynth_connections 2",
}


class _Inner(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.seen.append((self.command, self.path))
        answer = json.dumps({"body": body.decode("latin1"), "headers": dict(self.headers)}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    do_GET = do_HEAD = do_PUT = do_CONNECT = do_POST

    def log_message(self, format: str, *args: object) -> None:
        pass


@dataclass
class Door:
    folder: Path
    port: int
    authority: Pair
    seen: list[tuple[str, str]]
    nginx: "subprocess.Popen[bytes] | None" = None
    said: list[str] = field(default_factory=list)

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.folder / "certificates/authority.pem")

    def connect(self) -> HTTPSConnection:
        return HTTPSConnection("localhost", self.port, context=self.trust, timeout=10)

    def open(self) -> ssl.SSLSocket:
        plain = socket.create_connection(("localhost", self.port), timeout=10)
        return self.trust.wrap_socket(plain, server_hostname="localhost")

    def send(self, raw: bytes, *, seconds: float = 10.0) -> bytes:
        """What is answered until the connection ends, or nothing has come for so long."""
        answer = b""
        with self.open() as connection, suppress(ConnectionError, TimeoutError, ssl.SSLError):
            connection.settimeout(seconds)
            connection.sendall(raw)
            while piece := connection.recv(65536):
                answer += piece
        return answer


def write_certificate(folder: Path, authority: Pair, days: int) -> str:
    """A new one for the door; its serial number as TLS shows it."""
    made = make_server_certificate(authority, ("localhost", "127.0.0.1"), days=days)
    (folder / "certificates/server.pem").write_bytes(made.certificate)
    (folder / "certificates/server.key").write_bytes(made.key)
    return made.certificate.decode()


@contextmanager
def opened(kind: str, folder: Path, *, quick: bool = False) -> Iterator[Door]:
    (folder / "certificates").mkdir(parents=True)
    authority = make_authority("brains")
    (folder / "certificates/authority.pem").write_bytes(authority.certificate)
    write_certificate(folder, authority, 30)
    with ExitStack() as stack:
        seen: list[tuple[str, str]] = []
        inner = ThreadingHTTPServer(("127.0.0.1", 0), type("Inner", (_Inner,), {"seen": seen}))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "certificates/server.pem", folder / "certificates/server.key")
        inner.socket = context.wrap_socket(inner.socket, server_side=True)
        inner.handle_error = lambda request, address: None  # type: ignore[method-assign]
        Thread(target=inner.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        stack.callback(inner.server_close)
        stack.callback(inner.shutdown)
        door = Door(folder=folder, port=free_port(), authority=authority, seen=seen)
        if kind == "nginx":
            stack.enter_context(_nginx(door, inner.server_port, quick))
        else:
            short = Limits(handshake=1, first=1, idle=1, body=2, parting=0.2, per_peer=2) if quick else Limits()
            settings = ProxySettings(
                address="127.0.0.1", port=door.port, inner_port=inner.server_port, limits=short,
                certificate=folder / "certificates/server.pem", key=folder / "certificates/server.key",
                inner_authority=folder / "certificates/authority.pem",
            )  # fmt: skip
            stack.enter_context(running_proxy(settings, door.said.append))
        yield door


@contextmanager
def _nginx(door: Door, inner_port: int, quick: bool) -> Iterator[None]:
    """The configuration as it is written, its log and (where asked) its patience put in other places."""
    assert NGINX is not None
    text = nginx_files(host="localhost", port=door.port, inner_port=inner_port, at=str(door.folder))["nginx.conf"]
    changes = {"/var/log/nginx/fedsynth.log": f"{door.folder}/access.log"} | (QUICK if quick else {})
    for before, after in changes.items():
        assert before in text
        text = text.replace(before, after)
    (door.folder / "nginx.conf").write_text(text)
    (door.folder / "main.conf").write_text(
        MAIN.format(folder=door.folder, user="user root;" if os.getuid() == 0 else "")
    )
    command = [NGINX, "-e", str(door.folder / "error.log"), "-c", str(door.folder / "main.conf")]
    door.nginx = subprocess.Popen(command)
    try:
        until = time.monotonic() + 10
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", door.port)):
                break
            assert door.nginx.poll() is None, (door.folder / "error.log").read_text()
            assert time.monotonic() < until
            time.sleep(0.05)
        yield
    finally:
        door.nginx.send_signal(signal.SIGTERM)
        door.nginx.wait(10)


KINDS = [
    "embedded",
    pytest.param("nginx", marks=pytest.mark.skipif(NGINX is None, reason="nginx is not on the path")),
]


@pytest.fixture(scope="module", params=KINDS)
def door(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with opened(request.param, tmp_path_factory.mktemp("door") / "server") as made:
        yield made


@pytest.fixture(params=KINDS)
def quick(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Door]:
    with opened(request.param, tmp_path / "server", quick=True) as made:
        yield made


def test_nodes_pass_and_their_bodies_and_headers_arrive_whole(door: Door) -> None:
    connection, body = door.connect(), bytes(range(256)) * 1000
    for path in ALLOWED:  # several requests on one connection, as nodes send them
        method = "GET" if path == "/health" else "POST"
        content = b"" if method == "GET" else body
        connection.request(method, path, content, {"flwr-signature": "abc"})
        answer = connection.getresponse()
        found = json.loads(answer.read())
        assert (answer.status, door.seen[-1], found["body"].encode("latin1")) == (200, (method, path), content)
        assert {name.lower(): value for name, value in found["headers"].items()}["flwr-signature"] == "abc"
    connection.request("HEAD", "/health")
    assert connection.getresponse().status == 200
    connection.close()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/control/start-run"),
        ("POST", "/v1/control/register-node"),
        ("POST", "/v1/runtime/acquire-task"),
        ("POST", "/v1/fleet/register-node"),
        ("POST", "/v1/fleet/"),
        ("POST", "/v1/fleet/../control/start-run"),
        ("POST", "/v1/control/../fleet/pull-messages"),
        ("POST", "/v1/fleet/%2e%2e/control/start-run"),
        ("POST", "/v1/fleet/pull%2dmessages"),
        ("POST", "/v1/fleet/pull-messages/../../control/start-run"),
        ("POST", "/v1/fleet/pull-messages?x=/v1/control"),
        ("POST", "/v1/fleet/pull-messages#x"),
        ("POST", "//v1/control/start-run"),
        ("POST", "//v1/fleet/pull-messages"),
        ("POST", "/V1/FLEET/PULL-MESSAGES"),
        ("POST", "http://localhost/v1/control/start-run"),
        ("GET", FLEET),
        ("PUT", FLEET),
        ("POST", "/health"),
        ("GET", "/health/"),
        ("GET", "/openapi.json"),
        ("GET", "/"),
        ("CONNECT", "127.0.0.1:8000"),
    ],
)
def test_nothing_else_reaches_flower(door: Door, method: str, path: str) -> None:
    before = list(door.seen)
    answer = door.send(
        f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 4\r\n\r\nbody".encode()
    )
    assert answer.startswith(b"HTTP/1.1 4"), answer[:60]
    assert door.seen == before


@pytest.mark.parametrize(
    "head",
    [
        b"content-length: 4\r\ntransfer-encoding: chunked\r\n",
        b"transfer-encoding: chunked\r\ncontent-length: 4\r\n",
        b"transfer-encoding : chunked\r\n",
        b"transfer-encoding: xchunked\r\n",
        b"content-length: 4\r\ncontent-length: 60\r\n",
        b"content-length: +4\r\n",
        b"content-length: 0x4\r\n",
        b"content-length: " + b"1" * 5000 + b"\r\n",
        b"content-length : 4\r\n",
        b"x: a\r\n folded: b\r\n",
        b"x: a\nTransfer-Encoding: chunked\r\n",
        b"x: \x00\r\ncontent-length: 0\r\n",
    ],
)
def test_no_second_request_hides_in_one(door: Door, head: bytes) -> None:
    before = len(door.seen)
    door.send(b"POST /v1/fleet/pull-messages HTTP/1.1\r\nhost: x\r\n" + head + b"\r\n0\r\n\r\n" + HIDDEN, seconds=1.0)
    assert {path for _, path in door.seen[before:]} <= {FLEET}


def test_what_hides_in_a_body_is_no_request(door: Door) -> None:
    before = len(door.seen)
    head = f"POST {FLEET} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(HIDDEN)}\r\n\r\n".encode()
    last = HIDDEN.replace(b"host: x", b"host: x\r\nconnection: close")
    after = door.send(head + HIDDEN + last)  # one in the body, one after it
    assert (after.count(b"HTTP/1.1 200 "), after.count(b"HTTP/1.1 403 ")) == (1, 1)
    assert door.seen[before:] == [("POST", FLEET)]


def test_a_body_beyond_the_limit_is_not_awaited(door: Door) -> None:
    answer = door.send(f"POST {FLEET} HTTP/1.1\r\nhost: x\r\ncontent-length: {LARGEST_BODY + 1}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_what_a_client_says_of_itself_is_not_believed(door: Door) -> None:
    connection = door.connect()
    names = ("X-Forwarded-For", "X-Real-IP", "X-Forwarded-Host", "Forwarded", "X_Forwarded_For")
    connection.request("POST", FLEET, b"", dict.fromkeys(names, "10.9.8.7"))
    found = json.loads(connection.getresponse().read())["headers"]
    connection.close()
    assert "10.9.8.7" not in found.values()
    assert {name.lower(): value for name, value in found.items()}["x-forwarded-for"] == "127.0.0.1"


def test_plain_http_and_old_tls_get_nothing(door: Door) -> None:
    before = list(door.seen)
    with socket.create_connection(("localhost", door.port), timeout=10) as plain, suppress(ConnectionError):
        plain.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b" 200 " not in plain.recv(65536)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(door.folder / "certificates/authority.pem")
    old.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("localhost", door.port), timeout=10) as plain,
        pytest.raises((ssl.SSLError, ConnectionError)),  # nginx says why, the embedded proxy just ends
    ):
        old.wrap_socket(plain, server_hostname="localhost")
    assert door.seen == before
    connection = door.connect()
    connection.request("GET", "/health")
    assert connection.getresponse().status == 200
    connection.close()


def ends(connection: socket.socket) -> float:
    """Seconds until the other side ends it; ten at most."""
    begun = time.monotonic()
    connection.settimeout(10)
    with suppress(ConnectionError, ssl.SSLError):
        while connection.recv(65536):
            pass
    return time.monotonic() - begun


def test_who_is_silent_or_slow_is_left(quick: Door) -> None:
    with socket.create_connection(("127.0.0.1", quick.port)) as silent:  # no handshake
        assert ends(silent) < 9
    for said in (
        b"",  # no request
        b"POST /v1/fleet/pull-messages HTT",  # half a head
        b"POST /v1/fleet/pull-messages HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf",
        b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n",  # no second request
    ):
        with quick.open() as connection:
            connection.sendall(said)
            assert ends(connection) < 9, said


def test_one_address_holds_no_more_than_its_share(quick: Door) -> None:
    half = b"POST /v1/fleet/pull-messages HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n"
    with quick.open() as one, quick.open() as other:
        for held in (one, other):
            held.sendall(half)
        time.sleep(0.3)
        try:
            answer = quick.send(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        except OSError:  # closed before its handshake
            answer = b""
        assert answer == b"" or answer.startswith(b"HTTP/1.1 429 ")
    until, answer = time.monotonic() + 10, b""
    while not answer.startswith(b"HTTP/1.1 200 ") and time.monotonic() < until:  # it gets them back
        with suppress(OSError):
            answer = quick.send(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_a_body_that_comes_byte_by_byte_has_a_limit_in_all(tmp_path: Path) -> None:
    """Of the embedded proxy; nginx bounds the time between two pieces, and writes a body to disk meanwhile."""
    with opened("embedded", tmp_path / "server", quick=True) as door, door.open() as connection:
        connection.sendall(b"POST /v1/fleet/pull-messages HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n")
        begun = time.monotonic()
        with suppress(ConnectionError, ssl.SSLError):
            while time.monotonic() - begun < 20:
                connection.sendall(b"x")
                time.sleep(0.1)
        assert time.monotonic() - begun < 8


def shown(door: Door) -> str:
    with door.open() as connection:
        return ssl.DER_cert_to_PEM_cert(connection.getpeercert(binary_form=True) or b"")


def test_a_renewed_certificate_is_shown_without_a_restart(quick: Door) -> None:
    old = shown(quick)
    with quick.open() as standing:
        renewed = write_certificate(quick.folder, quick.authority, 60)
        if quick.nginx is not None:
            quick.nginx.send_signal(signal.SIGHUP)  # nginx -s reload
        until = time.monotonic() + 10
        while (found := shown(quick)) == old and time.monotonic() < until:
            time.sleep(0.05)
        assert found in renewed
        standing.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert standing.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_the_access_log_names_who_asked_for_what(tmp_path: Path) -> None:
    if NGINX is None:
        pytest.skip("nginx is not on the path")
    with opened("nginx", tmp_path / "server") as door:
        door.send(b"GET /secret HTTP/1.1\r\nhost: x\r\nX-Forwarded-For: 10.9.8.7\r\nconnection: close\r\n\r\n")
    line = (tmp_path / "server/access.log").read_text()
    assert ' 127.0.0.1 403 "GET /secret" ' in line
    assert "10.9.8.7" not in line
