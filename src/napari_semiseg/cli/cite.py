"""The verb ``cite``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def cite(run: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")]) -> None:
    """Print the methods paragraph of a run, with its references, for a manuscript.

    napari-semiseg cite runs/first
    """
    from napari_semiseg.engine.manuscript import methods_paragraph

    typer.echo(methods_paragraph(run))
