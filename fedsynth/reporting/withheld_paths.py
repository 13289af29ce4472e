"""Settings as they may leave the machine: every key, and no text that may be a path of it."""

from collections.abc import Mapping
from typing import Any

PLACES = ("images", "store", "start", "sites", "workspace", "run", "data", "public", "source", "reference", "placebo")
"""Keys whose text may be a path, as may any text with a slash or a backslash."""
PUBLIC_WORDS = ("phantoms",)
"""Texts of such keys that are no paths."""
WITHHELD = "withheld"


def without_paths(table: Mapping[str, Any]) -> dict[str, Any]:
    """The table with `withheld` in the place of what may be a path, in tables and lists within it too."""
    return {key: _shown(key, value) for key, value in table.items()}


def _shown(key: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return without_paths(value)
    if isinstance(value, list | tuple):
        return [_shown(key, one) for one in value]
    is_place = isinstance(value, str) and value and (key in PLACES or "/" in value or "\\" in value)
    return WITHHELD if is_place and value not in PUBLIC_WORDS else value
