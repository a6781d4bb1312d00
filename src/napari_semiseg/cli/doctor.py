"""The verb ``doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_semiseg.cli.job import DONE, WRONG_INPUT
from napari_semiseg.engine.doctor import examine

SIGNS = {"good": "ok  ", "note": "note", "bad": "BAD "}


def doctor(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where results are to go.")] = Path(),
) -> None:
    """Say what this installation can do, and the command that mends what is wrong.

    Looks at Python, napari, Qt, torch, every device (one training step on each), OpenSlide and the free disk. The exit
    status is 2 if something is broken.

    Here, and for another folder's disk:

        napari-semiseg doctor
        napari-semiseg doctor /data/results
    """
    status = DONE
    for finding in examine(folder):
        typer.echo(f"{SIGNS[finding.state]}  {finding.topic + ':':<14} {finding.found}")
        if finding.mend:
            typer.echo(f"      {'mend with:':<14} {finding.mend}")
        if finding.state == "bad":
            status = WRONG_INPUT
    raise typer.Exit(status)
