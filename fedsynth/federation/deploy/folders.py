"""One folder for the server, one per hospital, one for the authority: made offline, and never over anything."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fedsynth import atomic_files
from fedsynth.config import as_table, to_toml
from fedsynth.errors import ConfigError, RefusedError
from fedsynth.federation.deploy import templates
from fedsynth.federation.deploy.certificates import (
    DAYS,
    LOOPBACK,
    Pair,
    check_host,
    make_authority,
    make_node_key,
    make_server_certificate,
)
from fedsynth.federation.deploy.nginx_files import nginx_files
from fedsynth.federation.deploy.server_files import PORT, ServerFile, ServerFolder, check_name, check_port, load_server
from fedsynth.federation.settings import FederationSettings

MARKER = "authority"
AT = "/srv/fedsynth"
SHOWN = ("generator", "sites", "rounds", "local-steps", "count", "seed")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What everybody's folders have in common. `at` is where the units expect the folders, on each machine."""

    host: str
    port: int = PORT
    days: int = DAYS
    at: str = AT

    def __post_init__(self) -> None:
        check_host(self.host)
        check_port(self.port)
        if self.days < 1:
            raise ConfigError("a certificate must live a day at least", value=self.days)
        if not self.at.startswith("/") or any(character.isspace() for character in self.at):
            raise ConfigError("--at must be an absolute path without blanks", value=self.at)

    @property
    def server(self) -> str:
        """What a site's file says of the server."""
        return f"{self.host}:{self.port}"


def init(out: Path, hospitals: tuple[str, ...], plan: Plan) -> list[Path]:
    """Write every party's folder into the new folder `out`; the folders, the server's first."""
    names = [check_name(name) for name in hospitals]
    if len(set(names)) < len(names) or not names:
        raise ConfigError("hospitals need names, each its own", value=", ".join(names))
    if out.exists():
        remedy = "choose another; to go on with it: fedsynth deploy add, fedsynth deploy renew"
        raise RefusedError("the folder exists already", file=out, remedy=remedy)
    authority = make_authority(plan.host)
    with atomic_files.new_folder(out, marker=MARKER) as folder, _private_files():
        _write_authority(folder / "authority", authority)
        _write_server(folder / "server", authority, plan, n_sites=len(names))
        for name in names:
            _write_hospital(folder, name, authority.certificate, plan)
    return [out / name for name in ("server", *names)]


def add_hospital(out: Path, name: str, *, at: str = AT) -> Path:
    """One more hospital in the folder that `init` wrote; its public key is put where a running server finds it."""
    place = _server_of(out)
    check_name(name)
    if (out / name).exists() or (place.keys / f"{name}.pub").exists():
        raise RefusedError("there is a hospital of this name", file=out / name, remedy="choose another name")
    plan = Plan(host=place.file.host, port=place.file.port, at=at)
    with _private_files():
        _write_hospital(out, name, place.authority.read_bytes(), plan)
    return out / name


def renew(out: Path, *, days: int = DAYS) -> Path:
    """New certificates for the server, signed by the same authority: hospitals need not do anything."""
    place, folder = _server_of(out), out / "authority"
    try:
        authority = Pair(
            certificate=(folder / "authority.pem").read_bytes(), key=(folder / "authority.key").read_bytes()
        )
    except OSError as error:
        remedy = "run this where `deploy init` was run"
        raise ConfigError("the authority is not here", file=folder, remedy=remedy) from error
    with _private_files():
        _write_certificates(place.folder, authority, place.file.host, days)
    return place.folder


def _write_authority(folder: Path, authority: Pair) -> None:
    folder.mkdir()
    (folder / "authority.pem").write_bytes(authority.certificate)
    (folder / "authority.key").write_bytes(authority.key)


def _write_server(folder: Path, authority: Pair, plan: Plan, *, n_sites: int) -> None:
    (folder / "certificates").mkdir(parents=True)
    (folder / "hospitals").mkdir()
    _write_certificates(folder, authority, plan.host, plan.days)
    name, at = "fedsynth-server.service", f"{plan.at}/server"
    file = ServerFile(host=plan.host, port=plan.port)
    lines = {key: templates.line(key, getattr(file, key)) for key in ("host", "address", "port")}
    settings = FederationSettings(sites=n_sites, rounds=20, local_steps=20)
    shown = {key: value for key, value in as_table(settings).items() if key in SHOWN}
    content = {
        "server.toml": templates.SERVER.format(**lines),
        "federation.toml": templates.FEDERATION.format(settings=to_toml(shown)),
        "start.sh": templates.start_script("Starts the server; with --run it also trains, and resumes", "serve"),
        name: templates.unit(name, "the server", at=at, options=" --run", restart="on-failure"),
        "README.md": templates.SERVER_README.format(server=plan.server, at=at, unit=name, port=plan.port),
    }
    content |= nginx_files(host=plan.host, port=plan.port, inner_port=file.inner_port, at=at)
    _write_texts(folder, content)


def _write_certificates(folder: Path, authority: Pair, host: str, days: int) -> None:
    outer = make_server_certificate(authority, (host,), days=days)
    inner = make_server_certificate(authority, LOOPBACK, days=days)
    place = folder / "certificates"
    (place / "authority.pem").write_bytes(authority.certificate)
    for name, pair in (("server", outer), ("loopback", inner)):
        (place / f"{name}.pem").write_bytes(pair.certificate)
        (place / f"{name}.key").write_bytes(pair.key)


def _write_hospital(out: Path, name: str, authority: bytes, plan: Plan) -> None:
    folder = out / name
    folder.mkdir()
    key = make_node_key(name)
    (folder / "authority.pem").write_bytes(authority)
    (folder / "node.key").write_bytes(key.private)
    (folder / "node.pub").write_bytes(key.public)
    unit, at = f"fedsynth-{name}.service", f"{plan.at}/{name}"
    content = {
        "site.toml": templates.SITE.format(
            name=templates.line("name", name), server=templates.line("server", plan.server)
        ),
        "policy.toml": templates.POLICY,
        "start.sh": templates.start_script("Starts this hospital's node", "join"),
        unit: templates.unit(unit, f"the node of {name}", at=at),
        "README.md": templates.HOSPITAL_README.format(name=name, at=at, unit=unit, server=plan.server),
    }
    _write_texts(folder, content)
    (out / "server" / "hospitals" / f"{name}.pub").write_bytes(key.public)


def _write_texts(folder: Path, content: dict[str, str]) -> None:
    for name, text in content.items():
        (folder / name).write_text(text, encoding="utf-8")


@contextmanager
def _private_files() -> Iterator[None]:
    """Whatever is written in the block can be read by its owner alone, from its first moment."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def _server_of(out: Path) -> ServerFolder:
    return load_server(out / "server")
