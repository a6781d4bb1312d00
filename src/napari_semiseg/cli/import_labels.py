"""The verb ``import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_semiseg import atomic
from napari_semiseg.app.import_plan import MOST, SIDE, plan_tiles
from napari_semiseg.app.importing import import_labels
from napari_semiseg.app.words import count
from napari_semiseg.errors import InputError
from napari_semiseg.io.foreign_labels import open_labels
from napari_semiseg.io.images import open_image
from napari_semiseg.project.folder import ProjectFolder


def import_(
    labels: Annotated[
        Path,
        typer.Argument(
            metavar="LABELS",
            help="GeoJSON (QuPath's too), ImageJ regions (.zip, .roi), or a label image (TIFF, OME-Zarr, PNG).",
        ),
    ],
    project: Annotated[
        Path, typer.Option("--project", metavar="PROJECT", help="The project folder; it is made where it is missing.")
    ],
    image: Annotated[Path, typer.Option("--image", metavar="FILE", help="The image that the labels belong to.")],
    sparse: Annotated[
        bool,
        typer.Option(
            "--sparse", help="Not every nucleus of a tile is labeled: what is not labeled counts for nothing."
        ),
    ] = False,
    side: Annotated[int, typer.Option("--side", metavar="PX", min=32, max=4096, help="Side of a tile.")] = SIDE,
    most: Annotated[int, typer.Option("--most", metavar="N", min=1, help="Most tiles, fullest first.")] = MOST,
) -> None:
    """Bring labels of others into a project, as annotations in tiles.

    A colleague's corrections, from QuPath:

        napari-semiseg import corrected.geojson --project breast-07.semiseg --image HE_0412.svs

    Nothing that was painted before is changed: empty tiles are filled, and new ones are made where there are none yet.
    """
    found, opened = open_labels(labels), open_image(image)
    with _opened(project) as folder:
        index = folder.add_image(opened)
        plan = plan_tiles(folder, index, found, side=side, most=most)
        if plan.empty:
            raise InputError(f"Nothing of '{labels}' was brought in, and no tile was made. {plan.words}".rstrip())
        for note in filter(None, (found.note, plan.words)):
            typer.echo(note)
        nuclei = 0
        for done in import_labels(folder, index, found, plan.boxes, fill=plan.fill, complete=not sparse):
            nuclei += done.nuclei
            typer.echo(
                f"{done.tile.id}, {done.tile.status}: {count(done.nuclei, 'nucleus', 'nuclei')} at "
                f"{tuple(done.tile.box)}"
            )
        tiles = count(len(plan.boxes) + len(plan.fill), "tile")
        typer.echo(f"{count(nuclei, 'nucleus', 'nuclei')} in {tiles} of {folder.path}")


def _opened(project: Path) -> ProjectFolder:
    if project.exists():
        return ProjectFolder.open(project)
    atomic.make_folder(project.absolute().parent)
    return ProjectFolder.create(project)
