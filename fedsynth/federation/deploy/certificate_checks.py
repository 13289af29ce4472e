"""Whether certificates and keys are in order: valid today, of the right host, signed by the right authority, private.

Every finding is one line that names the file and the remedy. It makes nothing.
"""

from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from fedsynth.errors import ConfigError
from fedsynth.federation.deploy.certificates import general_name


def check_certificate(certificate: Path, authority: Path, *, host: str, now: datetime | None = None) -> datetime:
    """The day on which the certificate ends; refused when it is not valid now, is not the host's, or was not signed."""
    now = datetime.now(UTC) if now is None else now
    try:
        chain = x509.load_pem_x509_certificates(_content(certificate))
    except ValueError as error:
        raise ConfigError("is not a certificate in PEM form", file=certificate) from error
    read_authority(authority, now=now)
    return check_chain(chain, authority, host=host, file=certificate, now=now)


def check_chain(
    chain: list[x509.Certificate], authority: Path, *, host: str, file: Path | str, now: datetime
) -> datetime:
    """The same for a chain already read, as a server shows it; `file` is what messages name."""
    leaf = chain[0]
    check_days(leaf, file=file, now=now)
    if not _is_for(leaf, host):
        names = ", ".join(_names(leaf)) or "nothing"
        remedy = f"make one for this host, or reach the server under a name of its own: {names}"
        raise ConfigError("the certificate is of another host", file=file, value=host, remedy=remedy)
    policy = PolicyBuilder().store(Store(read_authority(authority, now=now))).time(now)
    try:
        policy.build_server_verifier(general_name(host)).verify(leaf, chain[1:])
    except VerificationError as error:
        remedy = "take both from one `fedsynth deploy init`"
        raise ConfigError(f"the certificate was not signed by {authority}", file=file, remedy=remedy) from error
    return leaf.not_valid_after_utc


def read_authority(path: Path, *, now: datetime) -> list[x509.Certificate]:
    """The authorities that a party trusts."""
    try:
        trusted = x509.load_pem_x509_certificates(_content(path))
    except ValueError as error:
        raise ConfigError("is not a certificate in PEM form", file=path) from error
    for certificate in trusted:
        check_days(certificate, file=path, now=now)
    return trusted


def check_days(certificate: x509.Certificate, *, file: Path | str, now: datetime) -> None:
    """Valid now, not before and not after."""
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > last:
        remedy = "renew it with: fedsynth deploy renew"
        raise ConfigError(f"the certificate expired on {last.date()}", file=file, remedy=remedy)
    if now < first:
        raise ConfigError(f"the certificate is valid from {first}", file=file, remedy="set this machine's clock")


def check_pair(certificate: Path, key: Path) -> None:
    """The key belongs to the certificate, and nobody else can read it."""
    try:
        private = serialization.load_pem_private_key(_content(key), None)
        public = x509.load_pem_x509_certificates(_content(certificate))[0].public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError("is not a private key in PEM form without a passphrase", file=key) from error
    if public != private.public_key():
        raise ConfigError("the key does not belong to the certificate", file=key, remedy=f"its like is {certificate}")
    check_private(key)


def read_public_key(path: Path) -> ec.EllipticCurvePublicKey:
    """A hospital's public key, or an error that says what the file is instead."""
    try:
        key = serialization.load_ssh_public_key(_content(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        remedy = "make one with: ssh-keygen -t ecdsa -b 384"
        raise ConfigError("is not a public key in OpenSSH's form", file=path, remedy=remedy) from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ConfigError("is not an elliptic-curve key", file=path, remedy="make one with: ssh-keygen -t ecdsa -b 384")
    return key


def read_node_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """A hospital's private key; nobody else may be able to read it."""
    try:
        key = serialization.load_ssh_private_key(_content(path), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError("is not a private key in OpenSSH's form without a passphrase", file=path) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError("is not an elliptic-curve key", file=path, remedy="make one with: ssh-keygen -t ecdsa -b 384")
    check_private(path)
    return key


def check_private(path: Path) -> None:
    """A private key that others on the machine can read is no private key."""
    rights = path.stat().st_mode & 0o777
    if rights & 0o077:
        raise ConfigError("others can read this private key", file=path, value=oct(rights), remedy=f"chmod 600 {path}")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot be read: {(error.strerror or str(error)).lower()}", file=path) from error


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in found if isinstance(name, x509.DNSName | x509.IPAddress)]


def _is_for(certificate: x509.Certificate, host: str) -> bool:
    """Also under a wildcard, which stands for one label: hospitals' own certificates have them."""
    wild = f"*.{host.partition('.')[2]}"
    return host.lower() in (name.lower() for name in _names(certificate)) or wild in _names(certificate)
