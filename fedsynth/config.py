"""TOML files to frozen dataclasses and back. Every other module reads its settings through this one loader.

A key `mask-labels` in the file is the field `mask_labels` of the dataclass, `class` is `class_`. Unknown keys, wrong
types and bad values name the file, the key, the value and the nearest spelling; `site #2` is the second [[site]].
"""

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, Field, field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tomli_w

from fedsynth import atomic_files
from fedsynth.errors import ConfigError, nearest

T = TypeVar("T")


def setting(default: Any = MISSING, help: str = "", **shown: str) -> Any:  # noqa: A002
    """A field of a settings class with its default and help text; a dict or list as default is made anew each time.

    `shown` is for the command line: `flag` another spelling, `also` a second one, a `word` that is no path, `metavar`,
    and the `panel` of the help page.
    """
    told = {"help": help, **shown}
    if isinstance(default, dict | list):
        return field(default_factory=default.copy, metadata=told)
    return field(metadata=told) if default is MISSING else field(default=default, metadata=told)


def load_toml(kind: type[T], path: Path) -> T:
    """Read the TOML file at `path` as one `kind`, a dataclass whose fields say what may stand in it."""
    return read_table(kind, parse_toml(path), file=path)


def parse_toml(path: Path) -> dict[str, Any]:
    """The file's content as plain dictionaries, or an error that says why it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin a file with a byte order mark
    except FileNotFoundError as error:
        raise ConfigError("there is no such file", file=path) from error
    except OSError as error:
        raise ConfigError(f"cannot be read: {(error.strerror or str(error)).lower()}", file=path) from error
    except UnicodeDecodeError as error:
        raise ConfigError("is not a text in UTF-8", file=path) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"is not valid TOML: {error}", file=path) from error


def read_table(kind: type[T], table: Mapping[str, Any], *, file: Path | None = None, prefix: str = "") -> T:
    """Turn one table into the dataclass `kind`; `prefix` is the table's name in messages."""
    hints = get_type_hints(kind)
    known: dict[str, Field[Any]] = {key_of(entry.name): entry for entry in fields(kind) if entry.init}  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            raise ConfigError(f"unknown key {prefix + key!r}", file=file, remedy=nearest(key, known))
    values = {}
    for key, entry in known.items():
        if key in table:
            values[entry.name] = _read(hints[entry.name], table[key], file, prefix + key)
        elif entry.default is MISSING and entry.default_factory is MISSING:
            raise ConfigError(f"the key {prefix + key!r} is missing", file=file)
    try:
        return kind(**values)
    except ConfigError as error:
        where = f"[{prefix.removesuffix('.')}] " if prefix else ""
        raise ConfigError(f"{where}{error}", file=file) from error


def as_table(value: Any) -> dict[str, Any]:
    """The inverse of `read_table`: a dataclass as a table. TOML has no None: it is left out where it is the default."""
    table = {}
    for entry in fields(value):
        item = getattr(value, entry.name)
        if item is not None:
            table[key_of(entry.name)] = _plain(item)
        elif entry.default is not None:
            raise TypeError(f"{type(value).__name__}.{entry.name} is None and would be read back as something else")
    return table


def to_toml(value: Any) -> str:
    """A dataclass (or plain table) as TOML text."""
    return tomli_w.dumps(as_table(value) if is_dataclass(value) else _plain(value), multiline_strings=False)


def save_toml(path: Path, value: Any) -> None:
    """Write a dataclass or a table as TOML, whole or not at all."""
    atomic_files.write_text(path, to_toml(value))


def key_of(name: str) -> str:
    """The key of a field: `local_steps` is `local-steps`, `class_` is `class`."""
    return name.rstrip("_").replace("_", "-")


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return as_table(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _read(kind: Any, value: Any, file: Path | None, key: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, UnionType):
        return _read_union(arguments, value, file, key)
    if origin is Literal:
        if not any(value == choice and type(value) is type(choice) for choice in arguments):
            remedy = nearest(str(value), [str(choice) for choice in arguments])
            raise ConfigError(f"{key!r} has an unknown value", file=file, value=value, remedy=remedy)
        return value
    if origin is tuple:
        return _read_tuple(arguments, value, file, key)
    if origin is dict:
        _expect(isinstance(value, dict), "a table", value, file, key)
        return {name: _read(arguments[1], item, file, f"{key}.{name}") for name, item in value.items()}
    if is_dataclass(kind):
        _expect(isinstance(value, dict), "a table", value, file, key)
        return read_table(kind, value, file=file, prefix=f"{key}.")  # type: ignore[arg-type]
    if kind is Path:
        _expect(isinstance(value, str) and value != "", "a path", value, file, key)
        return Path(value)
    if kind is float:
        _expect(_is_number(value), "a number", value, file, key)
        return float(value)
    _expect(isinstance(value, kind) and (kind is bool or not isinstance(value, bool)), _noun(kind), value, file, key)
    return value


def _read_union(kinds: tuple[Any, ...], value: Any, file: Path | None, key: str) -> Any:
    """The first kind that fits; a table is read as the one dataclass there is, so that its own error is shown."""
    choices = [kind for kind in kinds if kind is not NoneType]
    tables = [kind for kind in choices if is_dataclass(kind)]
    if len(choices) == 1 or (isinstance(value, dict) and len(tables) == 1):
        return _read((tables or choices)[0], value, file, key)
    for kind in choices:
        try:
            return _read(kind, value, file, key)
        except ConfigError:
            continue
    raise ConfigError(f"{key!r} must be {' or '.join(map(_noun, choices))}", file=file, value=value)


def _read_tuple(kinds: tuple[Any, ...], value: Any, file: Path | None, key: str) -> tuple[Any, ...]:
    _expect(isinstance(value, list), "a list", value, file, key)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise ConfigError(f"{key!r} needs {len(kinds)} values", file=file, value=value)
    return tuple(
        _read(kind, item, file, f"{key} #{i}") for i, (kind, item) in enumerate(zip(kinds, value, strict=True), start=1)
    )


def _expect(right: bool, what: str, value: Any, file: Path | None, key: str) -> None:
    if not right:
        raise ConfigError(f"{key!r} must be {what}", file=file, value=value)


def _is_number(value: Any) -> bool:
    """Infinity is one (no limit), nan is not, nor is a whole number beyond what a float can hold."""
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < 2**1000
    return isinstance(value, float) and value == value


def _noun(kind: Any) -> str:
    """What a user calls a value of this kind."""
    plain = {str: "a text", bool: "true or false", int: "a whole number", float: "a number", Path: "a path"}
    if get_origin(kind) is Literal:
        return " or ".join(repr(choice) for choice in get_args(kind))
    if get_origin(kind) is tuple:
        return "a list"
    if get_origin(kind) is dict or is_dataclass(kind):
        return "a table"
    return plain.get(kind, getattr(kind, "__name__", str(kind)))
