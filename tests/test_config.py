"""TOML in, frozen dataclasses out, and every mistake named with file, key, value and nearest spelling."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsynth.config import as_table, load_toml, parse_toml, read_table, save_toml, to_toml
from fedsynth.errors import ConfigError, RefusedError


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.1
    steps: int = 5

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ConfigError("the rate must not be negative", value=self.rate)


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    count: int = 1
    rate: float = 1.0
    dry_run: bool = False
    mode: Literal["fast", "safe"] = "safe"
    version: Literal[1, 2] = 1
    folder: Path | None = None
    inner: Inner = field(default_factory=Inner)
    spare: Inner | None = None
    many: tuple[Inner, ...] = ()
    pair: tuple[int, float] = (1, 2.0)
    words: tuple[str, ...] | None = None
    number_or_word: int | str = 0
    one_or_many: str | tuple[str, ...] = ""
    table: dict[str, int] = field(default_factory=dict)
    tables: dict[str, Inner] = field(default_factory=dict)
    free: dict[str, Any] = field(default_factory=dict)
    class_: str = ""


def read(**table: Any) -> Outer:
    return read_table(Outer, {"name": "n"} | table, file=Path("f.toml"))


def test_every_kind_of_value(tmp_path: Path) -> None:
    file = tmp_path / "all.toml"
    file.write_text(
        """
        name = "federation"
        count = 3
        rate = 2
        dry-run = true
        mode = "fast"
        version = 2
        folder = "data/lgg"
        pair = [4, 5]
        words = ["a", "b"]
        number-or-word = "many"
        one-or-many = ["x"]
        class = "low"
        inner = {rate = 0.5}
        [spare]
        steps = 9
        [[many]]
        rate = 1
        [[many]]
        steps = 2
        [table]
        anything-at_all = 1
        [tables.one]
        rate = 7.0
        [free]
        nested = {list = [1, "two"]}
        """
    )
    assert load_toml(Outer, file) == Outer(
        name="federation",
        count=3,
        rate=2.0,
        dry_run=True,
        mode="fast",
        version=2,
        folder=Path("data/lgg"),
        pair=(4, 5.0),
        words=("a", "b"),
        number_or_word="many",
        one_or_many=("x",),
        class_="low",
        inner=Inner(rate=0.5),
        spare=Inner(steps=9),
        many=(Inner(rate=1.0), Inner(steps=2)),
        table={"anything-at_all": 1},
        tables={"one": Inner(rate=7.0)},
        free={"nested": {"list": [1, "two"]}},
    )


def test_whole_numbers_become_floats_where_floats_are_due() -> None:
    assert isinstance(read(rate=2).rate, float)
    assert isinstance(read(pair=[1, 2]).pair[1], float)
    assert read(rate=math.inf).rate == math.inf


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("count", 1.0, r"'count' must be a whole number \(found 1\.0\)"),
        ("count", True, r"'count' must be a whole number \(found True\)"),
        ("count", "1", r"'count' must be a whole number \(found '1'\)"),
        ("rate", True, r"'rate' must be a number \(found True\)"),
        ("rate", math.nan, r"'rate' must be a number \(found nan\)"),
        ("rate", 10**400, r"'rate' must be a number \(found 1000+\.\.\.\)"),
        ("rate", "0.1", r"'rate' must be a number"),
        ("name", 3, r"'name' must be a text \(found 3\)"),
        ("dry-run", 1, r"'dry-run' must be true or false \(found 1\)"),
        ("dry-run", "true", r"'dry-run' must be true or false"),
        ("mode", "fsat", r"'mode' has an unknown value \(found 'fsat'\); did you mean 'fast'\?"),
        ("mode", ["fast"], r"'mode' has an unknown value"),
        ("mode", {"fast": 1}, r"'mode' has an unknown value"),
        ("version", 3, r"'version' has an unknown value \(found 3\); known: 1, 2"),
        ("version", True, r"'version' has an unknown value \(found True\)"),
        ("version", 1.0, r"'version' has an unknown value \(found 1\.0\)"),
        ("folder", 4, r"'folder' must be a path \(found 4\)"),
        ("folder", "", r"'folder' must be a path \(found ''\)"),
        ("inner", 4, r"'inner' must be a table \(found 4\)"),
        ("spare", [], r"'spare' must be a table \(found \[\]\)"),
        ("many", {}, r"'many' must be a list \(found \{\}\)"),
        ("many", [{}, 3], r"'many #2' must be a table \(found 3\)"),
        ("many", [{}, {"stps": 3}], r"unknown key 'many #2\.stps'; did you mean 'steps'\?"),
        ("many", [{}, {"steps": "x"}], r"'many #2\.steps' must be a whole number"),
        ("words", [1, "a"], r"'words #1' must be a text"),
        ("pair", [1], r"'pair' needs 2 values \(found \[1\]\)"),
        ("pair", [1, 2, 3], r"'pair' needs 2 values"),
        ("pair", [1.5, 2], r"'pair #1' must be a whole number \(found 1\.5\)"),
        ("pair", "12", r"'pair' must be a list \(found '12'\)"),
        ("words", ["a", 1], r"'words #2' must be a text \(found 1\)"),
        ("words", "ab", r"'words' must be a list \(found 'ab'\)"),
        ("number-or-word", 1.5, r"'number-or-word' must be a whole number or a text \(found 1\.5\)"),
        ("number-or-word", True, r"'number-or-word' must be a whole number or a text \(found True\)"),
        ("one-or-many", 1, r"'one-or-many' must be a text or a list \(found 1\)"),
        ("table", [1], r"'table' must be a table \(found \[1\]\)"),
        ("table", {"a": "b"}, r"'table\.a' must be a whole number \(found 'b'\)"),
        ("tables", {"a": {"rat": 1}}, r"unknown key 'tables\.a\.rat'; did you mean 'rate'\?"),
        ("inner", {"rate": "x"}, r"'inner\.rate' must be a number \(found 'x'\)"),
        ("inner", {"rate": -1}, r"\[inner\] the rate must not be negative \(found -1\.0\)"),
        ("spare", {"rate": -1}, r"\[spare\] the rate must not be negative"),
        ("many", [{}, {"rate": -1}], r"\[many #2\] the rate must not be negative"),
        ("class", 1, r"'class' must be a text"),
        ("class_", "x", r"unknown key 'class_'; did you mean 'class'\?"),
        ("dry_run", True, r"unknown key 'dry_run'; did you mean 'dry-run'\?"),
        ("nothing-like-it-anywhere", True, r"unknown key 'nothing-like-it-anywhere'; known: class, count, "),
    ],
)
def test_a_mistake_is_named(key: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match="^f.toml: " + message):
        read(**{key: value})


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^f\.toml: the key 'name' is missing$"):
        read_table(Outer, {}, file=Path("f.toml"))
    with pytest.raises(ConfigError, match=r"^the key 'a\.name' is missing$"):
        read_table(Outer, {}, prefix="a.")


@dataclass(frozen=True, kw_only=True)
class Nested:
    outer: Outer
    others: tuple[Outer, ...] = ()


def test_two_levels_down() -> None:
    with pytest.raises(ConfigError, match=r"^f: unknown key 'outer\.inner\.stpes'; did you mean 'steps'\?$"):
        read_table(Nested, {"outer": {"name": "", "inner": {"stpes": 1}}}, file=Path("f"))
    with pytest.raises(ConfigError, match=r"^f: \[outer\.inner\] the rate must not be negative \(found -2\.0\)$"):
        read_table(Nested, {"outer": {"name": "", "inner": {"rate": -2}}}, file=Path("f"))
    with pytest.raises(ConfigError, match=r"^f: the key 'others #1\.name' is missing$"):
        read_table(Nested, {"outer": {"name": ""}, "others": [{}]}, file=Path("f"))


@dataclass(frozen=True, kw_only=True)
class Guarded:
    def __post_init__(self) -> None:
        raise RefusedError("not here")


def test_only_config_errors_are_given_a_place() -> None:
    with pytest.raises(RefusedError, match=r"^not here$"):
        read_table(Guarded, {}, file=Path("f"))


@dataclass(frozen=True, kw_only=True)
class Derived:
    given: int = 1
    computed: int = field(init=False, default=7)


def test_computed_fields_are_no_keys() -> None:
    assert read_table(Derived, {"given": 2}).computed == 7
    with pytest.raises(ConfigError, match="unknown key 'computed'"):
        read_table(Derived, {"computed": 2})


texts = st.text(st.characters(codec="utf-8"), max_size=20)
numbers = st.floats(allow_nan=False)
inners = st.builds(Inner, rate=st.floats(0, 1e300), steps=st.integers(-(2**63), 2**63 - 1))
free = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | numbers | texts,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(texts, inside, max_size=3),
    max_leaves=8,
)
outers = st.builds(
    Outer,
    name=texts,
    count=st.integers(-(2**63), 2**63 - 1),
    rate=numbers,
    dry_run=st.booleans(),
    mode=st.sampled_from(["fast", "safe"]),
    version=st.sampled_from([1, 2]),
    folder=st.none() | st.just(Path("a/b c.toml")),
    inner=inners,
    spare=st.none() | inners,
    many=st.lists(inners, max_size=3).map(tuple),
    pair=st.tuples(st.integers(-9, 9), numbers),
    words=st.none() | st.lists(texts, max_size=3).map(tuple),
    number_or_word=st.integers(-9, 9) | texts,
    one_or_many=texts | st.lists(texts, max_size=3).map(tuple),
    table=st.dictionaries(texts, st.integers(-9, 9), max_size=3),
    tables=st.dictionaries(texts, inners, max_size=2),
    free=st.dictionaries(texts, free, max_size=3),
    class_=texts,
)


@given(value=outers)
@settings(max_examples=30, deadline=None)
def test_what_is_written_is_what_is_read(value: Outer, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("round") / "trip.toml"
    save_toml(file, value)
    assert load_toml(Outer, file) == value
    assert read_table(Outer, as_table(value)) == value


def test_none_is_left_out_only_where_it_is_the_default() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Trap:
        limit: int | None = 3

    assert as_table(Trap(limit=4)) == {"limit": 4}
    with pytest.raises(TypeError, match=r"Trap\.limit is None"):
        as_table(Trap(limit=None))


def test_a_plain_table_can_be_written() -> None:
    assert to_toml({"a": 1, "b": None, "c": {"d": (1, 2), "e": Path("x")}}) == (
        'a = 1\n\n[c]\nd = [\n    1,\n    2,\n]\ne = "x"\n'
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a = 1\nb = @\n", "is not valid TOML: .*line 2"),
        (b"a = 1\na = 2", "is not valid TOML"),
        (b"\xff\xfe\x00", "is not a text in UTF-8"),
        (b"\x00", "is not valid TOML"),
    ],
)
def test_what_is_no_toml(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"bad\.toml: " + message):
        parse_toml(file)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: there is no such file"):
        parse_toml(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=": cannot be read: is a directory"):
        parse_toml(tmp_path)


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfa = 1\n", b"a = 1\r\n", b"a = 1"])
def test_files_of_other_editors(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.toml"
    file.write_bytes(content)
    assert parse_toml(file) == {"a": 1}
