"""`fedsynth relabel`: a copy of an image set with the labels of its masks regrouped."""

from pathlib import Path
from typing import Annotated

import typer

from fedsynth.cli.screen import print_json


def relabel(
    folder: Annotated[Path, typer.Argument(metavar="SET", help="The image set.")],
    out: Annotated[Path, typer.Argument(help="The image set to write.")],
    labels: Annotated[str, typer.Option(help="Groups: name=label,label;name=label. background=... drops labels.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it is an image set.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Regroup the labels of the masks: several become one, some become background, the rest keep their names.

    For example: fedsynth relabel runs/phantom runs/whole --labels "whole-tumour=edema,core,enhancing"
    """
    from dataclasses import replace

    from fedsynth.atomic_files import refuse_existing
    from fedsynth.data import ImageSet
    from fedsynth.data.format import HEADER
    from fedsynth.data.label_groups import relabel as regroup_labels

    refuse_existing(out, marker=HEADER, overwrite=overwrite)
    read = ImageSet.load(folder)
    regrouped = regroup_labels(read, labels)
    named = replace(regrouped, header=replace(regrouped.header, name=out.resolve().name))
    made = named.save(out, overwrite=overwrite)
    before, after = read.header.mask_labels, made.header.mask_labels
    if as_json:
        counts = {"images": len(made), "labels_before": before, "labels": after}
        print_json({"schema": "fedsynth.relabel/1", "out": str(out), **counts})
        return
    typer.echo(f"{out}: {len(made)} images, labels {', '.join(after)} (were {', '.join(before)})")
