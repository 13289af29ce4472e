"""Where a site does its stage of a run: its name, its own storage, its policy and its images, simulated or real.

A simulated hospital lies in the run directory. A real one reads the site file that its own node names: nothing that
a server sends can point it anywhere else.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any

from fedsynth.config import load_toml
from fedsynth.data import ImageSet
from fedsynth.data.site_config import SitesFile, load_sites
from fedsynth.data.sites import Federation, open_federation
from fedsynth.errors import ConfigError
from fedsynth.federation.error_codes import ErrorCode, NeutralError
from fedsynth.federation.policy import Policy, load_policy
from fedsynth.privacy.ledger import default_store, folder_of
from fedsynth.runs import Run

# `site.toml`: where a hospital's images, disk, ledger and policy lie. It stays at the hospital; no server reads it.


SITE_FILE = "site-file"  # the key of Flower's node config that names it


@dataclass(frozen=True, kw_only=True)
class SiteFile:
    """One hospital. `folder` is its own storage: states, losses, log and what left. `store` holds its ledger.

    Without a `store` it is `$FEDSYNTH_STORE` or the user's data directory. `public` is this site's copy of the public
    images that a run compares patients with: no path of a server's is ever opened. Deployed sites have three more:
    `server` is HOST or HOST:PORT, `authority` the certificate that its own must be signed by, `key` this site's
    private key.
    """

    name: str
    images: Path
    folder: Path
    policy: Path
    store: Path | None = None
    public: Path | None = None
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


SITES, POLICY = "sites.toml", "policy.toml"
PARTITION = "partition-id"
LONGEST = 200  # letters of a folder's name; file systems take 255
_OPENING = Lock()


@dataclass(frozen=True, kw_only=True, eq=False)
class SiteContext:
    """One site and one run. `images` opens the images when the policy has let the run pass.

    `store` is where a real site keeps its ledger, and `public` its copy of public images; a simulated one takes those
    that the user named. `home` is the site's own folder over all runs, for a real site.
    """

    name: str
    folder: Path
    policy: Policy
    images: Callable[[], ImageSet]
    store: Path | None = None
    public: Path | None = None
    simulated: bool = False
    home: Path | None = None

    @property
    def own_folder(self) -> Path:
        """What outlasts a run: of a simulated site nothing does."""
        return self.folder if self.home is None else self.home


def open_site_context(node_config: Mapping[str, Any], run: Path, experiment: str) -> SiteContext:
    """The site that this node is. `run` is the run directory of a simulation, `experiment` the run's own name."""
    if named := node_config.get(SITE_FILE):
        file = load_site_file(Path(str(named)))
        return SiteContext(
            name=file.name,
            folder=file.folder / run_folder(experiment),
            policy=load_policy(file.policy),
            images=lambda: ImageSet.load(file.images, every_voxel=False),
            store=file.store,
            public=file.public,
            home=file.folder,
        )
    if PARTITION not in node_config:
        raise NeutralError(ErrorCode.SETTINGS)
    return _simulated(Run(folder=run), int(node_config[PARTITION]))


def run_folder(experiment: str) -> str:
    """The folder of a run within a real site's own. A server chooses the name: it may be of any length and letters,
    and must not lead into another folder that lies there, such as that of Flower's node."""
    name = f"run-{folder_of(experiment)}"
    if len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST // 2]}-{sha256(experiment.encode()).hexdigest()}"


def spare_site_context(node_config: Mapping[str, Any], run: Path | None) -> tuple[str, Path | None]:
    """A name, and a folder for its log, for a site whose place cannot be opened: beside the site file of a real one."""
    if named := node_config.get(SITE_FILE):
        return "", Path(str(named)).parent
    try:
        assert run is not None
        name = _sites_file(run).site[int(node_config[PARTITION])].name
    except Exception:
        return "", None
    return name, Run(folder=run).site(name)


def _simulated(run: Run, number: int) -> SiteContext:
    name = _sites_file(run.folder).site[number].name
    policy = run.site(name) / POLICY
    return SiteContext(
        name=name,
        folder=run.site(name),
        policy=load_policy(policy if policy.exists() else None),
        images=lambda: simulated_federation(run.folder).sites[number].images,
        simulated=True,
    )


def simulated_federation(run: Path) -> Federation:
    """The hospitals of a simulated run, opened once in a process."""
    with _OPENING:
        return _opened(run, (run / SITES).stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _opened(run: Path, changed: int) -> Federation:
    return open_federation(_sites_file(run), run, every_voxel=False)


def _sites_file(run: Path) -> SitesFile:
    return _read_sites(run / SITES, (run / SITES).stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _read_sites(path: Path, changed: int) -> SitesFile:
    return load_sites(path)
