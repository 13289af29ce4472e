"""Keywords from a settings class: a function that takes `**settings` shows them in `help` with their defaults."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from fedsynth.config import as_table, key_of
from fedsynth.errors import ConfigError

Function = TypeVar("Function", bound=Callable[..., Any])


def takes_keywords(kind: type, *, leave_out: tuple[str, ...] = ()) -> Callable[[Function], Function]:
    """Show every setting of `kind` as a keyword of the function, and its help text in the docstring."""

    def decorate(function: Function) -> Function:
        own = [one for one in inspect.signature(function).parameters.values() if one.kind is not one.VAR_KEYWORD]
        chosen = [one for one in fields(kind) if one.name not in (*leave_out, *(known.name for known in own))]
        keywords = [
            inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=_default(one), annotation=one.type)
            for one in chosen
        ]
        function.__signature__ = inspect.Signature([*own, *keywords])  # type: ignore[attr-defined]
        lines = [f"    {one.name}: {one.metadata['help']}" for one in chosen if one.metadata.get("help")]
        function.__doc__ = inspect.cleandoc(function.__doc__ or "") + "\n\nSettings:\n" + "\n".join(lines) + "\n"
        return function

    return decorate


def as_given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Python keywords as the table that `config.read_table` reads; what is None is left out."""
    given = {key_of(name): _plain(value) for name, value in settings.items() if value is not None}
    if isinstance(privacy := given.get("privacy"), dict):
        given["privacy"] = as_given(privacy)
        if "epsilon" not in privacy:
            raise ConfigError("a setting of private training was given without --epsilon", remedy="give --epsilon")
        if "patients" not in privacy:
            remedy = "give --patients N, a round public number near the truth at each hospital"
            raise ConfigError("--epsilon needs the declared number of patients of each hospital", remedy=remedy)
    return given


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return as_table(value)
    if isinstance(value, Path):
        return str(value.resolve())
    if isinstance(value, tuple):
        return list(value)
    return value


def _default(one: Field[Any]) -> Any:
    if one.default is not MISSING:
        return one.default
    return inspect.Parameter.empty if one.default_factory is MISSING else one.default_factory()
