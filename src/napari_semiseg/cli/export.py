"""The verb ``export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_semiseg.cli import options as opt
from napari_semiseg.cli.job import follow
from napari_semiseg.cli.present import EventFormat


def export(
    result: Annotated[
        Path,
        typer.Argument(
            metavar="RESULT|RUN",
            help="The result, a folder ending in .ome.zarr that a prediction has written; or for a model its run.",
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="FORMAT",
            help="The format. Of a result ome-zarr, ome-tiff, tiff, geojson, csv, parquet, imagej-roi, png or report; "
            "of a run safetensors, onnx or bioimageio.",
        ),
    ],
    out: Annotated[
        str,  # a Path would lose the slash at the end
        typer.Option(
            "--out",
            metavar="PATH",
            help="The file to write, or a folder: one that exists or ends in /, where it is named after the image.",
        ),
    ],
    image: Annotated[
        Path | None,
        typer.Option(
            "--image", metavar="FILE", help="The image, for outlines and stain; empty for the one that was predicted."
        ),
    ] = None,
    version: Annotated[
        str | None, typer.Option("--version", metavar="0.5|0.4", help="Version of OME-Zarr. Default: 0.5.")
    ] = None,
    max_side: Annotated[
        int | None,
        typer.Option(
            "--max-side",
            metavar="PX",
            help="Longest side of a PNG, in pixels; larger images are reduced. Default: 4096.",
        ),
    ] = None,
    author: Annotated[
        str | None, typer.Option("--author", metavar="NAME", help="Who made the model, for its card.")
    ] = None,
    license: Annotated[  # noqa: A002  (the option is called so)
        str | None,
        typer.Option(
            "--license",
            metavar="SPDX",
            help="License of the model, an SPDX identifier such as CC-BY-4.0, for its card.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Whether an earlier export of that name may be replaced.")
    ] = False,
    events: opt.Events = EventFormat.text,
) -> None:
    """Export a result: masks, outlines, a table of nuclei, a picture. Or export a trained model.

    A table, with one row per nucleus:

        napari-semiseg export results/HE.ome.zarr --to csv --out HE.csv

    Nuclei as detections for QuPath, with class and measurements:

        napari-semiseg export results/HE.ome.zarr --to geojson --out HE.geojson

    The model, for programs without torch:

        napari-semiseg export runs/first --to onnx --out first.onnx

    Masks as a pyramidal OME-TIFF, named after the image:

        napari-semiseg export results/HE.ome.zarr --to ome-tiff --out masks/
    """
    args = {
        "source": str(result),
        "to": to,
        "out": out,
        "image": opt.text(image),
        "version": version,
        "max_side": max_side,
        "author": author,
        "license": license,
        "overwrite": overwrite,
    }
    raise typer.Exit(follow("napari_semiseg.engine.export:export_from_args", args, events))
