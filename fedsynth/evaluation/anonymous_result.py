"""A result that may leave the site: no name of a patient, no path, no group of a few patients or of all but a few.

It knows where a memorization result names patients.

Names become keyed hashes. The key is drawn for every export and kept nowhere, so that nobody can try names; within one
export a patient keeps one name.
"""

import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedsynth.evaluation.score import Result, Score

FEWEST = 6
"""Patients of a group whose scores may leave, and whom it leaves out of all if it does not hold everybody."""


def withhold(result: Result) -> Result:
    """The result without what names a patient or a place on a disk."""
    key = secrets.token_bytes(32)
    details = dict(result.details)
    if "extraction" in details:
        details["extraction"] = _without_names(details["extraction"], lambda name: _hashed(name, key))
    if "patients" in details:
        by_site = details["patients"]["by_site"]
        hashed = {site: [_hashed(name, key) for name in names] for site, names in by_site.items()}
        details["patients"] = {**details["patients"], "by_site": hashed}
    if "subgroups" in details:
        details["subgroups"] = {kind: _large(of, result.scores) for kind, of in details["subgroups"].items()}
    inputs = {name: replace(given, path="") for name, given in result.inputs.items()}
    settings = dict(result.settings)
    if "spaces" in settings:  # a space may be a file of weights
        settings["spaces"] = [Path(space).name for space in settings["spaces"]]
    per_site = _large(result.per_site, result.scores)
    return replace(result, details=details, inputs=inputs, settings=settings, per_site=per_site)


def _large(groups: Mapping[str, Mapping[str, Any]], whole: Mapping[str, Score]) -> dict[str, dict[str, Any]]:
    """Of every group the scores over enough patients, unless few others are all that is missing in the whole."""
    found = {}
    for group, scores in groups.items():
        kept = {name: score for name, score in scores.items() if not _small(score, whole.get(name))}
        if kept:
            found[group] = kept
    return found


def _small(score: Any, whole: Score | None) -> bool:
    n = score.n if isinstance(score, Score) else score.get("n")
    rest = 0 if whole is None or whole.n is None or n is None else whole.n - n
    return n is not None and (n < FEWEST or 0 < rest < FEWEST)


def _without_names(extraction: dict[str, Any], hashed: Callable[[str], str]) -> dict[str, Any]:
    copies = [
        {**copy, "patient": hashed(copy["patient"]), "case": _case(copy, hashed)} for copy in extraction["copies"]
    ]
    alike = [[hashed(name) for name in pair] for pair in extraction["alike_patients"]]
    return {**extraction, "copies": copies, "alike_patients": alike}


def _case(copy: dict[str, Any], hashed: Callable[[str], str]) -> str:
    """The name of a synthetic image, but not where it names the patient: some generators call it after its model."""
    return hashed(copy["case"]) if copy["patient"] in copy["case"] else str(copy["case"])


def _hashed(name: str, key: bytes) -> str:
    return hashlib.blake2b(name.encode(), key=key, digest_size=8).hexdigest()
