"""Flower's server on loopback, and the list of nodes it knows, kept equal to the public keys in a folder."""

import hashlib
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPSConnection
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fedsynth import config
from fedsynth.errors import FedSynthError
from fedsynth.federation.deploy.certificate_checks import read_public_key
from fedsynth.federation.deploy.flower_programs import Flower, leashed, program, wait_until
from fedsynth.federation.deploy.server_files import ServerFolder
from fedsynth.federation.flower_start import last_line

_STARTING = 180.0  # seconds; a machine at work needs a minute
_SELDOM = 60.0
_IN_USE, _NOT_FOUND, _UNREGISTERED = "already in use", "not found", "unregistered"


@dataclass(frozen=True, kw_only=True)
class SuperLink:
    """A running SuperLink: its port on loopback and the home of its commands."""

    port: int
    flower: Flower
    process: "subprocess.Popen[bytes]"
    log: Path

    def check_alive(self) -> None:
        """Raise when it has ended."""
        if self.process.poll() is not None:
            problem = f"Flower's server ended: {_said(self.log)}"
            raise FedSynthError(problem, file=self.log, remedy="start again: the run is resumed")


@contextmanager
def running_superlink(place: ServerFolder, port: int) -> Iterator[SuperLink]:
    """Flower's server, on loopback only, during the block. What it knows outlives it in the database."""
    flower = Flower(home=place.state / "flower")
    log = place.state / "superlink.log"
    certificate, key = place.inner
    command = [program("flower-superlink"), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--ssl-ca-certfile", str(place.authority), "--ssl-certfile", str(certificate)]
    command += ["--ssl-keyfile", str(key), "--enable-supernode-auth", "--database", str(place.database)]
    command += ["--disable-runtime-dependency-installation"]
    flower.connect(port, place.authority)
    with leashed(command, environment=flower.environment(), log=log) as process:
        link = SuperLink(port=port, flower=flower, process=process, log=log)
        if not wait_until(lambda: process.poll() is not None or _answers(link, place), seconds=_STARTING):
            raise FedSynthError(f"Flower's server does not answer: {_said(log)}", file=log)
        link.check_alive()
        yield link


@dataclass(kw_only=True)
class Hospitals:
    """Which hospitals are let in. `known` is what Flower was told: name to node; `prints` with which key."""

    place: ServerFolder
    flower: Flower
    report: Callable[[str], None]
    known: dict[str, str] = field(default_factory=dict)
    prints: dict[str, str] = field(default_factory=dict)
    online: frozenset[str] = frozenset()
    keys: frozenset[tuple[str, int]] | None = None
    looked: float = 0.0

    @property
    def record(self) -> Path:
        """Which node is which hospital: Flower's own list says no names."""
        return self.place.nodes

    @property
    def prints_record(self) -> Path:
        """The fingerprint of the key that each hospital was let in with."""
        return self.place.state / "keys.toml"

    def reconcile(self) -> None:
        """Register the keys that came, forget those that were taken away, and say who came and went.

        Flower is asked when the folder has changed, else now and then: each question starts a program of its own.
        """
        keys = frozenset((path.name, path.stat().st_mtime_ns) for path in self.place.keys.glob("*.pub"))
        if keys == self.keys and time.monotonic() - self.looked < _SELDOM:
            return
        self._reconcile()
        self.keys, self.looked = keys, time.monotonic()

    def _reconcile(self) -> None:
        self._recall()
        nodes = self.flower.ask("supernode", "list")["nodes"]
        listed = {node["node-id"]: node["status"] for node in nodes if node["status"] != _UNREGISTERED}
        wanted = {path.stem: path for path in sorted(self.place.keys.glob("*.pub"))}
        prints = {name: _fingerprint(path) for name, path in wanted.items()}
        for name in [name for name, node in self.known.items() if node not in listed]:
            self._forget(name)
            self.report(f"{name} is shut out: it is registered no more")
        unanswered = self._shut_out_all(prints)
        for name in [name for name in wanted if name not in self.known]:
            try:
                self._let_in(name, wanted[name], prints[name], listed)
            except FedSynthError as error:  # one wrong file must not stop the others
                self.report(f"{name} is not let in: {error}")
        self._save()
        self._say_who(frozenset(name for name, node in self.known.items() if listed.get(node) == "online"))
        if unanswered is not None:
            raise unanswered

    def _recall(self) -> None:
        if not self.known and self.record.exists():
            self.known = {str(name): str(node) for name, node in config.parse_toml(self.record).items()}
        if not self.prints and self.prints_record.exists():
            self.prints = {str(name): str(key) for name, key in config.parse_toml(self.prints_record).items()}

    def _save(self) -> None:
        for record, now in ((self.prints_record, self.prints), (self.record, self.known)):
            if not record.exists() or config.parse_toml(record) != now:
                config.save_toml(record, now)

    def _forget(self, name: str) -> None:
        self.known.pop(name, None)
        self.prints.pop(name, None)
        self._save()

    def _shut_out_all(self, prints: Mapping[str, str]) -> FedSynthError | None:
        """Unregister whose key is gone or is another one now; a file that is being written decides nothing.

        Whoever could not be unregistered does not keep the others in: the last such error is given back.
        """
        unanswered = None
        for name, node in list(self.known.items()):
            here = prints.get(name)
            was = self.prints.setdefault(name, here) if here else self.prints.get(name)
            if name in prints and here in ("", was):
                continue
            try:
                self._unregister(node)
            except FedSynthError as error:
                unanswered = error
                continue
            self._forget(name)
            self.report(f"{name} is shut out: its key was {'replaced' if name in prints else 'taken away'}")
        return unanswered

    def _unregister(self, node: str) -> None:
        try:
            self.flower.ask("supernode", "unregister", node)
        except FedSynthError as error:
            if _NOT_FOUND not in str(error):  # it was done before, and the answer was lost
                raise

    def _let_in(self, name: str, key: Path, print_: str, listed: Mapping[str, str]) -> None:
        """Register the key. What is about to be done is written down first: Flower takes no key twice."""
        read_public_key(key)
        begun = self.prints.get(name) == print_
        self.prints[name] = print_
        self._save()
        try:
            self.known[name] = str(self.flower.ask("supernode", "register", str(key))["node-id"])
        except FedSynthError as error:
            if _IN_USE not in str(error):
                raise  # perhaps its answer alone was lost
            self.known |= self._found_again(name, listed) if begun else {}
            if name not in self.known:
                self._forget(name)
                remedy = (
                    "a key that was shut out stays out, under any name: make the hospital a new one; two hospitals "
                    f"never share a key; if {self.record.name} was lost, remove {self.place.database}"
                )
                raise FedSynthError("Flower knows this key already", file=key, remedy=remedy) from error
        self._save()
        self.report(f"{name} is let in, with the key {key.name}")

    def _found_again(self, name: str, listed: Mapping[str, str]) -> dict[str, str]:
        """The node of a key whose registration was broken off: the only one that is nobody's."""
        nobodys = set(listed) - set(self.known.values())
        return {name: nobodys.pop()} if len(nobodys) == 1 else {}

    def _say_who(self, online: frozenset[str]) -> None:
        for name in sorted(online - self.online):
            self.report(f"{name} is online")
        for name in sorted(self.online - online):
            self.report(f"{name} is offline")
        self.online = online


def _fingerprint(path: Path) -> str:
    """Of the key itself, whatever else stands in the file; empty where there is none."""
    try:
        key = read_public_key(path).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except FedSynthError:
        return ""
    return hashlib.sha256(key).hexdigest()


def _answers(link: SuperLink, place: ServerFolder) -> bool:
    trust = ssl.create_default_context(cafile=place.authority)
    connection = HTTPSConnection("127.0.0.1", link.port, timeout=5, context=trust)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _said(log: Path) -> str:
    return last_line(log.read_text(encoding="utf-8", errors="replace") if log.exists() else "")
