"""An authority of the federation's own, certificates for the server, keys for the hospitals: all made offline.

It touches no file and knows nothing of folders or of Flower.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedsynth.errors import ConfigError

YEARS = 10  # of the authority; what it signs lives as long as asked
DAYS = 730
LOOPBACK = ("localhost", "127.0.0.1")
_CLOCKS = timedelta(hours=1)  # hospitals' clocks differ: a certificate is valid a little before it is made


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A certificate and its private key, both in PEM."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True, kw_only=True)
class NodeKey:
    """A hospital's key, both halves in OpenSSH's form: what `ssh-keygen -t ecdsa -b 384` would make."""

    private: bytes
    public: bytes


def make_authority(name: str, *, now: datetime | None = None) -> Pair:
    """A new authority, which can sign certificates and nothing else."""
    key = ec.generate_private_key(ec.SECP384R1())
    subject = _subject(f"{name} authority")
    builder = _builder(subject, subject, key.public_key(), now, timedelta(days=365 * YEARS))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return _pair(builder.sign(key, hashes.SHA384()), key)


def make_server_certificate(
    authority: Pair, names: tuple[str, ...], *, days: int = DAYS, now: datetime | None = None
) -> Pair:
    """A server's certificate for `names`, host names and addresses, signed by the authority."""
    signer = x509.load_pem_x509_certificate(authority.certificate)
    signing_key = _private_key(authority.key)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(names[0])
    builder = _builder(subject, signer.subject, key.public_key(), now, timedelta(days=days))
    alternatives = x509.SubjectAlternativeName([general_name(name) for name in names])
    signer_id = signer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    for extension, critical in (
        (alternatives, False),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(signs_certificates=False), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(signer_id), False),
    ):
        builder = builder.add_extension(extension, critical=critical)
    return _pair(builder.sign(signing_key, hashes.SHA384()), key)


def make_node_key(comment: str) -> NodeKey:
    """A new key for one hospital; the server learns the public half only."""
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return NodeKey(private=private, public=public + b" " + comment.encode() + b"\n")


def check_host(host: str) -> str:
    """The server's name as certificates carry it: a host name or an address, without port or scheme."""
    labels = host.rstrip(".").split(".")
    named = all(label and len(label) < 64 and label.replace("-", "").isalnum() and label.isascii() for label in labels)
    if _is_address(host) or (named and len(host) < 254 and not labels[-1].isdigit()):
        return host
    remedy = "give a host name or an address as hospitals reach it, without https:// and port"
    raise ConfigError("is not a server's name", value=host, remedy=remedy)


def _private_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("not an elliptic-curve key")
    return key


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Pair(certificate=certificate.public_bytes(serialization.Encoding.PEM), key=private)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime | None,
    lasts: timedelta,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC) if now is None else now
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - _CLOCKS).not_valid_after(now + lasts)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def general_name(name: str) -> x509.DNSName | x509.IPAddress:
    """A host name or an address as certificates write it."""
    return x509.IPAddress(ip_address(name)) if _is_address(name) else x509.DNSName(name)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
