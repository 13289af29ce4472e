"""Verbs on the page of the Python interface as `help` shows them: with every keyword of their settings class.

An extension of griffe, which reads the source only; keywords of a settings class are known when it is imported.
"""

import inspect
import re
from typing import Any

import griffe

import fedsynth

SECTIONS = {"\nExample:": "\nExamples:", "\nSettings:": "\nOther Parameters:"}
"""Titles of docstrings here, and as griffe has them."""
ALL_KEYWORDS = re.compile(r"^Args:\n    \*\*settings: .*\n\n", re.MULTILINE)
"""Of a function that takes settings alone: they are listed one by one below."""


class Signatures(griffe.Extension):
    """Takes signature and docstring of a function from the function."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Of what `fedsynth` shows to users, and of nothing else."""
        function = getattr(fedsynth, func.name) if func.name in fedsynth.__all__ else None
        if function is None or func.path != f"{function.__module__}.{func.name}" or func.docstring is None:
            return
        text = ALL_KEYWORDS.sub("", inspect.getdoc(function) or "")
        for title, known in SECTIONS.items():
            text = text.replace(title, known)
        func.docstring.value = text
        known_ones = {one.name: one.annotation for one in func.parameters}
        func.parameters = griffe.Parameters(
            *(_parameter(one, known_ones.get(one.name)) for one in inspect.signature(function).parameters.values())
        )


def _parameter(one: inspect.Parameter, annotation: Any) -> griffe.Parameter:
    """The annotation as in the source where it stands there."""
    kind = griffe.ParameterKind(one.kind.description)
    default = None if one.default is one.empty else repr(one.default)
    if annotation is None and one.annotation is not one.empty:
        annotation = inspect.formatannotation(one.annotation)
    return griffe.Parameter(one.name, annotation=annotation, kind=kind, default=default)
