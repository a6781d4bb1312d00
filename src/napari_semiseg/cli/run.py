"""The verb ``run``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_semiseg.cli import options as opt
from napari_semiseg.cli.job import follow
from napari_semiseg.cli.present import EventFormat
from napari_semiseg.cli.train import sources
from napari_semiseg.config import assignments


def run(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="IMAGES|DATASET|PROJECT", help="Images, folders, a data set, or a project."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder of the run and all results.")],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="FORMATS",
            help="geojson, ome-zarr, ome-tiff, tiff, csv, parquet, imagej-roi, png, report, and of the model "
            "safetensors, onnx, bioimageio; several with commas between.",
        ),
    ] = "csv",
    model: Annotated[
        Path | None, typer.Option("--model", metavar="RUN", help="Predict with this run, and train nothing.")
    ] = None,
    labels: opt.Labels = None,
    labeled: opt.Labeled = None,
    method: opt.Method = None,
    network: opt.Network = None,
    weights: opt.Weights = None,
    preset: opt.Preset = None,
    minutes: opt.Minutes = None,
    steps: opt.Steps = None,
    threshold: opt.Threshold = None,
    mpp: opt.Mpp = None,
    gaps: opt.Gaps = False,
    device: opt.Device = None,
    seed: opt.Seed = None,
    set_: opt.Set = None,
    resume: opt.Resume = False,
    changed_images: opt.ChangedImages = False,
    events: opt.Events = EventFormat.text,
) -> None:
    """Train, predict and export in one go.

    The folder then holds the run in run/, one .ome.zarr per image, and the exports. Ctrl-C stops and keeps the best so
    far; the same command with --resume goes on.

    Without any label, to a table of nuclei and pictures:

        napari-semiseg run slides/ --out results/ --to csv,png

    With the labels there are:

        napari-semiseg run images/ --labels labels/ --out results/

    With a network that was trained before:

        napari-semiseg run slides/ --model runs/first --out results/
    """
    args = sources(paths) | {
        "out": str(out),
        "to": [form.strip() for form in to.split(",") if form.strip()],
        "model": opt.text(model),
        "labels": opt.text(labels),
        "labeled": labeled,
        "method": method,
        "network": network,
        "weights": weights,
        "preset": preset,
        "minutes": minutes,
        "steps": steps,
        "threshold": threshold,
        "mpp": mpp,
        "gaps": gaps,
        "device": device,
        "seed": seed,
        "set": assignments(set_ or []),
        "resume": resume,
        "changed_images": changed_images,
    }
    raise typer.Exit(follow("napari_semiseg.engine.run:run_from_args", args, events))
