"""Arguments and options that more than one verb takes, with the help text of the field they fill."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_semiseg.cli.present import EventFormat
from napari_semiseg.config import Config
from napari_semiseg.engine.requests import TrainRequest


def text_of(model: type[Config], field: str) -> str:
    """Return a field's description and default: the dock shows the same text."""
    info = model.model_fields[field]
    default = info.get_default(call_default_factory=True)
    return f"{info.description}{f' Default: {default}.' if default and not info.is_required() else ''}"


def train_text(field: str) -> str:
    """Return the help of an option of training."""
    return text_of(TrainRequest, field)


# An option that is not given stays None, and the request's own default holds.
Events = Annotated[
    EventFormat, typer.Option("--events", help="text: bars and sentences; jsonl: one JSON event a line on stdout.")
]
Labels = Annotated[Path | None, typer.Option("--labels", metavar="DIR", help=train_text("labels"))]
Classes = Annotated[Path | None, typer.Option("--classes", metavar="DIR", help=train_text("classes"))]
Labeled = Annotated[str | None, typer.Option("--labeled", metavar="15|1/32|FILE", help=train_text("labeled"))]
Subimage = Annotated[int | None, typer.Option("--subimage", metavar="PX", help=train_text("subimage"))]
Splits = Annotated[Path | None, typer.Option("--splits", metavar="FILE", help=train_text("splits"))]
Split = Annotated[str | None, typer.Option("--split", metavar="NAME", help=train_text("split"))]
Method = Annotated[
    str | None, typer.Option("--method", metavar="NAME", help=train_text("method") + " See napari-semiseg methods.")
]
Network = Annotated[str | None, typer.Option("--network", metavar="NAME", help=train_text("network"))]
Preset = Annotated[str | None, typer.Option("--preset", metavar="quick|standard|best|paper", help=train_text("preset"))]
Variant = Annotated[
    str | None, typer.Option("--variant", metavar="NAME", help=train_text("variant") + " See napari-semiseg methods.")
]
Minutes = Annotated[float | None, typer.Option("--minutes", metavar="M", help=train_text("minutes"))]
Steps = Annotated[int | None, typer.Option("--steps", metavar="N", help=train_text("steps"))]
Mpp = Annotated[float | None, typer.Option("--mpp", metavar="UM", help=train_text("mpp"))]
Device = Annotated[str | None, typer.Option("--device", metavar="NAME", help=train_text("device"))]
Seed = Annotated[int | None, typer.Option("--seed", metavar="N", help=train_text("seed"))]
Resume = Annotated[bool, typer.Option("--resume", help=train_text("resume"))]
ChangedImages = Annotated[bool, typer.Option("--changed-images", help=train_text("changed_images"))]
Validation = Annotated[float | None, typer.Option("--validation", metavar="SHARE", help=train_text("validation"))]
Weights = Annotated[str | None, typer.Option("--weights", metavar="WHAT", help=train_text("weights"))]
Threshold = Annotated[
    float | None,
    typer.Option(
        "--threshold", metavar="T", help="Confidence above which a pixel is nucleus, instead of the run's own."
    ),
]
Gaps = Annotated[
    bool,
    typer.Option("--gaps", help="Complete a result although parts of its image cannot be read; these stay empty."),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help=train_text("set") + " May be given several times."),
]


def text(path: Path | None) -> str | None:
    """Return a path as requests hold it."""
    return None if path is None else str(path)
