"""The server: its proxy, Flower behind it, the hospitals' keys, and the run, from one command to its end."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from fedsynth import atomic_files
from fedsynth.errors import FedSynthError
from fedsynth.federation.deploy.certificate_checks import check_certificate, check_pair
from fedsynth.federation.deploy.certificates import LOOPBACK
from fedsynth.federation.deploy.proxy import ProxySettings, check_free, running_proxy
from fedsynth.federation.deploy.run_supervisor import Carrier, draw, is_trained, load_settings
from fedsynth.federation.deploy.server_files import ServerFolder, load_server
from fedsynth.federation.deploy.superlink import Hospitals, running_superlink
from fedsynth.federation.flower_start import free_port
from fedsynth.federation.settings import FederationSettings

_RECONCILE = 2.0  # seconds between two looks at the folder of keys, while nothing is trained


def serve(folder: Path, report: Callable[[str], None], *, run: bool) -> bool:
    """Serve until stopped or, with `run`, until the run is complete; false where it was complete before."""
    place = load_server(folder)
    settings = load_settings(place) if run else None
    before = settings is not None and is_trained(place)
    if not before:
        _serve(place, settings, report)
    drawn = settings is not None and draw(place, settings)
    return drawn or not before


def _serve(place: ServerFolder, settings: FederationSettings | None, report: Callable[[str], None]) -> None:
    ends = check_server(place)
    own = place.file.proxy == "own"
    proxy = proxy_settings(place, place.file.inner_port if own else None)
    check_free(replace(proxy, address="127.0.0.1", port=proxy.inner_port) if own else proxy)
    with atomic_files.told_when_unwritable(place.state):
        place.state.mkdir(mode=0o700, exist_ok=True)
    with ExitStack() as stack:
        link = stack.enter_context(running_superlink(place, proxy.inner_port))
        hospitals = Hospitals(place=place, flower=link.flower, report=report)
        hospitals.reconcile()  # before the proxy opens: a node whose key is not known yet gives up
        if own:
            report(f"Flower listens on 127.0.0.1:{proxy.inner_port}, for your own proxy: see nginx.conf")
        else:
            stack.enter_context(running_proxy(proxy, report))
            report(f"open at {place.file.host}:{place.file.port}; the certificate ends on {ends}")
        if settings is not None:
            Carrier(place=place, link=link, hospitals=hospitals, report=report, settings=settings).carry_out()
            return
        while True:
            time.sleep(_RECONCILE)
            link.check_alive()
            try:
                hospitals.reconcile()
            except FedSynthError as error:
                report(f"Flower did not answer: {error}")


def check_server(place: ServerFolder) -> str:
    """Both certificates and keys are in order; the day on which the first of them ends."""
    certificate, key = place.outer
    ends = check_certificate(certificate, place.authority, host=place.file.host)
    check_pair(certificate, key)
    certificate, key = place.inner
    inner_ends = min(check_certificate(certificate, place.authority, host=name) for name in LOOPBACK)
    check_pair(certificate, key)
    return str(min(ends, inner_ends).date())


def proxy_settings(place: ServerFolder, inner_port: int | None = None) -> ProxySettings:
    """The proxy of this server."""
    certificate, key = place.outer
    return ProxySettings(
        address=place.file.address,
        port=place.file.port,
        certificate=certificate,
        key=key,
        inner_port=free_port() if inner_port is None else inner_port,
        inner_authority=place.authority,
        limits=place.file.limits,
    )
