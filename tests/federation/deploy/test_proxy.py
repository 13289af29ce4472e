"""The embedded proxy, before a small HTTPS server on loopback: what the attacks of test_reverse_proxy.py do not see."""

import errno
import json
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.client import HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
from flwr.app import Array

from fedsynth.errors import FedSynthError
from fedsynth.federation.deploy.certificates import make_authority, make_server_certificate
from fedsynth.federation.deploy.proxy import (
    ALLOWED,
    LARGEST_BODY,
    Limits,
    ProxySettings,
    RefusedRequestError,
    is_allowed,
    read_head,
    running_proxy,
)
from fedsynth.federation.flower_start import free_port

FLEET = "/v1/fleet/pull-messages"


class _Inner(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        seen = {"path": self.path, "body": body.decode("latin1"), "headers": dict(self.headers)}
        answer = json.dumps(seen).encode()
        self.send_response(200)
        if "unmeasured" in self.headers.get("x-ask", ""):
            self.send_header("connection", "close")
        else:
            self.send_header("content-length", str(len(answer)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    do_GET = do_HEAD = do_POST

    def log_message(self, format: str, *args: object) -> None:
        pass


@dataclass
class GaussianMechanism:
    port: int
    trust: ssl.SSLContext
    inner: ThreadingHTTPServer
    settings: ProxySettings
    refused: list[str] = field(default_factory=list)

    def connect(self) -> HTTPSConnection:
        return HTTPSConnection("localhost", self.port, context=self.trust, timeout=10)

    def send(self, raw: bytes) -> bytes:
        plain = socket.create_connection(("localhost", self.port), timeout=10)
        with self.trust.wrap_socket(plain, server_hostname="localhost") as connection:
            connection.sendall(raw)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        return answer


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GaussianMechanism]:
    folder = tmp_path_factory.mktemp("proxy")
    authority = make_authority("brains")
    server = make_server_certificate(authority, ("localhost", "127.0.0.1"))
    for name, content in (("ca", authority.certificate), ("pem", server.certificate), ("key", server.key)):
        (folder / name).write_bytes(content)
    inner = ThreadingHTTPServer(("127.0.0.1", 0), _Inner)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "pem", folder / "key")
    inner.socket = context.wrap_socket(inner.socket, server_side=True)
    Thread(target=inner.serve_forever, daemon=True).start()
    settings = ProxySettings(
        address="127.0.0.1",
        port=free_port(),
        certificate=folder / "pem",
        key=folder / "key",
        inner_port=inner.server_port,
        inner_authority=folder / "ca",
    )
    trust = ssl.create_default_context(cafile=folder / "ca")
    made = GaussianMechanism(port=settings.port, trust=trust, inner=inner, settings=settings)
    with running_proxy(settings, made.refused.append):
        yield made
    inner.shutdown()
    inner.server_close()


def test_an_answer_without_a_length_ends_with_the_connection(proxy: GaussianMechanism) -> None:
    connection = proxy.connect()
    connection.request("POST", FLEET, b"body", {"x-ask": "unmeasured"})
    answer = connection.getresponse()
    assert json.loads(answer.read())["body"] == "body"
    assert answer.getheader("connection") == "close"
    connection.close()


def test_a_refusal_is_said_with_who_asked_for_what(proxy: GaussianMechanism) -> None:
    before = len(proxy.refused)
    answer = proxy.send(b"POST /v1/control/start-run HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nbody")
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"connection: close" in answer
    assert proxy.refused[before:] == ["refused POST '/v1/control/start-run' from 127.0.0.1"]


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v1/fleet/pull-messages HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST /v1/fleet/pull-messages HTTP/1.1\r\ncontent-length: 4\r\ncontent-length: 60\r\n\r\n",
        b"POST /v1/fleet/pull-messages HTTP/1.1\r\ncontent-length: +4\r\n\r\n",
        b"POST /v1/fleet/pull-messages HTTP/1.1\r\ncontent-length: " + b"1" * 5000 + b"\r\n\r\n",
        b"POST /v1/fleet/pull-messages HTTP/1.1\r\ncontent-length : 4\r\n\r\n",
        b"POST /v1/fleet/pull-messages HTTP/1.1\r\nx: a\r\n folded: b\r\n\r\n",
        b"POST /v1/fleet/pull-messages HTTP/1.1\r\nx: a\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /v1/fleet/pull-messages HTTP/1.0\r\n\r\n",
        b"POST  /v1/fleet/pull-messages HTTP/1.1\r\n\r\n",
        b"POST /v1/fleet/pull-messages\r\n\r\n",
        b"\x1b[2J\n200 /v1/control/x HTTP/1.1\r\n\r\n",  # would write lines of its own into the log
        b"\r\n\r\n",
        b"\xff\xfe POST x\r\n\r\n",
    ],
)
def test_two_readings_of_one_request_are_refused(head: bytes) -> None:
    with pytest.raises(RefusedRequestError) as refusal:
        read_head(head)
    assert refusal.value.status == 400


def test_the_largest_thing_that_a_node_sends_passes() -> None:
    """A piece of an array, as Flower cuts it, in the message that carries it."""
    from flwr.proto.message_pb2 import PushObjectRequest

    array = Array(np.zeros(3 * 2**20, np.float32))
    pieces = [child.deflate() for child in array.children.values()]  # type: ignore[union-attr]
    pushed = PushObjectRequest(object_id="0" * 64, object_content=max(pieces, key=len), run_id=2**63)
    size = len(pushed.SerializeToString())
    assert 5 * 2**20 < size < LARGEST_BODY
    assert read_head(f"POST /v1/fleet/push-object HTTP/1.1\r\ncontent-length: {size}\r\n\r\n".encode()).length == size


def test_without_a_server_behind_it_nodes_are_told_to_come_back(proxy: GaussianMechanism) -> None:
    settings = replace(proxy.settings, port=free_port(), inner_port=free_port())
    with running_proxy(settings, proxy.refused.append):
        connection = HTTPSConnection("localhost", settings.port, context=proxy.trust, timeout=10)
        connection.request("POST", FLEET, b"x")
        assert connection.getresponse().status == 502
        connection.close()


@pytest.fixture
def narrow(proxy: GaussianMechanism) -> Iterator[int]:
    """The port of a proxy for three connections, two of each peer, that waits for nobody."""
    limits = Limits(handshake=0.5, first=0.5, idle=0.5, parting=0.2, connections=3, per_peer=2)
    settings = replace(proxy.settings, port=free_port(), limits=limits)
    with running_proxy(settings, proxy.refused.append):
        yield settings.port


def test_a_connection_that_counts_no_more_stands_no_more(narrow: int, proxy: GaussianMechanism) -> None:
    """A client that keeps its side open and says no farewell held the server's socket for half a minute, uncounted."""
    plain = socket.create_connection(("127.0.0.1", narrow), timeout=10)
    with proxy.trust.wrap_socket(plain, server_hostname="localhost") as silent:
        silent.sendall(b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n")
        with socket.socket(fileno=os.dup(silent.fileno())) as below:  # beneath TLS: what the system says of the wire
            below.settimeout(5)
            with suppress(ConnectionError):
                while below.recv(65536):
                    pass


def test_peers_share_what_there_is(narrow: int, proxy: GaussianMechanism) -> None:
    """Loopback has many addresses: three of them, one connection each, leave no room for a fourth."""
    held = [_from(f"127.0.0.{i}", narrow) for i in (2, 3, 4)]
    with _from("127.0.0.5", narrow) as fourth, pytest.raises((OSError, ssl.SSLError)):
        proxy.trust.wrap_socket(fourth, server_hostname="localhost")
    for connection in held:
        connection.close()


def _from(address: str, port: int) -> socket.socket:
    try:
        return socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(address, 0))
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:  # whatever else goes wrong is the proxy's doing
            raise
        pytest.skip("loopback has one address here, as on macOS")


def test_a_port_in_use_is_one_line(proxy: GaussianMechanism) -> None:
    words = rf"the port {proxy.port} of 127\.0\.0\.1 cannot be opened"
    with pytest.raises(FedSynthError, match=words), running_proxy(proxy.settings, proxy.refused.append):
        pass


def test_the_allowed_paths_are_those_of_flowers_nodes() -> None:
    """Tells when Flower moves them: the proxy would then shut out the hospitals, or let a new thing in unseen."""
    from flwr.superlink.routers.fleet.router import router

    fleet = {route.path for route in router.routes}  # type: ignore[attr-defined]
    itself = {"/v1/fleet/register-node", "/v1/fleet/unregister-node"}
    assert fleet == (set(ALLOWED) - {"/health"}) | itself
    assert not any(is_allowed(read_head(f"POST {path} HTTP/1.1\r\n\r\n".encode())) for path in itself)
