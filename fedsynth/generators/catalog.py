"""Every family by name. A family is one file in `families/`: it registers itself, nothing else has to be edited."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from fedsynth.errors import ConfigError, nearest
from fedsynth.generators.family import Family, ImageShape
from fedsynth.generators.recipe import PRIVATE, PRIVATE_STARTED, Recipe

__all__ = ["PRIVATE", "PRIVATE_STARTED", "Entry", "Recipe", "build", "catalog", "find", "register"]

Kind = Literal["joint", "paired", "joint or paired", "training-free"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What a person reads before choosing a family.

    `build(shape, private, **options)` makes it; `private` asks for the variant without networks that mix samples. A
    private run that goes on from another takes `private_started_recipe`.
    `private` says by which path each network that reads patients gets its gradients, `not_private` why private training
    is refused; one of them is empty. `facts.py` reads the texts from the file: they are written as plain literals.
    `check_size` returns the reason why a size cannot be made, or an empty text.
    """

    name: str
    summary: str
    kind: Kind
    build: Callable[..., Family]
    recipe: Recipe = field(default_factory=Recipe)
    private_recipe: Recipe = PRIVATE
    private_started_recipe: Recipe = PRIVATE_STARTED
    private: str = ""
    not_private: str = ""
    check_size: Callable[[tuple[int, ...]], str] = lambda size: ""


_entries: dict[str, Entry] = {}


def register(entry: Entry) -> None:
    """Add a family; called by its file when that is imported."""
    if entry.name in _entries and _entries[entry.name].build is not entry.build:
        raise ValueError(f"two families are named {entry.name}")
    _entries[entry.name] = entry


def catalog() -> dict[str, Entry]:
    """All families by name, in alphabetical order."""
    from fedsynth.generators import families

    for module in pkgutil.iter_modules(families.__path__):
        importlib.import_module(f"{families.__name__}.{module.name}")
    return dict(sorted(_entries.items()))


def find(name: str) -> Entry:
    """The family of that name, or an error with the nearest spelling."""
    known = catalog()
    if name not in known:
        raise ConfigError("unknown generator", value=name, remedy=nearest(name, known))
    return known[name]


def build(name: str, shape: ImageShape, *, private: bool = False, **options: Any) -> Family:
    """A new family for images of `shape`, its networks freshly initialised from torch's global random state."""
    entry = find(name)
    if private and entry.not_private:
        raise ConfigError(f"{name} cannot be trained privately: {entry.not_private}")
    if entry.kind in ("paired", "training-free") and not shape.source_channels:
        raise ConfigError(f"{name} turns one image into another and needs pairs", remedy="give --pairing")
    if entry.kind == "joint" and shape.source_channels:
        raise ConfigError(f"{name} makes images from noise alone and takes no pairs", remedy="leave out --pairing")
    if problem := entry.check_size(shape.size):
        raise ConfigError(f"{name} cannot make images of this size: {problem}", value=shape.size)
    known = [name for name in inspect.signature(entry.build).parameters if name not in ("shape", "private")]
    for option in options:
        if option not in known:
            raise ConfigError(f"{name} has no such option", value=option, remedy=nearest(option, known))
    return entry.build(shape, private=private, **options)
