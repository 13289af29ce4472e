"""A description of an exported folder that machines read: Croissant (MLCommons), as JSON-LD beside the pictures."""

import hashlib
import json
from pathlib import Path
from typing import Any

from fedsynth.data.image_set import ImageSet

FILE, FORMAT = "croissant.json", "http://mlcommons.org/croissant/1.0"
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataBiases": "cr:dataBiases",
    "dataCollection": "cr:dataCollection",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "personalSensitiveInformation": "cr:personalSensitiveInformation",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The context that version 1.0 prescribes."""


def describe(images: ImageSet, table: Path, licence: str = "") -> dict[str, Any]:
    """The JSON-LD of a folder of pictures with `table`, a JSON line per image, beside them."""
    header = images.header
    with table.open(encoding="utf-8") as lines:
        columns = json.loads(next(lines, "{}"))
    whose = "Synthetic medical images" if header.origin == "synthetic" else "Images of patients"
    shown = f"{' x '.join(map(str, images.size))} pixels, channels {', '.join(header.channels)}"
    labels = f"; masks of {', '.join(header.mask_labels[1:])}" if header.mask_labels else ""
    known = {} if not licence or licence == "not stated" else {"license": licence}
    sensitive = "" if header.origin == "synthetic" else "images of patients"
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": FORMAT,
        "name": header.name,
        "description": f"{whose} made by fedsynth: {len(images)} of {shown}{labels}. The card is README.md.",
        **known,
        **({"personalSensitiveInformation": sensitive} if sensitive else {}),
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": table.name,
                "name": table.name,
                "contentUrl": table.name,
                "encodingFormat": "application/jsonlines",
                "sha256": hashlib.sha256(table.read_bytes()).hexdigest(),
            },
            {
                "@type": "cr:FileSet",
                "@id": "pictures",
                "name": "pictures",
                "encodingFormat": "image/png",
                "includes": "**/*.png",
            },
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "images",
                "name": "images",
                "description": "One row per image: the names of its pictures, its case and its class.",
                "field": [_column(name, table.name) for name in columns],
            }
        ],
    }


def write_description(images: ImageSet, table: Path, licence: str = "") -> None:
    """`croissant.json` beside the table."""
    text = json.dumps(describe(images, table, licence), indent=2, ensure_ascii=False)
    (table.parent / FILE).write_text(text + "\n", encoding="utf-8")


def _column(name: str, table: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"images/{name}",
        "name": name,
        "dataType": "sc:Text",
        "source": {"fileObject": {"@id": table}, "extract": {"column": name}},
    }
