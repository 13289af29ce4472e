"""A hospital's node: checked first, so that what is wrong is one line, then Flower's program in this process' place.

It goes on for as long as it is let: a lost server is waited for, and what was learned lies on the site's storage.
"""

import os
from collections.abc import Callable
from pathlib import Path

from fedsynth import atomic_files
from fedsynth.errors import ConfigError, FedSynthError
from fedsynth.federation.deploy.flower_programs import Flower, program
from fedsynth.federation.deploy.preflight import Finding, check_site
from fedsynth.federation.deploy.site_status import hold_lock
from fedsynth.federation.flower_start import free_port
from fedsynth.federation.site_context import SITE_FILE, SiteFile, load_site_file


def join(folder: Path, report: Callable[[str], None]) -> None:
    """Become the node of the hospital whose folder this is. Returns only by an error."""
    path = (folder / "site.toml" if folder.is_dir() else folder).resolve()
    site = load_site_file(path)
    check_joining(site, check_site(path))
    with atomic_files.told_when_unwritable(site.folder):
        site.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    hold_lock(site.folder)
    command, environment = node_command(site, path)
    report(f"{site.name} joins {site.server}")
    os.chdir(site.folder)
    os.execve(command[0], command, environment)  # noqa: S606


def check_joining(site: SiteFile, findings: list[Finding]) -> None:
    """Refuse with the first thing that is wrong; a server that does not answer is one too."""
    if site.server is None or site.authority is None or site.key is None:
        missing = next(key for key in ("server", "authority", "key") if getattr(site, key) is None)
        raise ConfigError(f"the site's file names no {missing}", remedy="take it from `fedsynth deploy init`")
    for finding in findings:
        if finding.state == "problem":
            raise FedSynthError(f"{finding.what}: {finding.text}", remedy="see all with: fedsynth site check")
        if finding.what == "server" and finding.state == "note":
            remedy = "is it running, and does the firewall let this machine out to it?"
            raise FedSynthError(f"the server {site.server} is {finding.text}", remedy=remedy)


def node_command(site: SiteFile, path: Path) -> tuple[list[str], dict[str, str]]:
    """Flower's program for the node, and its environment. What the node tells the app is where the site's file is."""
    host, port = site.address
    where = str(path)
    if '"' in where or "\\" in where:
        raise ConfigError("Flower cannot pass on a path with quotes", value=where, remedy="move the folder")
    command = [program("flower-supernode"), "--superlink", f"[{host}]:{port}" if ":" in host else f"{host}:{port}"]
    command += ["--root-certificates", str(site.authority), "--auth-supernode-private-key", str(site.key)]
    command += ["--port", str(free_port()), "--node-config", f'{SITE_FILE}="{where}"']
    return command, Flower(home=site.folder / "flower").environment()
