"""What a hospital finds out about its server before it joins: whose certificate it has, whether the clocks agree."""

import ssl
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from fedsynth.federation.deploy.certificates import make_authority, make_server_certificate
from fedsynth.federation.deploy.preflight import seconds_apart
from tests.federation.hospital import Hospital, findings
from tests.federation.web_proxy import WebProxy


@pytest.fixture
def hospital(tmp_path):
    return Hospital(tmp_path)


class _Health(BaseHTTPRequestHandler):
    late = timedelta(0)

    def do_GET(self):
        self.send_response_only(200)
        self.send_header("date", format_datetime(datetime.now(UTC) - self.late, usegmt=True))
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def serve(hospital):
    """A server on loopback under a certificate for `names`, whose clock is `late`."""
    servers = []

    def start(names=("127.0.0.1",), late=timedelta(0), days=30, now=None):
        pair = make_server_certificate(hospital.authority, names, days=days, now=now)
        (hospital.folder / "server.pem").write_bytes(pair.certificate)
        (hospital.folder / "server.key").write_bytes(pair.key)
        server = HTTPServer(("127.0.0.1", 0), type("Health", (_Health,), {"late": late}))
        server.handle_error = lambda *arguments: None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(hospital.folder / "server.pem", hospital.folder / "server.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return hospital.write(server=f"127.0.0.1:{server.server_port}")

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_server_under_the_authority_is_in_order(serve):
    found = findings(serve())
    assert found["server"][0] == found["clock"][0] == "ok"
    assert "as the server's" in found["clock"][1]


def test_a_server_of_another_host_or_authority_or_time_is_refused(serve, hospital):
    state, text = findings(serve(names=("elsewhere.org",)))["server"]
    assert state == "problem"
    assert "not valid for '127.0.0.1'" in text
    state, text = findings(serve(days=5, now=datetime.now(UTC) - timedelta(days=10)))["server"]
    assert state == "problem"
    assert "expired" in text
    path = serve()
    (hospital.folder / "ca.pem").write_bytes(make_authority("other").certificate)
    assert findings(path)["server"][0] == "problem"


@pytest.mark.parametrize(
    ("late", "words"),
    [(timedelta(minutes=1), "ahead of the server's"), (timedelta(minutes=-10), "behind the server's")],
)
def test_a_clock_that_the_server_would_not_accept_is_told(serve, late, words):
    state, text = findings(serve(late=late))["clock"]
    assert state == "problem"
    assert words in text


def test_a_server_that_does_not_answer_is_noted_and_no_problem(hospital):
    found = findings(hospital.write(server="127.0.0.1:9"))
    assert found["server"][0] == "note"
    assert "not reached" in found["server"][1]


@pytest.fixture
def proxy(monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    made = WebProxy(password="north:secret")
    yield made
    made.close()


def test_the_check_goes_by_way_of_the_hospitals_web_proxy(serve, hospital, proxy, monkeypatch):
    """The name is known to nobody but the proxy."""
    port = serve(names=("fed.example.test",)).read_text().rpartition(":")[2].strip('"\n')
    path = hospital.write(server=f"fed.example.test:{port}")
    monkeypatch.setenv("HTTPS_PROXY", f"http://north:secret@{proxy.address}")
    found = findings(path)
    assert found["server"][0] == found["clock"][0] == "ok"
    assert f"by way of the web proxy {proxy.address}" in found["server"][1]
    assert "secret" not in str(found)
    assert proxy.asked == [f"fed.example.test:{port}"]

    monkeypatch.setenv("HTTPS_PROXY", f"http://north:wrong@{proxy.address}")
    state, text = findings(path)["server"]
    assert state == "note"
    assert "not reached: 407 Proxy Authentication Required" in text
    monkeypatch.setenv("HTTPS_PROXY", f"http://north:secret@{proxy.address}")
    (hospital.folder / "ca.pem").write_bytes(make_authority("other").certificate)
    state, text = findings(path)["server"]
    assert state == "problem"
    assert "its certificate is refused" in text
    assert "by way of the web proxy" in text
    assert len(proxy.asked) == 2


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("password", ["qz/xw", "qz#xw", "qz?xw", "7781/xw", "qz@xw/qz", "xw:1/qz", "qz xw", "[xw"])
def test_no_part_of_a_proxys_password_is_shown(hospital, proxy, monkeypatch, variable, password):
    monkeypatch.setenv(variable, f"http://north:{password}@{proxy.address}")
    _, text = findings(hospital.write(server="fed.example.test:9"))["server"]
    assert not any(part in text for part in ("qz", "xw", "7781"))
    assert f"{variable} cannot be read" in text or f"by way of the web proxy {proxy.address}" in text


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("socks5://north:secret@proxy.example:1080", "names a SOCKS proxy, which cannot be used"),
        ("http://north:secret@proxy.example:port", "cannot be read"),
        ("ftp://north:secret@proxy.example:21", "cannot be read"),
        ("http://north:se/cret@proxy.example:3128", "cannot be read"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_one_clear_line(hospital, proxy, monkeypatch, variable, url, words):
    monkeypatch.setenv(variable, url)
    state, text = findings(hospital.write(server="fed.example.test:9"))["server"]
    assert state == "problem"
    assert text.startswith(f"fed.example.test:9: {variable} {words}; name an HTTP proxy")
    assert "cret" not in text


def test_a_server_on_this_machine_is_asked_directly_whatever_the_web_proxy(serve, proxy, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
    state, text = findings(serve())["server"]
    assert state == "ok"
    assert "web proxy" not in text
    assert proxy.asked == []


def test_waiting_for_an_answer_is_no_difference_of_clocks():
    """On a busy machine the answer, or this program, may take half a minute."""
    asked = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
    answered = asked + timedelta(seconds=40)
    apart = partial(seconds_apart, asked=asked, answered=answered)
    assert [apart(asked + timedelta(seconds=late)) for late in (0, 20, 40)] == [0, 0, 0]
    assert apart(asked - timedelta(seconds=9)) == 9
    assert apart(answered + timedelta(seconds=400)) == -400
