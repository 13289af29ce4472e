"""`site.toml`: where a hospital's images, disk, ledger and policy lie. It stays at the hospital; no server reads it."""

from dataclasses import dataclass, fields, replace
from pathlib import Path

from fedsynth.config import load_toml
from fedsynth.errors import ConfigError
from fedsynth.privacy.ledger import default_store

SITE_FILE = "site-file"  # the key of Flower's node config that names it


@dataclass(frozen=True, kw_only=True)
class SiteFile:
    """One hospital. `folder` is its own disk: states, losses, log and what left. `store` holds its ledger.

    Without a `store` it is `$FEDSYNTH_STORE` or the user's data directory. Deployed sites have three more: `server` is
    HOST or HOST:PORT, `authority` the certificate that its own must be signed by, `key` this site's private key.
    """

    name: str
    images: Path
    folder: Path
    policy: Path
    store: Path | None = None
    server: str | None = None
    authority: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ConfigError("a site needs a name")
        if self.server is not None:
            _ = self.address

    @property
    def ledger_store(self) -> Path:
        """Where this site's ledger is kept."""
        return default_store() if self.store is None else self.store

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the server; 443 where no port is named."""
        host, colon, port = (self.server or "").rpartition(":")
        if not colon:
            host, port = port, "443"
        if not host or "/" in host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise ConfigError("'server' must be HOST or HOST:PORT", value=self.server, remedy="without https://")
        return host, int(port)


def load_site_file(path: Path) -> SiteFile:
    """Read it; paths in it start at the file's own folder."""
    read = load_toml(SiteFile, path)
    here = path.resolve().parent
    given = {entry.name: getattr(read, entry.name) for entry in fields(SiteFile)}
    placed = {name: (here / value.expanduser()).resolve() for name, value in given.items() if isinstance(value, Path)}
    return replace(read, **placed)  # type: ignore[arg-type]
