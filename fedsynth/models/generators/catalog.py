"""Every family by name. A family is one file in `generators/`: it registers itself, nothing else has to be edited.

An installed package adds families too, if its entry point `fedsynth.generators` names a module that registers them.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fedsynth.errors import ConfigError, nearest
from fedsynth.models.base import Family, ImageShape
from fedsynth.models.recipe import PRIVATE, PRIVATE_STARTED, Precision, Recipe
from fedsynth.plugins import GENERATORS, plugins

__all__ = ["PRIVATE", "PRIVATE_STARTED", "Entry", "Precision", "Recipe", "build", "catalog", "find", "register"]

Kind = Literal["joint", "paired", "joint or paired", "training-free", "maps", "two-stage", "fitted"]
"""`fitted`: it has nothing to train, one exchange of sums fits it."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What a person reads before choosing a family.

    `build(shape, private, **options)` makes it; `private` asks for the variant without networks that mix samples. A
    private run that goes on from another takes `private_started_recipe`.
    `derived` makes the plain recipe of a family of families from its options.
    `private` says by which path each network that reads patients gets its gradients, `not_private` why private training
    is refused; one of them is empty. `dimensions` says of which images there can be. `facts.py` reads the texts from
    the file: they are written as plain literals.
    `check_size` returns the reason why a size cannot be made, or an empty text.
    """

    name: str
    summary: str
    kind: Kind
    build: Callable[..., Family]
    recipe: Recipe = field(default_factory=Recipe)
    private_recipe: Recipe = PRIVATE
    private_started_recipe: Recipe = PRIVATE_STARTED
    derived: Callable[..., Recipe] | None = None
    private: str = ""
    not_private: str = ""
    dimensions: str = "2, 3"
    check_size: Callable[[tuple[int, ...]], str] = lambda size: ""


_entries: dict[str, Entry] = {}


def register(entry: Entry) -> None:
    """Add a family; called by its file when that is imported."""
    if entry.name in _entries and _entries[entry.name].build is not entry.build:
        raise ValueError(f"two families are named {entry.name}")
    _entries[entry.name] = entry


def catalog() -> dict[str, Entry]:
    """All families by name, in alphabetical order."""
    from fedsynth.models import generators

    for module in pkgutil.iter_modules(generators.__path__):
        importlib.import_module(f"{generators.__name__}.{module.name}")
    for point in plugins(GENERATORS).values():
        point.load()
    return dict(sorted(_entries.items()))


def find(name: str) -> Entry:
    """The family of that name, or an error with the nearest spelling."""
    known = catalog()
    if name not in known:
        raise ConfigError("unknown generator", value=name, remedy=nearest(name, known))
    return known[name]


def recipe_for(name: str, options: Mapping[str, Any]) -> Recipe:
    """The plain recipe of the family of that name."""
    entry = find(name)
    return entry.recipe if entry.derived is None else entry.derived(**options)


def build(name: str, shape: ImageShape, *, private: bool = False, **options: Any) -> Family:
    """A new family for images of `shape`, its networks freshly initialised from torch's global random state."""
    entry = find(name)
    if private and entry.not_private:
        raise ConfigError(f"{name} cannot be trained privately: {entry.not_private}")
    if entry.kind in ("paired", "training-free") and not shape.source_channels:
        raise ConfigError(f"{name} turns one image into another and needs pairs", remedy="give --pairing")
    if entry.kind == "maps" and (shape.channels or shape.n_labels < 2):
        raise ConfigError(f"{name} draws label maps alone", remedy=f"give --generator two-stage --maps {name}")
    if entry.kind == "two-stage" and shape.n_labels < 2:
        problem = f"{name} draws label maps first, and this image set has no masks"
        raise ConfigError(problem, remedy="choose a joint family such as dcgan")
    if entry.kind in ("joint", "two-stage", "fitted") and shape.source_channels:
        raise ConfigError(f"{name} makes images from noise alone and takes no pairs", remedy="leave out --pairing")
    if problem := entry.check_size(shape.size):
        raise ConfigError(f"{name} cannot make images of this size: {problem}", value=shape.size)
    parameters = inspect.signature(entry.build).parameters
    known = [name for name in parameters if name not in ("shape", "private")]
    for option in options:
        if option not in known and "options" not in known:  # a family of families hands them on
            raise ConfigError(f"{name} has no such option", value=option, remedy=nearest(option, known))
    return entry.build(shape, private=private, **options)
