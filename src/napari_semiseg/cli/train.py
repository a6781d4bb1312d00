"""The verb ``train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_semiseg.cli import options as opt
from napari_semiseg.cli.job import follow
from napari_semiseg.cli.present import EventFormat
from napari_semiseg.config import assignments
from napari_semiseg.engine.requests import TrainRequest


def sources(names: list[str]) -> dict[str, object]:
    """Tell images from a data set and from a project: the part of a request that says what to learn from.

    One folder with ``project.json`` is a project, one with ``images/`` in it a data set; anything else is images or
    folders of images.
    """
    first = Path(names[0])
    if len(names) == 1 and (first / "project.json").is_file():
        return {"project": str(first)}
    if len(names) == 1 and (first / "images").is_dir():
        return {"dataset": str(first)}
    return {"images": names}


def train(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="IMAGES|DATASET|PROJECT", help="Images, folders, a data set, or a project."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="RUN", help="The run folder to make.")],
    labels: opt.Labels = None,
    classes: opt.Classes = None,
    labeled: opt.Labeled = None,
    subimage: opt.Subimage = None,
    splits: opt.Splits = None,
    split: opt.Split = None,
    validation: opt.Validation = None,
    method: opt.Method = None,
    network: opt.Network = None,
    weights: opt.Weights = None,
    preset: opt.Preset = None,
    variant: opt.Variant = None,
    minutes: opt.Minutes = None,
    steps: opt.Steps = None,
    mpp: opt.Mpp = None,
    device: opt.Device = None,
    seed: opt.Seed = None,
    set_: opt.Set = None,
    resume: opt.Resume = False,
    changed_images: opt.ChangedImages = False,
    events: opt.Events = EventFormat.text,
) -> None:
    """Train a network from few labels, or none, into a run folder.

    Ctrl-C stops and keeps the best so far; a second one discards the run. A run that broke off goes on with --resume.

    Without any label:

        napari-semiseg train slides/ --out runs/first

    With the labels there are (a file of the same name for each image):

        napari-semiseg train images/ --labels labels/ --out runs/second

    With 15 cells of 250 x 250 of a data set, as the papers do:

        napari-semiseg train monuseg/ --labeled 15 --out runs/third

    As in a row of the method's paper, with its network and its number of epochs:

        napari-semiseg train monuseg/ --labeled 12 --method cdcl --variant "table 2, scheme 4" --out runs/fourth

    Go on where it broke off:

        napari-semiseg train slides/ --out runs/first --resume
    """
    args = sources(paths) | {
        "out": str(out),
        "labels": opt.text(labels),
        "classes": opt.text(classes),
        "labeled": labeled,
        "subimage": subimage,
        "splits": opt.text(splits),
        "split": split,
        "validation": validation,
        "method": method,
        "network": network,
        "weights": weights,
        "preset": preset,
        "variant": variant,
        "minutes": minutes,
        "steps": steps,
        "mpp": mpp,
        "device": device,
        "seed": seed,
        "set": assignments(set_ or []),
        "resume": resume,
        "changed_images": changed_images,
    }
    raise typer.Exit(follow("napari_semiseg.engine.train:train_from_args", args, events, TrainRequest))
