"""A step of a suite: what a person would type, kept as the verb, its arguments and its options. It runs nothing."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BENCHMARK = "benchmark "


@dataclass(frozen=True, kw_only=True)
class Step:
    """One call of the Python interface. `settings` are spelled as options of the command line."""

    verb: str
    arguments: tuple[Path, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What it is called on the screen: a benchmark by its own name."""
        return self.verb.removeprefix(BENCHMARK)

    @property
    def measures(self) -> bool:
        """It is a benchmark: nothing after it needs it."""
        return self.verb.startswith(BENCHMARK)

    @property
    def command(self) -> list[str]:
        """The words after `fedsynth`."""
        return [*self.verb.split(), *map(str, self.arguments), *options(self.settings)]

    @property
    def as_typed(self) -> str:
        """The command line that does the same."""
        return f"fedsynth {shlex.join(self.command)}"


def options(settings: Mapping[str, Any]) -> list[str]:
    """Settings as command line options; a table of several is one option for each entry."""
    given: list[str] = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            given += [
                part for name, one in value.items() for part in (f"--{key.removesuffix('s')}", f"{name}={_word(one)}")
            ]
        elif isinstance(value, bool):
            given += [f"--{key}"] if value else []
        elif isinstance(value, list):
            given += [f"--{key}", ",".join(map(str, value))]
        elif value is not None:
            given += [f"--{key}", str(value)]
    return given


def _word(value: Any) -> str:
    """As an option is read: `true` and `false` in small letters."""
    return str(value).lower() if isinstance(value, bool) else str(value)
