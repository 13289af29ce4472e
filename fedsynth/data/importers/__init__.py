"""The catalog of readers. A reader is one file with `plan(source, options) -> Plan` and one line here.

What a reader may and may not do stands in `fedsynth.data.importers.source`. Pictures are opened with
`readers.pictures`, volumes with `readers.decoding`.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Literal, TypeAlias

from fedsynth.data.importers.source import Plan
from fedsynth.errors import ConfigError, SourceError, nearest
from fedsynth.plugins import IMPORTERS, plugins


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """What a user may tell a reader. A reader takes what it understands and refuses what it cannot honour.

    `channels` are the wanted channels in their order (empty: the reader's own choice). `patient_pattern` is a regular
    expression whose first group (or whole match) in a file's relative path is the patient. `site` names the one site
    of a source that does not tell sites apart. `mask_labels` names the mask's values, background first, where the
    source does not; `unmasked_is_background` states that an image without a mask shows none of the labels.
    """

    dimensions: Literal[2, 3] = 2
    channels: tuple[str, ...] = ()
    site: str = ""
    mask_labels: tuple[str, ...] = ()
    patient_pattern: str = ""
    one_image_per_patient: bool = False
    unmasked_is_background: bool = False


ReaderFunction: TypeAlias = Callable[[Path, ReadOptions], Plan]

READERS: dict[str, str] = {
    "brats": "BraTS folders of 2015 and of 2018 to 2023 naming, with tumour masks",
    "folder": "one folder per class of PNG, JPEG or TIFF, with optional *_mask files",
    "lgg": "LGG brain MRI with tumour masks (kaggle_3m folders)",
    "medmnist": "MedMNIST .npz files",
    "volumes": "NIfTI, MHD, NRRD or DICOM volumes listed in a CSV manifest",
}
"""Name of the reader, which is the name of its file, to what it reads."""


def chosen_channels(known: tuple[str, ...], options: ReadOptions) -> tuple[str, ...]:
    """The channels to read, in the wanted order: those the user named, or all that the reader knows."""
    for channel in options.channels:
        if channel not in known:
            raise ConfigError("unknown channel", value=channel, remedy=nearest(channel, known))
    if len(set(options.channels)) != len(options.channels):
        raise ConfigError("a channel is named twice", value=",".join(options.channels))
    return options.channels or known


def require_folder(source: Path) -> None:
    """Most data sets are folders; a file in that place is refused."""
    if not source.is_dir():
        problem = "is not a folder" if source.exists() else "there is no such folder"
        raise SourceError(problem, file=source, remedy="name the folder of the data set")


def refuse_unused(options: ReadOptions, name: str, used: Collection[str]) -> None:
    """An option that the reader `name` does not use must not be given: ignoring it would surprise."""
    untouched = ReadOptions()
    for field in fields(options):
        if field.name not in used and getattr(options, field.name) != getattr(untouched, field.name):
            option, value = "--" + field.name.replace("_", "-"), getattr(options, field.name)
            raise ConfigError(f"the reader {name!r} does not take {option}", value=value)


def reader(name: str) -> ReaderFunction:
    """The `plan` function of the reader `name`, imported when it is asked for; installed packages may add readers."""
    added = {} if name in READERS else plugins(IMPORTERS)
    if name in added:
        module: ReaderFunction = added[name].load().plan
        return module
    if name not in READERS:
        raise ConfigError("unknown reader", value=name, remedy=nearest(name, [*READERS, *added]))
    function: ReaderFunction = import_module(f"fedsynth.data.importers.{name}").plan
    return function
