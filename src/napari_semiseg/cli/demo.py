"""The verb ``demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_semiseg.cli import options as opt
from napari_semiseg.cli.job import follow
from napari_semiseg.cli.present import EventFormat


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to make.")] = Path("demo-result"),
    minutes: opt.Minutes = None,
    steps: opt.Steps = None,
    device: opt.Device = None,
    seed: opt.Seed = None,
    events: opt.Events = EventFormat.text,
) -> None:
    """Show the main job on a real tissue image: few labels, training, prediction, exports, and a report with pictures.

    Needs neither a display nor a network. The report says the score beside that of the hematoxylin threshold.

    Everything, in a few minutes:

        napari-semiseg demo --out demo-result

    Only to see that it works:

        napari-semiseg demo --out quick --steps 20
    """
    args = {"out": str(out), "minutes": minutes, "steps": steps, "device": device, "seed": seed}
    raise typer.Exit(follow("napari_semiseg.engine.demo:demo_from_args", args, events))
