"""The verb ``evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_semiseg.atomic import write_json


def evaluate(
    predicted: Annotated[
        Path, typer.Argument(metavar="PREDICTED", help="A result or label image, or a folder of them.")
    ],
    labels: Annotated[
        Path, typer.Argument(metavar="LABELS", help="The true labels: a file, or a folder of same stems.")
    ],
    classes: Annotated[
        Path | None, typer.Option("--classes", metavar="DIR", help="The true class maps, for results with classes.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write all scores, image by image, as JSON.")
    ] = None,
) -> None:
    """Compare nuclei with the truth: every definition at once, each in words.

    Dice and IoU per image and pooled, two-class means, accuracy, AJI, PQ, F1 at IoU 0.5, and the error in the count.

    A folder of results with the labels of the same images:

        napari-semiseg evaluate results/ labels/ --json scores.json
    """
    from napari_semiseg.engine.evaluate import evaluate as compare

    scores = compare(predicted, labels, classes=classes)
    typer.echo(scores.table())
    if json_file is not None:
        write_json(json_file, scores.as_dict())
