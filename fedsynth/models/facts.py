"""What every family states about itself, read from its file without importing it, so that no network library loads.

Other packages add families by the entry point `fedsynth.generators`. A test builds each family and compares.
"""

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import Any

from fedsynth.errors import ConfigError, nearest
from fedsynth.plugins import GENERATORS, file_of, plugins

FAMILIES = Path(__file__).parent / "generators"
PUBLIC = "public"
"""The option of a family that names a public image set."""
_READING = Lock()
CONDITIONING = {
    "joint": "class",
    "maps": "class",
    "two-stage": "class",
    "paired": "class, source",
    "training-free": "label map",
    "fitted": "class",
}


PAIRED = "its sources are patients too; train a joint family privately instead"  # the settings refuse any pairing


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The texts of a family's `Entry`: `private` tells how it is trained privately, `not_private` why it is not."""

    name: str
    summary: str
    kind: str
    private: str = ""
    not_private: str = ""
    dimensions: str = "2, 3"

    def row(self) -> dict[str, Any]:
        """For tables and JSON."""
        return {
            "name": self.name,
            "kind": self.kind,
            "conditioning": CONDITIONING.get(self.kind, "class, source or none"),
            "dimensions": self.dimensions,
            "private": bool(self.private),
            "how": self.private or self.not_private or PAIRED,
            "summary": self.summary,
        }


def stated_facts() -> Mapping[str, Facts]:
    """Every family by name, in alphabetical order; read once.

    Sites ask for them in threads, and Python 3.11 cannot parse in two threads at a time (CPython issue 106905).
    """
    added = (file_of(point.module) for point in plugins(GENERATORS).values())
    with _READING:
        return _stated_in((*sorted(FAMILIES.glob("*.py")), *added))


@lru_cache(maxsize=4)
def _stated_in(files: tuple[Path, ...]) -> Mapping[str, Facts]:
    found = [facts for file in files for facts in _read(file)]
    return MappingProxyType({facts.name: facts for facts in sorted(found, key=lambda one: one.name)})


def is_fitted(name: str) -> bool:
    """Whether sums alone fit the family of that name; no for a name that is not known."""
    facts = stated_facts().get(name)
    return facts is not None and facts.kind == "fitted"


def known_family(name: str) -> Facts:
    """The facts of the family of that name, or an error with the nearest spelling."""
    known = stated_facts()
    if name not in known:
        raise ConfigError("unknown generator", value=name, remedy=nearest(name, known))
    return known[name]


def _read(file: Path) -> list[Facts]:
    calls = [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    entries = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Entry"]
    return [Facts(**_texts(call)) for call in entries]


def _texts(call: ast.Call) -> dict[str, str]:
    known = Facts.__dataclass_fields__
    return {one.arg: ast.literal_eval(one.value) for one in call.keywords if one.arg is not None and one.arg in known}
