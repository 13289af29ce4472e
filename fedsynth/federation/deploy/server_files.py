"""What lies where in the folders that `deploy init` writes, and the server's own file `server.toml`."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fedsynth.config import load_toml
from fedsynth.errors import ConfigError
from fedsynth.federation.deploy.certificates import check_host
from fedsynth.federation.deploy.proxy_limits import Limits

PORT, INNER_PORT = 8443, 9443
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?")
RESERVED = ("server", "authority")


@dataclass(frozen=True, kw_only=True)
class ServerFile:
    """`server.toml`. `host` is the name in the certificate, `address` and `port` where the proxy opens.

    `run` is where the run directory goes; `settings` what is to be trained. With an `own` proxy, as in `nginx.conf`,
    Flower listens on `inner_port` of loopback and nothing else is opened; `limits` are those of the embedded one.
    """

    host: str
    address: str = "0.0.0.0"  # noqa: S104
    port: int = PORT
    run: Path = Path("run")
    settings: Path = Path("federation.toml")
    proxy: Literal["embedded", "own"] = "embedded"
    inner_port: int = INNER_PORT
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        check_host(self.host)
        check_port(self.port)
        check_port(self.inner_port)


@dataclass(frozen=True, kw_only=True)
class ServerFolder:
    """The server's folder."""

    folder: Path
    file: ServerFile

    @property
    def authority(self) -> Path:
        """Whom everybody trusts."""
        return self.folder / "certificates" / "authority.pem"

    @property
    def outer(self) -> tuple[Path, Path]:
        """Certificate and key of the proxy: what hospitals see."""
        return self.folder / "certificates" / "server.pem", self.folder / "certificates" / "server.key"

    @property
    def inner(self) -> tuple[Path, Path]:
        """Certificate and key behind the proxy, for loopback only."""
        return self.folder / "certificates" / "loopback.pem", self.folder / "certificates" / "loopback.key"

    @property
    def keys(self) -> Path:
        """One public key per hospital; what lies here is let in."""
        return self.folder / "hospitals"

    @property
    def state(self) -> Path:
        """What the server writes besides the run: Flower's home and database, logs."""
        return self.folder / "state"

    @property
    def database(self) -> Path:
        """Flower's memory of nodes and runs."""
        return self.state / "flower.db"

    @property
    def nodes(self) -> Path:
        """Which of Flower's nodes is which hospital, by the key that it was let in with."""
        return self.state / "nodes.toml"

    @property
    def run(self) -> Path:
        """The run directory, absolute: Flower starts the app wherever it likes."""
        return (self.folder / self.file.run.expanduser()).resolve()

    @property
    def settings(self) -> Path:
        """The federation's settings."""
        return self.folder / self.file.settings.expanduser()


def load_server(folder: Path) -> ServerFolder:
    """The server's place in `folder`."""
    file = folder / "server.toml"
    if not file.is_file():
        remedy = "give the server's folder, made by: fedsynth deploy init"
        raise ConfigError("is not a server's folder: it has no server.toml", file=folder, remedy=remedy)
    return ServerFolder(folder=folder.resolve(), file=load_toml(ServerFile, file))


def check_name(name: str) -> str:
    """A hospital's name goes into folders, units and keys."""
    if not _NAME.fullmatch(name) or name in RESERVED:
        remedy = "take small letters, digits and hyphens, at most 48"
        raise ConfigError("is not a name for a hospital's folder", value=name, remedy=remedy)
    return name


def check_port(port: int) -> int:
    """A port that a server can open."""
    if not 0 < port < 65536:
        raise ConfigError("a port lies between 1 and 65535", value=port)
    return port
