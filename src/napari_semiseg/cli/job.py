"""Run a job in this process, show its events, and let Ctrl-C and SIGTERM ask it to end."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pkgutil import resolve_name
from types import FrameType
from typing import Any

from napari_semiseg.cli.present import EventFormat, presenter
from napari_semiseg.config import Config
from napari_semiseg.engine.control import Control
from napari_semiseg.errors import InputError
from napari_semiseg.events import Cancel, Event, Failed, Finished, Stop

DONE, DEFECT, WRONG_INPUT, STOPPED = 0, 1, 2, 3
"""Exit statuses."""

Job = Callable[[dict[str, Any], Control], Iterator[Event]]


def follow(
    target: str, args: Mapping[str, Any], form: EventFormat = EventFormat.text, request: type[Config] | None = None
) -> int:
    """Run a job to its end.

    Parameters
    ----------
    target : str
        Where the job stands, as ``package.module:function``. It is imported only now, since most of them need torch.
    args : mapping
        Options that were given; those that are None were not.
    form : EventFormat
    request : type of Config, optional
        What the options make, where that can be known without torch: then they are checked before it is loaded.

    Returns
    -------
    int
        The exit status.

    Raises
    ------
    InputError
        If the input is at fault. Any other exception is a defect.
    """
    given = {name: value for name, value in args.items() if value is not None}
    control = Control()
    stopped = False
    with presenter(form) as view, _interruptible(control):
        try:
            if request is not None:
                request.checked(given, "the request")
            for event in _start(target, given, control):
                if isinstance(event, Failed):
                    raise _error_of(event)
                if isinstance(event, Finished):
                    stopped = event.stopped or event.canceled
                view.show(event)
        except InputError as error:
            if form is EventFormat.jsonl:
                view.show(Failed(str(error), wrong_input=True))
            raise
    return STOPPED if stopped else DONE


def _error_of(event: Failed) -> Exception:
    return InputError(event.message) if event.wrong_input else RuntimeError(event.detail or event.message)


def _start(target: str, args: dict[str, Any], control: Control) -> Iterator[Event]:
    job: Job = resolve_name(target)
    return job(args, control)


@contextlib.contextmanager
def _interruptible(control: Control) -> Iterator[None]:
    """First Ctrl-C, and SIGTERM: stop and keep the best; second Ctrl-C: cancel; third: end at once."""
    asked = 0

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            control.send(Stop())  # before it is told: the next Ctrl-C may come as soon as it is read
            _tell("Stopping; the best so far is kept. Ctrl-C again discards it.")
        elif asked == 2:
            control.send(Cancel())
            _tell("Canceling; Ctrl-C again ends at once.")
        else:
            raise KeyboardInterrupt

    def terminate(number: int, frame: FrameType | None) -> None:
        control.send(Stop())

    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, interrupt),
        signal.SIGTERM: signal.signal(signal.SIGTERM, terminate),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell(text: str) -> None:
    """Say something from inside a signal handler: `print` may be what the signal has interrupted."""
    with contextlib.suppress(OSError):
        os.write(2, f"\n{text}\n".encode())
