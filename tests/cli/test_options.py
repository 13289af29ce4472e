"""Options, TOML keys, Python keywords and the reference page come from one settings class, and agree."""

import doctest
import inspect
import pydoc
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click
import pytest
import typer
from typer.testing import CliRunner

import fedsynth
import fedsynth.api.arrays
import fedsynth.api.data
import fedsynth.api.planning
from fedsynth import config
from fedsynth.cli import app
from fedsynth.cli.options import Given, Setting, settings_of, takes_settings
from fedsynth.config import setting
from fedsynth.data.phantoms.settings import PhantomSettings
from fedsynth.evaluation.settings import (
    ClassificationSettings,
    FidelitySettings,
    MembershipSettings,
    MemorizationSettings,
    SegmentationSettings,
)
from fedsynth.federation.settings import FederationSettings
from fedsynth.training.settings import GenerateSettings, PlanSettings, TrainSettings

PAGE = (Path(__file__).parents[2] / "docs/cli.md").read_text(encoding="utf-8")
VERBS: dict[str, tuple[str, type, tuple[str, ...]]] = {
    "train": ("train", TrainSettings, ("images",)),
    "simulate": ("simulate", FederationSettings, ("sites",)),
    "phantom": ("phantoms", PhantomSettings, ("shares",)),
    "synthesize": ("generate", GenerateSettings, ()),
    "plan": ("plan", PlanSettings, ()),
    "benchmark memorization": ("memorization", MemorizationSettings, ()),
    "benchmark membership": ("membership", MembershipSettings, ()),
    "benchmark segmentation": ("segmentation", SegmentationSettings, ()),
    "benchmark classification": ("classification", ClassificationSettings, ()),
    "benchmark fidelity": ("fidelity", FidelitySettings, ()),
}
"""Each command with its function, its settings class, and what is an argument there and no option."""
EVERY = [
    (verb, one)
    for verb, (_, kind, left_out) in VERBS.items()
    for one in settings_of(kind)
    if one.path[0] not in left_out
]


@pytest.mark.parametrize(("verb", "one"), EVERY, ids=[f"{verb}-{one.field.name}" for verb, one in EVERY])
def test_every_setting_is_an_option_a_key_a_keyword_and_a_line_of_the_page(verb: str, one: Setting) -> None:
    command: click.Command = typer.main.get_command(app)
    for word in verb.split():
        assert isinstance(command, click.Group)
        command = command.commands[word]
    option = next(p for p in command.params if one.option in p.opts)
    assert isinstance(option, click.Option)
    assert option.help == one.help != ""
    shown = ",".join(one.default) if isinstance(one.default, tuple) else one.default
    assert option.default in (shown, None) or not one.default
    section = PAGE.split(f"## fedsynth {verb}\n")[1].split("\n## ")[0]
    assert f"{one.option}`" in section
    assert one.help.replace("|", "\\|") in section
    function = getattr(fedsynth, VERBS[verb][0])
    keyword = inspect.signature(function).parameters
    if len(one.path) == 1:
        assert keyword[one.field.name].default in (one.default, inspect.Parameter.empty)
        assert f"{one.field.name}: {one.field.metadata['help']}" in function.__doc__
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
    sides: tuple[str, ...] = setting(("left", "right"), "Which sides.")
    edit: tuple[str, ...] = setting((), "Edits, in order.", repeated="EDIT")
    dimensions: Literal[2, 3] = setting(2, "How many")
    start: Path | None = setting(None, "Where it begins.", also="from", word="phantoms")
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
    words += ["--sides", "left,top", "--edit", "shift=1,0", "--edit", "grow=2", "--dimensions", "3"]
    given = {"name": "a", "rate": 0.5, "wide": True, "options": {"x": [1, 2], "y": "b"}}
    given |= {"sides": ["left", "top"], "edit": ["shift=1,0", "grow=2"], "dimensions": 3, "inner": {"depth": 4}}
    assert typed(*words, "--loud") == (0, f"here True {given}")
    assert config.read_table(Outer, given) == Outer(
        name="a",
        rate=0.5,
        wide=True,
        options={"x": [1, 2], "y": "b"},
        sides=("left", "top"),
        edit=("shift=1,0", "grow=2"),
        dimensions=3,
        inner=Inner(depth=4),
    )


def test_a_word_is_no_path_and_both_spellings_are_one_option() -> None:
    for option in ("--start", "--from"):
        for value, kept in (("phantoms", "phantoms"), ("run", str(Path("run").resolve()))):
            given = {"name": "a", "start": kept}
            assert typed("here", "-n", "a", option, value) == (0, f"here False {given}")


def test_a_setting_without_default_must_be_given() -> None:
    code, said = typed("here")
    assert code == 2
    assert "'--name' / '-n'" in said


def test_every_verb_shows_its_arguments_what_it_returns_and_an_example() -> None:
    verbs = [name for name in dir(fedsynth) if inspect.isfunction(getattr(fedsynth, name))]
    assert {function for function, _, _ in VERBS.values()} < set(verbs)
    shown = pydoc.render_doc(fedsynth, renderer=pydoc.plaintext)
    for name in verbs:
        assert f"\n    {name}(" in shown
        said = inspect.getdoc(getattr(fedsynth, name)) or ""
        assert all(part in said for part in ("Args:", "Returns:", "Example:", f"fedsynth.{name}(")), name


def test_examples_run() -> None:
    for module in (fedsynth.api.data, fedsynth.api.arrays, fedsynth.api.planning):
        done = doctest.testmod(module)
        assert (done.attempted > 0, done.failed) == (True, 0)


@pytest.mark.parametrize(
    "words", ["benchmark segmentation --steps 0", "phantom out --dimensions 4", "synthesize --count 0 --out x"]
)
def test_bad_settings_are_refused_before_torch_is_imported(words: str) -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom fedsynth.cli import app\n"
        f"print(CliRunner().invoke(app, {words.split()}).exit_code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False"]
