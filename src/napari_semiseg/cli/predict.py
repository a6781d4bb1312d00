"""The verb ``predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_semiseg.cli import options as opt
from napari_semiseg.cli.job import follow
from napari_semiseg.cli.present import EventFormat


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a training run.")],
    images: Annotated[list[str], typer.Argument(metavar="IMAGES", help="Images, slides, or folders of them.")],
    out: Annotated[
        Path,
        typer.Option("--out", metavar="OUT", help="Folder of the results; for one image also a name in .ome.zarr."),
    ],
    threshold: opt.Threshold = None,
    strength: Annotated[
        float | None,
        typer.Option(
            "--strength", metavar="S", help="How readily touching nuclei are parted: 0 never, 1 always. Default: 0.5."
        ),
    ] = None,
    min_area: Annotated[
        int | None,
        typer.Option("--min-area", metavar="PX", help="Smallest nucleus, in pixels, instead of 3 µm² (50 pixels)."),
    ] = None,
    min_area_um2: Annotated[
        float | None,
        typer.Option("--min-area-um2", metavar="UM2", help="Smallest nucleus, in µm², where the pixel size is known."),
    ] = None,
    semantic: Annotated[
        bool, typer.Option("--semantic", help="Confidence and classes only: do not split nuclei.")
    ] = False,
    block: Annotated[
        int | None, typer.Option("--block", metavar="PX", help="Side of a block of prediction, in pixels.")
    ] = None,
    mpp: Annotated[
        float | None,
        typer.Option("--mpp", metavar="UM", help="Pixel size of the images, in µm, instead of what their files say."),
    ] = None,
    turns: Annotated[
        str | None,
        typer.Option(
            "--turns",
            metavar="auto|1|4|8",
            help="Look at each block from 4 sides, or from 8 with mirror images, and average: that much slower; auto: "
            "from 4 in images of at most 4.2 megapixels, from 1 in larger ones. Default: auto.",
        ),
    ] = None,
    device: opt.Device = None,
    glass: Annotated[bool, typer.Option("--glass", help="Look for nuclei on the glass of slides too.")] = False,
    gaps: opt.Gaps = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results of another run or another image.")
    ] = False,
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler",
            metavar="ADDRESS",
            help="Address of a Dask scheduler (tcp://host:8786), whose workers predict the blocks; local to start "
            "one worker on each graphics card of this machine, local:4 for four.",
        ),
    ] = None,
    events: opt.Events = EventFormat.text,
) -> None:
    """Predict confidence and nuclei of images or whole slides into OME-Zarr.

    Each image becomes one .ome.zarr: the confidence, and the nuclei under labels/nuclei. A prediction that broke off
    goes on where it stopped when the same command is given again.

    A folder of slides with a run:

        napari-semiseg predict runs/first slides/ --out results/

    One image, into a file of that name:

        napari-semiseg predict runs/first HE.svs --out HE.ome.zarr
    """
    args = {
        "run": str(run),
        "images": images,
        "out": str(out),
        "threshold": threshold,
        "strength": strength,
        "min_area": min_area,
        "min_area_um2": min_area_um2,
        "semantic": semantic,
        "block": block,
        "mpp": mpp,
        "turns": int(turns) if turns and turns.isdigit() else turns,
        "device": device,
        "glass": glass,
        "gaps": gaps,
        "overwrite": overwrite,
        "scheduler": scheduler,
    }
    raise typer.Exit(follow("napari_semiseg.engine.predict:predict_from_args", args, events))
