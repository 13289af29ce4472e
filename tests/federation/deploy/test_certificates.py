"""Certificates are tried as TLS tries them: by a handshake on loopback."""

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from fedsynth.errors import ConfigError
from fedsynth.federation.deploy import certificate_checks
from fedsynth.federation.deploy.certificates import (
    Pair,
    check_host,
    make_authority,
    make_node_key,
    make_server_certificate,
)


@pytest.fixture(scope="module")
def authority() -> Pair:
    return make_authority("brains")


def _write(folder: Path, authority: Pair, server: Pair) -> tuple[Path, Path, Path]:
    paths = folder / "server.pem", folder / "server.key", folder / "ca.pem"
    for path, content in zip(paths, (server.certificate, server.key, authority.certificate), strict=True):
        path.write_bytes(content)
        path.chmod(0o600)
    return paths


def _shake_hands(certificate: Path, key: Path, ca: Path, host: str) -> str:
    outer = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    outer.load_cert_chain(certificate, key)
    inner = ssl.create_default_context(cafile=ca)
    inner.verify_flags |= ssl.VERIFY_X509_STRICT  # Python 3.13's default
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    theirs.settimeout(10)

    def answer() -> None:
        try:
            with outer.wrap_socket(theirs, server_side=True) as connection:
                connection.recv(1)
        except ssl.SSLError:
            theirs.close()

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        with inner.wrap_socket(ours, server_hostname=host) as connection:
            connection.send(b"x")
            return str(connection.version())
    finally:
        ours.close()
        thread.join()


@pytest.mark.parametrize("host", ["fed.example.org", "10.1.2.3", "fd00::1"])
def test_a_client_that_trusts_the_authority_takes_the_certificate_for_every_name_in_it(
    tmp_path: Path, authority: Pair, host: str
) -> None:
    files = _write(tmp_path, authority, make_server_certificate(authority, (host, "127.0.0.1")))
    for name in (host, "127.0.0.1"):
        assert _shake_hands(*files, name) == "TLSv1.3"
        assert certificate_checks.check_certificate(files[0], files[2], host=name) > datetime.now(UTC) + timedelta(
            days=700
        )
    certificate_checks.check_pair(files[0], files[1])


def test_tls_and_the_check_agree_on_what_is_refused(tmp_path: Path, authority: Pair) -> None:
    now = datetime.now(UTC)
    wrong = {
        "expired": make_server_certificate(authority, ("h.org",), days=1, now=now - timedelta(days=3)),
        "of another host": make_server_certificate(authority, ("other.org",)),
        "not signed by": make_server_certificate(make_authority("stranger"), ("h.org",)),
        "valid from": make_server_certificate(authority, ("h.org",), now=now + timedelta(days=3)),
    }
    for text, pair in wrong.items():
        files = _write(tmp_path, authority, pair)
        with pytest.raises(ConfigError, match=text):
            certificate_checks.check_certificate(files[0], files[2], host="h.org")
        with pytest.raises(ssl.SSLCertVerificationError):
            _shake_hands(*files, "h.org")


def test_an_expired_authority_is_named(tmp_path: Path) -> None:
    old = make_authority("brains", now=datetime.now(UTC) - timedelta(days=3651))
    files = _write(tmp_path, old, make_server_certificate(old, ("h.org",)))
    with pytest.raises(ConfigError, match=r"ca\.pem: the certificate expired"):
        certificate_checks.check_certificate(files[0], files[2], host="h.org")


def test_a_server_certificate_cannot_sign_another(authority: Pair, tmp_path: Path) -> None:
    first = make_server_certificate(authority, ("h.org",))
    forged = make_server_certificate(first, ("h.org",))
    files = _write(tmp_path, authority, Pair(certificate=forged.certificate + first.certificate, key=forged.key))
    with pytest.raises(ConfigError, match="not signed by"):
        certificate_checks.check_certificate(files[0], files[2], host="h.org")
    with pytest.raises(ssl.SSLCertVerificationError):
        _shake_hands(*files, "h.org")


def test_keys_that_others_can_read_or_that_belong_elsewhere_are_refused(tmp_path: Path, authority: Pair) -> None:
    certificate, key, _ = _write(tmp_path, authority, make_server_certificate(authority, ("h.org",)))
    key.chmod(0o640)
    with pytest.raises(ConfigError, match="others can read"):
        certificate_checks.check_pair(certificate, key)
    key.write_bytes(make_server_certificate(authority, ("h.org",)).key)
    with pytest.raises(ConfigError, match="does not belong"):
        certificate_checks.check_pair(certificate, key)
    key.write_text("nothing")
    with pytest.raises(ConfigError, match="not a private key"):
        certificate_checks.check_pair(certificate, key)


def test_a_node_key_is_what_flower_reads(tmp_path: Path) -> None:
    from flwr.cli.supernode.register import try_load_public_key
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes

    made = make_node_key("hospital-1")
    (tmp_path / "node.pub").write_bytes(made.public)
    (tmp_path / "node.key").write_bytes(made.private)
    (tmp_path / "node.key").chmod(0o600)
    private = certificate_checks.read_node_key(tmp_path / "node.key")
    assert try_load_public_key(tmp_path / "node.pub") == public_key_to_bytes(private.public_key())
    assert certificate_checks.read_public_key(tmp_path / "node.pub") == private.public_key()
    assert made.public.endswith(b" hospital-1\n")
    assert serialization.load_ssh_private_key(made.private, None).key_size == 384  # type: ignore[union-attr]


def test_a_node_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ed25519

    key = ed25519.Ed25519PrivateKey.generate()
    other = tmp_path / "node.pub"
    other.write_bytes(key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH))
    with pytest.raises(ConfigError, match="not an elliptic-curve key"):
        certificate_checks.read_public_key(other)
    other.write_text("ssh-nonsense")
    with pytest.raises(ConfigError, match="OpenSSH"):
        certificate_checks.read_public_key(other)
    with pytest.raises(ConfigError, match="no such file"):
        certificate_checks.read_public_key(tmp_path / "none.pub")


@pytest.mark.parametrize("host", ["", "https://h.org", "h.org:443", "*.h.org", "1.2.3", "h_1.org", "h org", "a..b"])
def test_a_server_is_a_plain_name(host: str) -> None:
    with pytest.raises(ConfigError, match="is not a server's name"):
        check_host(host)


@pytest.mark.parametrize("host", ["h", "localhost", "fed-1.example.org", "10.0.0.1", "::1"])
def test_plain_names_and_addresses_are_servers(host: str) -> None:
    assert check_host(host) == host
