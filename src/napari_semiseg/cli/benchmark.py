"""The verb ``benchmark``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_semiseg.cli import options as opt
from napari_semiseg.cli.job import follow
from napari_semiseg.cli.present import EventFormat
from napari_semiseg.config import assignments


def benchmark(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="A labeled data set.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to make, or to go on in.")],
    methods: Annotated[
        str | None, typer.Option("--methods", metavar="A,B", help="Names, see napari-semiseg methods.")
    ] = None,
    variants: Annotated[
        list[str] | None,
        typer.Option(
            "--variant",
            metavar="METHOD=NAME",
            help="A row of the method's paper, or a table for all of its rows; may be given several times.",
        ),
    ] = None,
    fractions: Annotated[
        str | None,
        typer.Option("--fractions", metavar="1/32,15,…", help="Labels: fractions, counts or files; 1 is all."),
    ] = None,
    by: Annotated[
        str | None, typer.Option("--by", metavar="cells|images", help="What fractions are of. Default: cells.")
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option("--seeds", metavar="N|A,B", help="Runs of each: a count, or seeds as 3,4. Default: 3."),
    ] = None,
    minutes: Annotated[
        str | None, typer.Option("--minutes", metavar="M,…", help="Minutes of each training; several make a curve.")
    ] = None,
    steps: Annotated[
        str | None, typer.Option("--steps", metavar="N,…", help="Steps of each, instead of minutes; several too.")
    ] = None,
    preset: opt.Preset = None,
    network: opt.Network = None,
    splits: Annotated[
        Path | None, typer.Option("--splits", metavar="FILE", help="Default: splits_grouped.json, else splits.json.")
    ] = None,
    split: opt.Split = None,
    part: Annotated[str | None, typer.Option("--part", metavar="NAME", help="What is scored. Default: test.")] = None,
    test: Annotated[
        Path | None, typer.Option("--test", metavar="DATASET", help="Score another data set instead.")
    ] = None,
    classes: Annotated[bool, typer.Option("--classes", help="Learn and score the classes in classes/.")] = False,
    subimage: opt.Subimage = None,
    validation: Annotated[
        float | None,
        typer.Option("--validation", metavar="SHARE", help="Labeled cells that choose the step. Default: none."),
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", metavar="NAMES", help="auto, all, or several with commas between.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="[METHOD.]KEY=VALUE", help="An option; may be given several times."),
    ] = None,
    events: opt.Events = EventFormat.text,
) -> None:
    """Compare methods on a labeled data set, beside the figures of their papers.

    The same command goes on where it was broken off; what is finished is never computed again. Ctrl-C keeps it.

    Three methods with 12 of 384 cells, three times each, ten minutes a training:

        napari-semiseg benchmark monuseg/ --methods hematoxylin_threshold,supervised,cdcl --minutes 10 --out bench/

    How each goes on with the time that it is given:

        napari-semiseg benchmark monuseg/ --methods supervised,cdcl --minutes 2,5,10 --out curve/

    The rows of a paper's ablation, as they were trained there:

        napari-semiseg benchmark monuseg/ --variant "cdcl=table 2" --out ablation/

    By whole slides, trained on one data set and scored on another:

        napari-semiseg benchmark monuseg/ --fractions 1/8 --by images --test consep/ --steps 1000 --out across/
    """
    args = {
        "dataset": str(dataset),
        "out": str(out),
        "methods": _words(methods),
        "variants": variants,
        "fractions": _words(fractions),
        "by": by,
        "seeds": seeds,
        "minutes": minutes,
        "steps": steps,
        "preset": preset,
        "network": network,
        "splits": opt.text(splits),
        "split": split,
        "part": part,
        "test": opt.text(test),
        "classes": classes,
        "subimage": subimage,
        "validation": validation,
        "device": device,
        "set": assignments(set_ or []),
    }
    raise typer.Exit(follow("napari_semiseg.engine.benchmark:benchmark_from_args", args, events))


def _words(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]
