"""What a person wants to know of every family before choosing one, seen by building it and looking."""

from typing import Any

from fedsynth.errors import FedSynthError
from fedsynth.generators.catalog import Entry, catalog
from fedsynth.generators.family import Family, ImageShape
from fedsynth.privacy.plan import PrivateSettings
from fedsynth.protocol import global_randomness
from fedsynth.training.private import PrivateParts, private_turns

SIZE = 32
PAIRED_PRIVATE = "its sources are patients too; train a joint family privately instead"


def describe_families() -> list[dict[str, Any]]:
    """One row per family, in alphabetical order."""
    return [_describe(entry) for entry in catalog().values()]


def _describe(entry: Entry) -> dict[str, Any]:
    private, how = privacy_of(entry)
    return {
        "name": entry.name,
        "kind": entry.kind,
        "conditioning": _conditioning(entry),
        "dimensions": "2, 3",
        "private": private,
        "how": how,
        "summary": entry.summary,
    }


def _conditioning(entry: Entry) -> str:
    """What steers the output."""
    if entry.kind == "training-free":
        return "label map"
    known = {"joint": "class", "maps": "class", "two-stage": "class", "paired": "class, source"}
    return known.get(entry.kind, "class, source or none")


def privacy_of(entry: Entry) -> tuple[bool, str]:
    """Whether the family can be trained privately, and by which path or why not; tried on made-up samples."""
    if entry.kind == "training-free":
        return True, "reads no patient"
    if entry.not_private:
        return False, entry.not_private
    if entry.kind == "paired":
        return False, PAIRED_PRIVATE
    try:
        family = _small(entry)
        settings = PrivateSettings(epsilon=8.0, delta=1e-5, patients=1000, batch=250)
        parts = PrivateParts(family, settings, augmentation=None)
    except FedSynthError as error:
        return False, str(error)
    paths = {turn.net: parts.real[turn.net].path(family.stages()[-1]).name for turn in private_turns(family)}
    return True, ", ".join(f"{net}: {path}" for net, path in paths.items())


def _small(entry: Entry) -> Family:
    shape = ImageShape(channels=1, size=(SIZE, SIZE), n_classes=2, n_labels=2, channel_names=("t1",))
    with global_randomness(0):
        return entry.build(shape, private=True)
