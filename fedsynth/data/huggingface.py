"""The form in which Hugging Face's `datasets` reads a folder of pictures: `metadata.jsonl`, and a card with YAML."""

import json
from collections.abc import Iterator
from pathlib import Path

from fedsynth.data.image_set import ImageSet

METADATA = "metadata.jsonl"
LICENCES = {
    "cc0 1.0": "cc0-1.0",
    "cc by 4.0": "cc-by-4.0",
    "cc by-sa 4.0": "cc-by-sa-4.0",
    "cc by-nc 4.0": "cc-by-nc-4.0",
}
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def metadata_lines(images: ImageSet, files: list[dict[str, str]]) -> Iterator[str]:
    """A line for every image. `files` names its pictures by column: `image`, or one for each channel, and `mask`.

    `datasets` makes an image column of every key that ends in `file_name`.
    """
    for row, own in enumerate(files):
        case = images.cases.iloc[row]
        told = {"file_name" if column == "image" else f"{column}_file_name": name for column, name in own.items()}
        yield json.dumps(told | {"case": case["case"], "class": case["class"] or None}, ensure_ascii=False) + "\n"


def front_matter(images: ImageSet, licence: str = "") -> str:
    """The YAML that opens a dataset card."""
    header = images.header
    tasks = (["image-segmentation"] if header.mask_labels else []) + (
        ["image-classification"] if header.classes else []
    )
    size = next((name for most, name in SIZES if len(images) < most), "1M<n<10M")
    known = LICENCES.get(licence.lower().strip(), "other")
    lines = ["---", f"pretty_name: {json.dumps(header.name)}", f"license: {known}"]
    lines += [f"license_name: {json.dumps(licence or 'not stated')}"] if known == "other" else []
    lines += ["tags:", "- medical", *(["- synthetic"] if header.origin == "synthetic" else [])]
    lines += ["task_categories:", *(f"- {task}" for task in tasks)] if tasks else []
    lines += ["size_categories:", f"- {size}", "---", ""]
    return "\n".join(lines) + "\n"


def write_metadata(images: ImageSet, files: list[dict[str, str]], folder: Path) -> None:
    """`metadata.jsonl` beside the pictures."""
    (folder / METADATA).write_text("".join(metadata_lines(images, files)), encoding="utf-8")
