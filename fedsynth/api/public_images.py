"""`--public`: which public images a fitted family compares patients with, as a generator and its option."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedsynth.errors import ConfigError
from fedsynth.models.facts import PUBLIC

PHANTOMS = "phantoms"
FAMILIES = {PHANTOMS: "fitted-simulator", "": "fitted-pool"}
"""By the word for the public images; any other word is the folder of an image set."""


def with_public(given: Mapping[str, Any], public: Path | str | None) -> dict[str, Any]:
    """The table of settings with the family that takes these public images, and a whole path to them."""
    table, options = dict(given), dict(given.get("options", {}))
    generator = table.get("generator")
    if public is None and generator == FAMILIES[""] and isinstance(options.get(PUBLIC), str):
        public = options[PUBLIC]
    if public is None:
        return table
    family = FAMILIES.get(str(public), FAMILIES[""])
    if generator not in (None, family):
        problem = f"--public {public} is for {family}, and another family was named"
        raise ConfigError(problem, value=generator, remedy="leave --generator away")
    table["generator"] = family
    if family == FAMILIES[""]:
        table["options"] = {**options, PUBLIC: str(Path(public).resolve())}
    return table
