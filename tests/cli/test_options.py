"""Options, TOML keys, Python keywords and the reference page come from one settings class, and agree."""

import inspect
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import typer
from typer.testing import CliRunner

import fedsynth
from fedsynth import config
from fedsynth.cli import app
from fedsynth.cli.options import Given, Setting, settings_of, takes_settings
from fedsynth.config import setting
from fedsynth.federation.settings import FederationSettings
from fedsynth.training.settings import TrainSettings

PAGE = (Path(__file__).parents[2] / "docs/cli.md").read_text(encoding="utf-8")
VERBS = {"train": (TrainSettings, ("images",)), "simulate": (FederationSettings, ("sites",))}
EVERY = [
    (verb, one)
    for verb, (kind, left_out) in VERBS.items()
    for one in settings_of(kind)
    if one.field.name not in left_out
]


@pytest.mark.parametrize(("verb", "one"), EVERY, ids=[f"{verb}-{one.field.name}" for verb, one in EVERY])
def test_every_setting_is_an_option_a_key_a_keyword_and_a_line_of_the_page(verb: str, one: Setting) -> None:
    root = typer.main.get_command(app)
    assert isinstance(root, click.Group)
    option = next(p for p in root.commands[verb].params if one.option in p.opts)
    assert isinstance(option, click.Option)
    assert option.help == one.help != ""
    assert option.default in (one.default, None) or not one.default
    section = PAGE.split(f"## fedsynth {verb}\n")[1].split("\n## ")[0]
    assert f"{one.option}`" in section
    assert one.help.replace("|", "\\|") in section
    keyword = inspect.signature(getattr(fedsynth, verb)).parameters
    if len(one.path) == 1:
        assert keyword[one.field.name].default in (one.default, inspect.Parameter.empty)
        assert f"{one.field.name}: {one.field.metadata['help']}" in getattr(fedsynth, verb).__doc__
    else:
        assert one.path[0] in keyword


@dataclass(frozen=True, kw_only=True)
class Inner:
    depth: int = setting(3, "How deep.", panel="Inner")


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str = setting(help="What it is called.", short="-n")
    rate: float | None = setting(None, "How fast.")
    wide: bool = setting(False, "Whether it is wide.")
    options: dict[str, object] = setting({}, "More.", flag="option")
    inner: Inner | None = None


def typed(*words: str) -> tuple[int, str]:
    program = typer.Typer()

    @program.command()
    @takes_settings(Outer)
    def show(given: Given, place: str = typer.Argument(...), loud: bool = typer.Option(False, "--loud")) -> None:
        typer.echo(f"{place} {loud} {given}")

    result = CliRunner().invoke(program, list(words))
    return result.exit_code, result.output.strip()


def test_only_what_was_typed_is_given() -> None:
    assert typed("here", "-n", "a") == (0, "here False {'name': 'a'}")
    words = ["here", "--name", "a", "--rate", "0.5", "--wide", "--option", "x=1,2", "--option", "y=b", "--depth", "4"]
    given = {"name": "a", "rate": 0.5, "wide": True, "options": {"x": [1, 2], "y": "b"}, "inner": {"depth": 4}}
    assert typed(*words, "--loud") == (0, f"here True {given}")
    assert config.read_table(Outer, given) == Outer(
        name="a", rate=0.5, wide=True, options={"x": [1, 2], "y": "b"}, inner=Inner(depth=4)
    )


def test_a_setting_without_default_must_be_given() -> None:
    code, said = typed("here")
    assert code == 2
    assert "'--name' / '-n'" in said
