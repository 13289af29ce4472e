"""The steps of a suite as calls of the Python interface: what their command lines would call, with the same values."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from fedsynth.api.progress import Progress
from fedsynth.experiments.suite_steps import BENCHMARK, Step
from fedsynth.federation.settings import PRIVATE_KEYS

CALLS = {
    "phantom": "data.phantoms",
    "split": "data.split",
    "simulate": "simulation.simulate",
    "train": "training.train",
    "synthesize": "generation.generate",
    f"{BENCHMARK}memorization": "leakage.memorization",
    f"{BENCHMARK}membership": "leakage.membership",
    f"{BENCHMARK}fidelity": "utility.fidelity",
    f"{BENCHMARK}segmentation": "utility.segmentation",
    f"{BENCHMARK}classification": "utility.classification",
}
RESUMED = ("simulate", "train")
LISTS = ("arms", "spaces")
"""Settings that a suite may also write as on the command line: `real,synthetic`."""


def call(step: Step, *, progress: Progress, workers: int | None = None, resume: bool = False) -> None:
    """Do what the step's command line would do, in this process.

    `workers` is how many hospitals of a simulated federation work at a time, which changes no result.
    """
    given = keywords(step)
    if step.verb != "split":
        given["progress"] = progress
    if step.verb == "simulate":
        given["workers"] = workers
    if resume:
        given["resume"] = True
    _function(step.verb)(*step.arguments, **given)


def keywords(step: Step) -> dict[str, Any]:
    """The settings as the function takes them: of private training in a table of its own."""
    given: dict[str, Any] = {}
    for key, value in step.settings.items():
        private = key in PRIVATE_KEYS and step.verb in RESUMED
        into = given.setdefault("privacy", {}) if private else given
        listed = key in LISTS and isinstance(value, str)
        into[key.replace("-", "_")] = [part.strip() for part in value.split(",")] if listed else value
    return given


def _function(verb: str) -> Callable[..., Any]:
    module, _, name = CALLS[verb].partition(".")
    found: Callable[..., Any] = getattr(import_module(f"fedsynth.api.{module}"), name)
    return found
