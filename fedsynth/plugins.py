"""Modules that other installed packages add under an entry point, found without importing them."""

import importlib.util
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from fedsynth.errors import ConfigError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GENERATORS, IMPORTERS = "fedsynth.generators", "fedsynth.importers"


def plugins(group: str) -> "Mapping[str, EntryPoint]":
    """The entry points of a group by name; two packages that use one name are refused."""
    return _on_path(group, tuple(sys.path))


@lru_cache(maxsize=16)
def _on_path(group: str, path: tuple[str, ...]) -> "Mapping[str, EntryPoint]":
    """What is installed along this path; it is asked for at every look at the catalogue."""
    from importlib.metadata import entry_points  # its import would be a tenth of the time of --help

    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            problem = f"two installed packages add {point.name!r} to {group}: {other.value} and {point.value}"
            raise ConfigError(problem, remedy="uninstall one of them")
    return found


@lru_cache(maxsize=64)
def file_of(module: str) -> Path:
    """The file of a module, which is not imported; packages above it are."""
    try:
        spec = importlib.util.find_spec(module)
    except ImportError as error:
        spec, why = None, f": {error}"
    else:
        why = ""
    if spec is None or spec.origin is None:
        remedy = "install its package again, or uninstall it"
        raise ConfigError(f"an installed package names a module that cannot be found{why}", value=module, remedy=remedy)
    return Path(spec.origin)
