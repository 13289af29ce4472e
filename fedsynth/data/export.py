"""Image sets for other tools, with a dataset card: NIfTI in a BIDS-like layout, PNG in one folder per class, or those
with Hugging Face's metadata.

Volumes are written with RAS axes. A two-dimensional image becomes a NIfTI of one slice, turned so that viewers show
it as fedsynth does: first row to the front.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedsynth import atomic_files
from fedsynth.data import huggingface
from fedsynth.data.croissant import write_description
from fedsynth.data.format import CONSISTS_OF, Header
from fedsynth.data.image_set import ImageSet
from fedsynth.data.parallel import Progress, silent
from fedsynth.errors import ConfigError, nearest

Format = Literal["nifti", "png", "huggingface"]
TABLES: dict[str, str] = {"nifti": "participants.tsv", "png": "images.csv", "huggingface": huggingface.METADATA}


def export(
    images: ImageSet,
    out: Path,
    form: Format,
    *,
    licence: str = "",
    overwrite: bool = False,
    progress: Progress = silent,
) -> None:
    """Write every image of the set under `out`, whole or not at all."""
    if form not in get_args(Format):
        raise ConfigError("unknown export format", value=form, remedy=nearest(form, get_args(Format)))
    if form != "nifti" and images.header.dimensions == 3:
        raise ConfigError("volumes cannot be written as PNG", remedy="give --format nifti")
    write = WRITERS[form]
    with atomic_files.new_folder(out, marker=TABLES[form], overwrite=overwrite) as folder:
        for done, _ in enumerate(write(images, folder), 1):
            progress(done, len(images))
        top = ""
        if form == "huggingface":
            write_description(images, folder / huggingface.METADATA, licence)
            top = huggingface.front_matter(images, licence)
        (folder / "README.md").write_text(top + card(images), encoding="utf-8")


def card(images: ImageSet) -> str:
    """The dataset card: what this is, how it was made and what it must not be taken for."""
    header = images.header
    origin = "Synthetic images made by fedsynth" if header.origin == "synthetic" else "Images of real patients"
    facts = {
        "images": len(images),
        "size": " x ".join(map(str, images.size)),
        "channels": ", ".join(header.channels),
        "spacing (mm)": " x ".join(f"{value:g}" for value in header.spacing_mm),
        "classes": ", ".join(header.classes) or "none",
        "labels": ", ".join(f"{i} {name}" for i, name in enumerate(header.mask_labels)) or "none",
        "licence": "to be filled in by whoever publishes this set",
    }
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    made = "\n".join(f"- {name}: {_told(name, value)}" for name, value in header.provenance.items()) or "- not recorded"
    limits = _limits(header)
    top = f"# {header.name}\n\n{origin}.\n\n| | |\n|---|---|\n{rows}\n"
    return f"{top}\n## How it was made\n{made}\n\n## Limits\n{limits}\n"


def _limits(header: Header) -> str:
    if header.origin != "synthetic":
        return "These are images of patients. They must not leave the site without the permission that applies there."
    whose = header.provenance.get(CONSISTS_OF)
    shown = f"These are {whose}." if whose else "These images are not patients."
    return (
        f"{shown} Whether they depend on the patients that the generator was trained on is a question for"
        " `fedsynth benchmark memorization`; this card makes no claim about it.\n\nNot for diagnosis."
    )


def _write_nifti(images: ImageSet, folder: Path) -> Iterator[None]:
    import nibabel as nib

    header = images.header
    described = {
        "Name": header.name,
        "BIDSVersion": "1.9.0",
        "DatasetType": "raw",
        "GeneratedBy": [{"Name": "fedsynth"}],
    }
    _write_json(folder / "dataset_description.json", described)
    spacing = header.spacing_mm if header.dimensions == 3 else (*header.spacing_mm[::-1], header.spacing_mm[0])
    affine = np.diag([*spacing, 1.0])
    labels = [{"index": i, "name": name} for i, name in enumerate(header.mask_labels)]
    if labels:
        table = "".join(f"{label['index']}\t{label['name']}\n" for label in labels)
        (folder / "dseg.tsv").write_text("index\tname\n" + table, encoding="utf-8")
    names = _subject_names(images)
    for row, subject in enumerate(names):
        place = folder / subject / "anat"
        place.mkdir(parents=True)
        for channel, name in enumerate(header.channels):
            picture = nib.Nifti1Image(_as_volume(images.images[row][channel]), affine)
            nib.save(picture, place / f"{subject}_{_suffix(name)}.nii.gz")
        if images.masks is not None:
            nib.save(nib.Nifti1Image(_as_volume(images.masks[row]), affine), place / f"{subject}_dseg.nii.gz")
        yield
    table = images.cases.rename(columns={"case": "fedsynth_case"})
    table.insert(0, "participant_id", names)
    table.replace("", "n/a").to_csv(folder / TABLES["nifti"], sep="\t", index=False)


def _write_png(images: ImageSet, folder: Path) -> Iterator[None]:
    for _ in _write_pictures(images, folder):
        yield
    table = images.cases.copy()
    table.insert(0, "image", _subject_names(images))
    table.to_csv(folder / TABLES["png"], index=False)


def _write_huggingface(images: ImageSet, folder: Path) -> Iterator[None]:
    files = []
    for own in _write_pictures(images, folder):
        files.append(own)
        yield
    huggingface.write_metadata(images, files, folder)


def _write_pictures(images: ImageSet, folder: Path) -> Iterator[dict[str, str]]:
    """One PNG per image (grey, or red, green and blue) or per channel, one per mask; yields their names by column."""
    from PIL import Image

    channels = images.header.channels
    suffixes = {_suffix(name) for name in channels} | ({"mask"} if images.masks is not None else set())
    if len(channels) not in (1, 3) and len(suffixes) < len(channels) + (images.masks is not None):
        remedy = "rename one of them in imageset.toml"
        raise ConfigError("two channels would have one file name", value=",".join(channels), remedy=remedy)
    folders = {_folder_name(name) for name in images.header.classes}
    if len(folders) < len(images.header.classes):
        raise ConfigError("two classes would have one folder", value=",".join(images.header.classes))
    for row, subject in enumerate(_subject_names(images)):
        place = folder / (_folder_name(images.cases["class"].iloc[row]))
        place.mkdir(exist_ok=True)
        pixels = _eight_bit(images.images[row])
        if len(pixels) == 3:
            shown = {"image": ("", np.moveaxis(pixels, 0, -1))}
        elif len(pixels) == 1:
            shown = {"image": ("", pixels[0])}
        else:
            shown = {name: (f"_{_suffix(name)}", one) for name, one in zip(channels, pixels, strict=True)}
        if images.masks is not None:
            shown["mask"] = ("_mask", images.masks[row])
        for suffix, one in shown.values():
            Image.fromarray(one).save(place / f"{subject}{suffix}.png")
        yield {column: f"{place.name}/{subject}{suffix}.png" for column, (suffix, _) in shown.items()}


def _subject_names(images: ImageSet) -> list[str]:
    """`sub-` and the case's letters and digits, made unique where two cases would read the same."""
    names: dict[str, None] = {}
    for row, case in enumerate(images.cases["case"]):
        name = "sub-" + (re.sub(r"[^A-Za-z0-9]", "", case) or str(row))
        names[name if name not in names else f"{name}x{row}"] = None
    return list(names)


def _folder_name(label: str) -> str:
    return re.sub(r"[^\w.-]", "-", label).lstrip(".") or "unclassified"


def _suffix(channel: str) -> str:
    known = {"t1": "T1w", "t2": "T2w", "flair": "FLAIR", "t1ce": "ce-gadolinium_T1w", "ct": "CT"}
    return known.get(channel.lower(), re.sub(r"[^A-Za-z0-9]", "", channel) or "image")


def _as_volume(array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim == 3:
        return np.asarray(array)
    return np.ascontiguousarray(array[::-1].T[..., None])


def _eight_bit(image: NDArray[Any]) -> NDArray[np.uint8]:
    return image if image.dtype == np.uint8 else np.asarray(np.rint(image * 255), np.uint8)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _told(name: str, value: Any) -> str:
    """Shortened, but for the promise to patients and where it comes from."""
    return "; ".join(value) if name == "lineage" else str(value) if name == "privacy" else _short(value)


def _short(value: Any) -> str:
    text = json.dumps(value, default=str) if isinstance(value, dict | list | tuple) else str(value)
    return text if len(text) <= 300 else text[:297] + "..."


WRITERS: dict[Format, Callable[[ImageSet, Path], Iterator[None]]] = {
    "nifti": _write_nifti,
    "png": _write_png,
    "huggingface": _write_huggingface,
}
