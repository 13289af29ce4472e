"""Regrouping the labels of masks: several labels become one, or none. It knows names and numbers, not anatomy.

The grammar is `name=label,label;name=label`: the labels right of `=` take the name left of it. Labels that no group
names keep their own name; `background=...` drops labels. In a shell the text needs quotes because of the semicolon.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedsynth.data.image_set import ImageSet
from fedsynth.data.lazy_arrays import Rows, Stack
from fedsynth.errors import ConfigError, ImageSetError, nearest

GRAMMAR = "write name=label,label;name=label"
UNNAMED = 255


def regroup(mask_labels: tuple[str, ...], groups: str) -> tuple[tuple[str, ...], NDArray[np.uint8]]:
    """The new label names, and the table (256 entries) from an old label's number to its new one.

    New labels stand in the order in which they first appear among the old ones, background first. Numbers without a
    name in `mask_labels` become 255, so that checking the values afterwards finds them.
    """
    if not mask_labels:
        raise ConfigError("there are no masks whose labels could be regrouped", value=groups)
    group_of = _read_groups(mask_labels, groups)
    renamed = [group_of.get(label, label) for label in mask_labels]
    _refuse_mixing(mask_labels, group_of)
    names = tuple(dict.fromkeys(renamed))
    if len(names) == 1:
        raise ConfigError("every label would become background", value=groups, remedy="keep at least one label")
    table = np.full(256, UNNAMED, np.uint8)
    table[: len(renamed)] = [names.index(name) for name in renamed]
    return names, table


def relabel(image_set: ImageSet, groups: str) -> ImageSet:
    """The set with its labels regrouped. Voxels stay on disk and are mapped when read."""
    if image_set.masks is None:
        raise ImageSetError("the set has no masks to relabel", file=image_set.folder)
    names, table = regroup(image_set.header.mask_labels, groups)
    before = image_set.header.provenance
    provenance = {**before, "relabelled": [*before.get("relabelled", []), groups]}
    header = replace(image_set.header, mask_labels=names, provenance=provenance)
    masks = Regrouped(image_set.masks, table)
    return ImageSet(header=header, cases=image_set.cases, images=image_set.images, masks=masks)


class Regrouped(Rows):
    """Masks whose labels go through `table` when they are read."""

    def __init__(self, masks: Stack, table: NDArray[np.uint8]) -> None:
        super().__init__([masks])
        self._table = table

    def __getitem__(self, which: object) -> NDArray[np.uint8]:
        if isinstance(which, tuple):
            return super().__getitem__(which)  # comes back here for the first axis, and must not be mapped twice
        mapped: NDArray[np.uint8] = self._table[super().__getitem__(which)]
        return mapped


def _read_groups(mask_labels: tuple[str, ...], groups: str) -> dict[str, str]:
    """Old label to new name, for the labels that a group names."""
    group_of: dict[str, str] = {}
    seen: set[str] = set()
    for text in filter(None, (part.strip() for part in groups.split(";"))):
        name, equals, listed = text.partition("=")
        name, members = name.strip(), [label.strip() for label in listed.split(",")]
        if not equals or not name or "" in members:
            raise ConfigError("a group of labels cannot be read", value=text, remedy=GRAMMAR)
        if name in seen:
            raise ConfigError(f"the group {name!r} stands twice", value=groups, remedy="list its labels in one group")
        seen.add(name)
        target = mask_labels[0] if name == "background" else name
        for label in members:
            _add(group_of, label, target, mask_labels)
    if not group_of:
        raise ConfigError("no group of labels is given", value=groups, remedy=GRAMMAR)
    return group_of


def _add(group_of: dict[str, str], label: str, name: str, mask_labels: tuple[str, ...]) -> None:
    if label not in mask_labels:
        raise ConfigError("unknown label", value=label, remedy=nearest(label, mask_labels))
    if label in group_of:
        raise ConfigError(f"the label is in two groups, {group_of[label]!r} and {name!r}", value=label)
    if label == mask_labels[0] and name != label:
        raise ConfigError("the background cannot join another group", value=name)
    group_of[label] = name


def _refuse_mixing(mask_labels: tuple[str, ...], group_of: dict[str, str]) -> None:
    """A group that takes the name of a label outside it would swallow that label unasked."""
    for name in group_of.values():
        if name in mask_labels[1:] and name not in group_of:
            remedy = f"list {name!r} in the group as well, or give the group another name"
            raise ConfigError("the group has the name of a label that is not in it", value=name, remedy=remedy)
