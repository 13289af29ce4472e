"""Command-line options from a settings class: each default and its help text stand once, in the class.

An option is spelled as the key in TOML (`local_steps` is `--local-steps`), the settings of a nested class stand among
the others, and a table takes `NAME=VALUE` as often as needed. What the user typed comes back as one table.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import click
import typer
from click.core import ParameterSource

from fedsynth.config import key_of
from fedsynth.errors import ConfigError
from fedsynth.training.settings import PRIVACY

Given = dict[str, Any]
"""What was typed, as a table that `config.read_table` reads. Defaults are not in it."""


PUBLIC = typer.Option(
    None,
    metavar="SET",
    help="A release: what patients are compared with, phantoms or a public image set; the generator follows.",
    rich_help_panel=PRIVACY,
)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One field of a settings class: where it stands in the table, its type without None, and what is said of it."""

    path: tuple[str, ...]
    kind: Any
    field: Field[Any]

    @property
    def name(self) -> str:
        """As a Python parameter."""
        return str(self.field.metadata.get("flag", self.field.name)).replace("-", "_") + "_setting"

    @property
    def option(self) -> str:
        """As typed: `--local-steps`."""
        return "--" + str(self.field.metadata.get("flag", key_of(self.field.name)))

    @property
    def default(self) -> Any:
        """Of the class; None where there is none."""
        if self.field.default is not MISSING:
            return self.field.default
        return None if self.field.default_factory is MISSING else self.field.default_factory()

    @property
    def required(self) -> bool:
        """Without a default, and not in a table that may be left out."""
        return len(self.path) == 1 and self.field.default is MISSING and self.field.default_factory is MISSING

    @property
    def choices(self) -> tuple[str, ...]:
        """Of a `Literal`."""
        return tuple(map(str, get_args(self.kind))) if get_origin(self.kind) is Literal else ()

    @property
    def repeated(self) -> str:
        """What an option takes that may be given several times; empty for others."""
        return "NAME=VALUE" if get_origin(self.kind) is dict else str(self.field.metadata.get("repeated", ""))

    @property
    def help(self) -> str:
        """The text of the class, and the choices where there are some."""
        text = str(self.field.metadata.get("help", ""))
        return f"{text.removesuffix('.')}: {', '.join(self.choices)}." if self.choices else text


def settings_of(kind: type, path: tuple[str, ...] = ()) -> Iterator[Setting]:
    """Every setting of a class and of the classes in it, in order."""
    hints = get_type_hints(kind)
    for one in fields(kind):
        if not one.init:
            continue
        plain = _without_none(hints[one.name])
        here = (*path, key_of(one.name))
        if is_dataclass(plain):
            yield from settings_of(plain, here)  # type: ignore[arg-type]
        else:
            yield Setting(path=here, kind=plain, field=one)


def takes_settings(
    kind: type, *, leave_out: tuple[str, ...] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option for each setting of `kind`; it is called with `given`, the table of what was typed."""
    chosen = [one for one in settings_of(kind) if one.path[0] not in leave_out]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [one for one in inspect.signature(command).parameters.values() if one.name != "given"]
        at = next((i for i, one in enumerate(own) if not _is_argument(one)), len(own))
        options = [_parameter(one) for one in chosen]

        @wraps(command)
        def run(**values: Any) -> None:
            typed = {one: values.pop(one.name) for one in chosen}
            command(given=_table(typed), **values)

        shown = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*own[:at], *options, *own[at:])]
        run.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in shown}
        return run

    return decorate


def _is_argument(parameter: inspect.Parameter) -> bool:
    told = (parameter.default, *getattr(parameter.annotation, "__metadata__", ()))
    return any(isinstance(one, typer.models.ArgumentInfo) for one in told)


def _parameter(one: Setting) -> inspect.Parameter:
    listed = bool(one.repeated)
    default = [] if listed else one.default
    flag = one.kind is bool
    typed: Any = list[str] if listed else bool if flag else one.kind if one.kind in (int, float, Path) else str
    if one.required:
        default = inspect.Parameter.empty
    elif not (listed or flag):
        typed = typed | None
    if isinstance(default, tuple):
        default = ",".join(default)
    told = one.field.metadata
    names = [one.option, *(f"--{name}" for name in [told.get("also")] if name), *filter(None, [told.get("short")])]
    info = typer.Option(
        *names,
        help=one.help,
        metavar=one.repeated or one.field.metadata.get("metavar"),
        rich_help_panel=one.field.metadata.get("panel"),
        show_default=not one.required and default not in (None, "", False, []),
    )
    return inspect.Parameter(
        one.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[typed, info]
    )


def _table(typed: Mapping[Setting, Any]) -> Given:
    context = click.get_current_context()
    table: Given = {}
    for one, value in typed.items():
        if context.get_parameter_source(one.name) in (ParameterSource.DEFAULT, None):
            continue
        into = table
        for part in one.path[:-1]:
            into = into.setdefault(part, {})
        into[one.path[-1]] = _value(one, value)
    return table


def _value(one: Setting, value: Any) -> Any:
    if get_origin(one.kind) is dict:
        return dict(parse_option(text, one.option) for text in value)
    if get_origin(one.kind) is tuple:
        if one.repeated:
            return list(value)
        return [part.strip() for part in value.split(",") if part.strip()]
    if get_origin(one.kind) is Literal:
        return next((choice for choice in get_args(one.kind) if str(choice) == value), value)
    if isinstance(value, Path):
        return str(value) if str(value) == one.field.metadata.get("word") else str(value.resolve())
    return value


def parse_option(text: str, option: str = "--option") -> tuple[str, object]:
    """`width=32`, `wide=true` or `hidden=64,64`."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigError(f"{option} needs NAME=VALUE", value=text)
    parts = [_parse_value(part) for part in value.split(",")]
    return name, parts if len(parts) > 1 else parts[0]


def _parse_value(text: str) -> int | float | bool | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text, text)


def _without_none(hint: Any) -> Any:
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    return kinds[0] if NoneType in get_args(hint) and len(kinds) == 1 else hint
