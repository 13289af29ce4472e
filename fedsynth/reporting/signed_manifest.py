"""What makes a released folder checkable by whoever receives it: a manifest of hashes, signed with the hospital's
Ed25519 key (RFC 8032), and signed notices that withdraw it.

A signature says who released a folder and that nothing in it has changed. It says nothing about privacy.
"""

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedsynth import atomic_files
from fedsynth.errors import ConfigError, FedSynthError

MANIFEST, SIGNATURE, WITHDRAWAL = "manifest.json", "manifest.sig", "withdrawal.json"
UNLISTED = (MANIFEST, SIGNATURE, WITHDRAWAL)
SCHEMA, NOTICE = "fedsynth.manifest/1", "fedsynth.withdrawal/1"


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What a receiver may believe of a folder. `problems` is empty where nothing speaks against it.

    `signed_by` is the signer's public key, empty where there is no signature; `known` whether it is the expected one,
    None where nobody said which to expect.
    """

    release: Mapping[str, Any] = field(default_factory=dict)
    n_files: int = 0
    signed_by: str = ""
    known: bool | None = None
    withdrawn: str = ""
    problems: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether it is whole, signed by whom it should be, and not withdrawn."""
        return not self.problems and not self.withdrawn


def open_key(path: Path) -> tuple[Ed25519PrivateKey, bool]:
    """The private key in a PEM file, and whether it was made now because there was none."""
    if not path.exists():
        made = Ed25519PrivateKey.generate()
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        atomic_files.write_bytes(path, made.private_bytes(*form), mode=0o600)
        return made, True
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError) as error:
        raise ConfigError("is no private key without a passphrase", file=path, remedy="give an Ed25519 PEM") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError("is a key of another kind", file=path, remedy="give an Ed25519 key, or a new file's name")
    return key, False


def public_key(key: Ed25519PrivateKey) -> str:
    """In hexadecimal digits, to be published where receivers find it."""
    return key.public_key().public_bytes_raw().hex()


def sign_folder(folder: Path, release: Mapping[str, Any], key: Ed25519PrivateKey | None) -> None:
    """Write the manifest of all files in the folder and, with a key, its signature. `release` says what it is."""
    told: dict[str, Any] = {"schema": SCHEMA, "released": datetime.now(UTC).isoformat(timespec="seconds")}
    told |= {"release": dict(release), "public-key": "" if key is None else public_key(key)}
    told["files"] = {name: _digest(folder / name) for name in _files(folder)}
    content = (json.dumps(told, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
    atomic_files.write_bytes(folder / MANIFEST, content)
    if key is not None:
        atomic_files.write_bytes(folder / SIGNATURE, base64.b64encode(key.sign(content)) + b"\n")


def verify_folder(folder: Path, *, expected: str = "", notices: tuple[Path, ...] = ()) -> Verified:
    """Check every file against the manifest, the manifest against its signature, and notices against the signer.

    `expected` is the public key that the hospital published, in hexadecimal digits.
    """
    if not (folder / MANIFEST).is_file():
        problem = "there is no manifest: the folder was not released by `fedsynth release`, or it was taken away"
        raise FedSynthError(problem, file=folder / MANIFEST)
    content = (folder / MANIFEST).read_bytes()
    told = _parsed(content, folder / MANIFEST, SCHEMA)
    listed = told.get("files", {})
    problems = [f"{name}: the manifest names no file inside the folder" for name in listed if not _inside(name)]
    there = set(_files(folder))
    problems += [f"{name}: is missing" for name in sorted(set(listed) - there) if _inside(name)]
    problems += [f"{name}: is not in the manifest" for name in sorted(there - set(listed))]
    same = sorted(there & set(listed))
    problems += [f"{name}: has changed" for name in same if _digest(folder / name) != listed[name]]
    signer = str(told.get("public-key", ""))
    signed = signer if _signed(content, signer, folder / SIGNATURE) else ""
    if signer and not signed:
        problems.append(f"{SIGNATURE}: is not the signature of this manifest by the key that it names")
    if expected and signed != expected.strip().lower():
        problems.append("it is not signed with the key that you expect")
    withdrawn = ""
    for path in (*([folder / WITHDRAWAL] if (folder / WITHDRAWAL).exists() else []), *notices):
        about, reason = _withdrawal(path, content, signed)
        withdrawn = withdrawn or reason
        if not about and path in notices:
            problems.append(f"{path.name}: is a notice about another release")
    return Verified(
        release=told.get("release", {}),
        n_files=len(listed),
        signed_by=signed,
        known=(signed == expected.strip().lower()) if expected else None,
        withdrawn=withdrawn,
        problems=tuple(problems),
    )


def withdraw(folder: Path, reason: str, key: Ed25519PrivateKey) -> bytes:
    """A signed notice that this folder is withdrawn; only the key that signed the manifest can make one that counts."""
    content = (folder / MANIFEST).read_bytes()
    signer = str(_parsed(content, folder / MANIFEST, SCHEMA).get("public-key", ""))
    if signer != public_key(key):
        remedy = "give the key that signed it" if signer else "it was released without a key: tell receivers otherwise"
        raise ConfigError("this key did not sign the release", file=folder / MANIFEST, remedy=remedy)
    told = {"schema": NOTICE, "manifest": hashlib.sha256(content).hexdigest(), "reason": reason}
    told["withdrawn"] = datetime.now(UTC).isoformat(timespec="seconds")
    told["signature"] = base64.b64encode(key.sign(_canonical(told))).decode()
    return (json.dumps(told, indent=1, sort_keys=True) + "\n").encode()


def _withdrawal(path: Path, manifest: bytes, signer: str) -> tuple[bool, str]:
    """Whether a notice is about this manifest, and then its date and reason."""
    if not path.is_file():
        raise FedSynthError("there is no such notice", file=path)
    told = _parsed(path.read_bytes(), path, NOTICE)
    signature = str(told.pop("signature", ""))
    if told.get("manifest") != hashlib.sha256(manifest).hexdigest():
        return False, ""
    if not signer or not _holds(_canonical(told), signature, signer):
        raise FedSynthError("the notice of withdrawal is not signed by whoever released the folder", file=path)
    return True, f"{told.get('withdrawn', '')}: {told.get('reason', '')}"


def _canonical(told: Mapping[str, Any]) -> bytes:
    return json.dumps(told, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _signed(content: bytes, signer: str, file: Path) -> bool:
    return bool(signer) and file.is_file() and _holds(content, file.read_bytes().strip(), signer)


def _holds(content: bytes, signature: str | bytes, signer: str) -> bool:
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signer))
        key.verify(base64.b64decode(signature, validate=True), content)
    except (ValueError, InvalidSignature):
        return False
    return True


def _parsed(content: bytes, file: Path, schema: str) -> dict[str, Any]:
    try:
        told = json.loads(content)
    except ValueError as error:
        raise FedSynthError("is not JSON", file=file) from error
    if not isinstance(told, dict) or told.get("schema") != schema:
        raise FedSynthError(f"is not of the form {schema}", file=file)
    for name in ("files", "release"):
        if schema == SCHEMA and not isinstance(told.get(name), dict):
            raise FedSynthError(f"has no table {name!r}", file=file)
    return told


def _files(folder: Path) -> list[str]:
    """Every file below, but the manifest and what is written about it; links are refused, they could lead anywhere."""
    found = []
    for top, below, names in os.walk(folder):
        for name in (*below, *names):
            path = Path(top) / name
            if path.is_symlink():
                raise FedSynthError("is a link: a release holds files alone", file=path)
        found += [(Path(top) / name).relative_to(folder).as_posix() for name in names]
    return sorted(name for name in found if name not in UNLISTED)


def _inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
