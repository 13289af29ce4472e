"""A step of a suite is the call that its command line makes."""

from pathlib import Path

import pytest

from fedsynth import config
from fedsynth.api.signature import as_given
from fedsynth.api.suite_calls import CALLS, keywords
from fedsynth.cli.options import _table, settings_of
from fedsynth.cli.suite import _program
from fedsynth.data.phantoms.settings import PhantomSettings
from fedsynth.evaluation.settings import (
    ClassificationSettings,
    FidelitySettings,
    MembershipSettings,
    MemorizationSettings,
    SegmentationSettings,
)
from fedsynth.experiments.suite import data_steps, jobs_of
from fedsynth.experiments.suite_config import load_suite
from fedsynth.experiments.suite_steps import Step
from fedsynth.federation.settings import FederationSettings
from fedsynth.training.settings import GenerateSettings, TrainSettings

SUITES = Path(__file__).parents[2] / "benchmarks"
KINDS = {
    "phantom": PhantomSettings,
    "simulate": FederationSettings,
    "train": TrainSettings,
    "synthesize": GenerateSettings,
    "benchmark memorization": MemorizationSettings,
    "benchmark membership": MembershipSettings,
    "benchmark fidelity": FidelitySettings,
    "benchmark segmentation": SegmentationSettings,
    "benchmark classification": ClassificationSettings,
}
OWN = {
    "phantom": ("workers",),
    "simulate": ("sites", "data", "run", "partition"),
    "train": ("run",),
    "synthesize": ("out",),
    "benchmark membership": ("reference",),
}
"""What a command takes beside the settings of its class."""
MUST = {TrainSettings: {"images": "set"}}


def typed(step):
    """What the command line would hand on: the settings, and the rest by name."""
    context = command = None
    words = step.command
    for name in step.verb.split():
        group = command or _program()
        command, words = group.commands[name], words[1:]
    context = command.make_context(step.name, words)
    with context:
        chosen = settings_of(KINDS[step.verb])
        table = _table({one: context.params[one.name] for one in chosen if one.name in context.params})
    return table, context.params


def check(step):
    kind, own = KINDS[step.verb], OWN.get(step.verb, ())
    table, params = typed(step)
    given = keywords(step)
    rest = {name: given.pop(name, None) for name in own}
    must = MUST.get(kind, {})
    assert config.read_table(kind, must | as_given(given)) == config.read_table(kind, must | table)
    assert all(str(params[name]) == str(value) for name, value in rest.items())


@pytest.mark.parametrize("path", sorted(SUITES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_step_of_the_suites_that_are_shipped(path):
    suite = load_suite(path)
    steps = [*data_steps(suite, Path("out")).values()]
    steps += [step for job in jobs_of(suite, Path("out")) for step in job.work.values()]
    checked = [step for step in steps if step.verb != "split"]
    assert checked
    for step in checked:
        check(step)


@pytest.mark.parametrize(
    ("verb", "settings"),
    [
        ("simulate", {"strategy": "fedprox", "strategy-options": {"mu": 0.1}, "epsilon": 2, "patients": 9}),
        ("simulate", {"data": "d", "sites": 3, "partition": "iid", "options": {"latent": 8}, "secure-sum": False}),
        ("benchmark segmentation", {"arms": "real, synthetic", "seeds": 1}),
        ("benchmark memorization", {"spaces": ["pixels"], "full": True}),
        ("benchmark membership", {"spaces": "pixels", "reference": "other"}),
    ],
)
def test_ways_to_write_a_setting(verb, settings):
    check(Step(verb=verb, settings=settings))


def test_every_call_is_a_function_of_the_interface():
    import fedsynth

    known = {getattr(fedsynth, name) for name in fedsynth.__all__}
    assert len(CALLS) == 10
    from fedsynth.api.suite_calls import _function

    assert {_function(verb) for verb in CALLS} <= known
