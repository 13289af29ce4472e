"""The hospital's web proxies as the environment names them: in words without a password, and what cannot be used."""

from importlib.util import find_spec
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from fedsynth.federation.deploy.flower_programs import LOOPBACK

SCHEMES = ("https", "all", "http")  # in the order in which they count; the library reads every one of them


def web_proxy(host: str) -> str:
    """By which of them what goes to `host` is sent; nothing where it goes there directly."""
    found = getproxies()
    named = found.get("https") or found.get("all")
    address = _address(named) if named else ""
    if not address or host in LOOPBACK.split(",") or proxy_bypass(host):
        return ""
    return f", by way of the web proxy {address}"


def unusable_proxy() -> str:
    """Which variable names a proxy that nothing can be sent through, and why; nothing where all can be used."""
    found = getproxies()
    for scheme in SCHEMES:
        named, variable = found.get(scheme, ""), f"{scheme.upper()}_PROXY"
        if named.lower().startswith("socks") and find_spec("socksio") is None:
            return f"{variable} names a SOCKS proxy, which cannot be used"
        if named and not _address(named):
            return f"{variable} cannot be read"
    return ""


def _address(named: str) -> str:
    """Host and port. Nothing of a URL that cannot be read: any part of it may be one of its password."""
    url = named if "://" in named else f"http://{named}"
    try:
        httpx.Proxy(url)
        read, whole = urlsplit("//" + url.partition("://")[2].rpartition("@")[2]), urlsplit(url)
        if not read.hostname or read.netloc != whole.netloc.rpartition("@")[2] or read.port == 0:
            return ""
    except (ValueError, httpx.InvalidURL):
        return ""
    return read.netloc
