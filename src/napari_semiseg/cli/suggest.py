"""The verb ``suggest``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_semiseg.cli import options as opt
from napari_semiseg.cli.job import follow
from napari_semiseg.cli.present import EventFormat


def suggest(
    source: Annotated[
        Path, typer.Argument(metavar="RUN|PROJECT", help="A project folder, or the folder of one of its runs.")
    ],
    n: Annotated[int | None, typer.Option("--n", metavar="N", help="How many tiles to suggest. Default: 8.")] = None,
    side: Annotated[
        int | None, typer.Option("--side", metavar="PX", help="Side of a tile, in pixels. Default: 250.")
    ] = None,
    image: Annotated[
        int | None,
        typer.Option("--image", metavar="INDEX", help="Index of the image to stay on; all images by default."),
    ] = None,
    doubt: Annotated[
        bool,
        typer.Option(
            "--doubt/--no-doubt",
            help="Whether the newest runs, where there are some, say where they are in doubt. Default: True.",
        ),
    ] = True,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            metavar="NAME",
            help="Where that run computes: auto, cpu, cuda, cuda:N or mps. Default: auto.",
        ),
    ] = None,
    events: opt.Events = EventFormat.text,
) -> None:
    """Suggest tiles to paint next, best first, each with the reason.

    The next four of a project:

        napari-semiseg suggest breast-07.semiseg --n 4
    """
    args = {"source": str(source), "n": n, "side": side, "image": image, "doubt": doubt, "device": device}
    raise typer.Exit(follow("napari_semiseg.engine.suggest:suggest_from_args", args, events))
