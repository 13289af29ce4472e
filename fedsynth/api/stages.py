"""The two stages of a generator as options: what draws label maps, and what renders images of them."""

from collections.abc import Mapping
from typing import Any

from fedsynth.errors import ConfigError
from fedsynth.models.facts import known_family

TWO_STAGE, LABEL_TO_IMAGE = "two-stage", "label-to-image"


def with_stages(given: Mapping[str, Any], maps: str | None, renderer: str | None) -> dict[str, Any]:
    """The table of settings with `maps` and `renderer` as options of two stages.

    A renderer that is named as the generator of label-to-image is the second of two: maps are drawn in the same run.
    """
    table, named = dict(given), given.get("generator")
    if named is not None and given.get("pairing") == LABEL_TO_IMAGE and known_family(named).kind != "training-free":
        renderer, named = table.pop("generator"), None
        del table["pairing"]
    stages = {name: value for name, value in (("maps", maps), ("renderer", renderer)) if value is not None}
    if not stages:
        return table
    if named not in (None, TWO_STAGE):
        problem = "--maps and --renderer are the stages of two-stage, and another family was named"
        raise ConfigError(problem, value=named, remedy="leave --generator away")
    return {**table, "generator": TWO_STAGE, "options": {**table.get("options", {}), **stages}}
