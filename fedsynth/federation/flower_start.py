"""What every start of Flower's own programs needs, for Ray and between hospitals: an app, silence, and a port.

The app is a thin bundle, a pyproject that names the installed fedsynth: source inside a bundle would stand before the
site's own installation, its policy with it. What is learned lies in the run directory, not in Flower.
"""

import socket
from collections.abc import Mapping
from pathlib import Path

from fedsynth import __version__
from fedsynth.config import save_toml

APPS = {"serverapp": "fedsynth.federation.server_app:app", "clientapp": "fedsynth.federation.client_app:app"}
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",  # else every run asks the package index, and fails offline
    "RAY_USAGE_STATS_ENABLED": "0",
}
Scalar = bool | int | float | str


def write_app(folder: Path, run_config: Mapping[str, Scalar]) -> Path:
    """The bundle's folder: one pyproject with the components' names and the run config."""
    app = {"publisher": "fedsynth", "components": APPS, "config": dict(run_config)}
    project = {"name": "fedsynth", "version": __version__, "dependencies": ["flwr"]}
    save_toml(folder / "pyproject.toml", {"project": project, "tool": {"flwr": {"app": app}}})
    return folder


def free_port() -> int:
    """A port of loopback that nothing uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def last_line(text: str) -> str:
    """The last that a program said."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")
