"""Image sets: the plain format, where they come from, how patients are split and shared out to hospitals."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedsynth.data.format import Header
    from fedsynth.data.image_set import ImageSet, concatenate
    from fedsynth.data.roles import ROLES, Role, Shares, Split

__all__ = ["ROLES", "Header", "ImageSet", "Role", "Shares", "Split", "concatenate"]
_HOMES = {"Header": "format", "ImageSet": "image_set", "concatenate": "image_set"}


def __getattr__(name: str) -> Any:
    """Imported at its first use: settings classes under this package are read without numpy and pandas."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'roles')}"), name)
