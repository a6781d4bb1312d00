"""The verb ``serve``."""

from __future__ import annotations

from typing import Annotated

import typer

from napari_semiseg.cli.present import EventFormat
from napari_semiseg.errors import InputError


def serve(
    events: Annotated[
        EventFormat, typer.Option("--events", help="How it speaks; jsonl is all it can.")
    ] = EventFormat.jsonl,
) -> None:
    """Wait for commands on stdin and answer with events on stdout, one JSON object a line: what the dock starts.

    It ends by itself when its stdin closes. A program may start it too:

        napari-semiseg serve --events jsonl
    """
    if events is not EventFormat.jsonl:
        raise InputError("`serve` speaks to programs only: leave --events out, or say --events jsonl.")
    from napari_semiseg.engine.serve import serve as wait_for_commands

    wait_for_commands()
