"""The verb ``inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_semiseg.cli import options as opt
from napari_semiseg.cli.job import follow
from napari_semiseg.cli.present import EventFormat


def inspect(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")],
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGES…", help="Images or folders of images; the first of the run without any."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="The folder to make, with a report; in the run folder, without one, if not given.",
        ),
    ] = None,
    show: Annotated[
        list[str] | None,
        typer.Option(
            "--show",
            metavar="WHAT",
            help="What to look at, of method, features, landscape, agreement, confusion; all that there is without "
            "any. May be given several times.",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", metavar="PATH", help="Instance labels to compare with: a file, or a folder of stems."),
    ] = None,
    box: Annotated[
        tuple[int, int, int, int] | None,
        typer.Option(
            "--box", metavar="Y0 X0 Y1 X1", help="The rectangle to look at: y0, x0, y1, x1 in pixels of the image."
        ),
    ] = None,
    device: opt.Device = None,
    seed: opt.Seed = None,
    events: opt.Events = EventFormat.text,
) -> None:
    """Look inside a trained method: what it draws, compares and confuses, as maps over images, with a report.

    Everything there is to see on one image, compared with its labels:

        napari-semiseg inspect runs/first HE.tif --labels HE-labels.tif --out inside

    The feature map alone:

        napari-semiseg inspect runs/first HE.tif --show features --out inside
    """
    args = {
        "run": str(run),
        "images": tuple(images) if images else None,
        "out": opt.text(out),
        "show": tuple(show) if show else None,
        "labels": opt.text(labels),
        "box": box,
        "device": device,
        "seed": seed,
    }
    raise typer.Exit(follow("napari_semiseg.engine.inspect:inspect_from_args", args, events))
