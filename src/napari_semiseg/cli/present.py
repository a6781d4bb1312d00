"""Events to the terminal: bars for people, lines for logs, JSON for programs.

What is said goes to stderr. On stdout stand the results, mostly paths, one a line, so that they can be piped; with
``--events jsonl`` the events and nothing else.
"""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from enum import StrEnum
from types import TracebackType
from typing import Self

from napari_semiseg.cli.words import Progress, progress_of, sentence_of
from napari_semiseg.events import Event, Finished, Started, Suggested, Written, encode


class EventFormat(StrEnum):
    """How a job's events are shown."""

    text = "text"
    jsonl = "jsonl"


class Presenter(AbstractContextManager["Presenter"]):
    """Whoever shows the events of one job."""

    def show(self, event: Event) -> None:
        """Show what happened."""
        raise NotImplementedError

    def note(self, text: str) -> None:
        """Say something that is not an event."""
        print(text, file=sys.stderr, flush=True)  # noqa: T201

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class JsonLines(Presenter):
    """One JSON object a line on stdout."""

    def show(self, event: Event) -> None:
        """Print the event."""
        print(encode(event), flush=True)  # noqa: T201


class Lines(Presenter):
    """Plain lines on stderr: progress at most every `every_s` seconds, all else at once."""

    def __init__(self, every_s: float = 5.0) -> None:
        self._every_s = every_s
        self._last = -every_s
        self._label = ""
        self._steps = 0
        self._results: list[str] = []

    def show(self, event: Event) -> None:
        """Say what happened, unless it only says that things go on and that was said just now."""
        if isinstance(event, Started) and event.total:
            self._steps = event.total
        self._keep(event)
        progress = progress_of(event, self._steps)
        if progress is not None:
            self._progress(progress)
        elif not isinstance(event, Suggested) and (sentence := sentence_of(event)) is not None:
            self.note(sentence)

    def _progress(self, progress: Progress) -> None:
        now = time.monotonic()
        first, last = progress.label != self._label, progress.done == progress.total
        if first or last or now - self._last >= self._every_s:
            self._last, self._label = now, progress.label
            words = [f"{progress.label}: {progress.done}/{progress.total}", progress.pace, progress.detail]
            self.note("  ".join(word for word in words if word))

    def _keep(self, event: Event) -> None:
        result = _result_of(event)
        if result and result not in self._results:
            self._results.append(result)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for result in self._results:
            print(result, flush=True)  # noqa: T201


def _result_of(event: Event) -> str:
    match event:
        case Written(_, path):
            return path
        case Suggested():
            return sentence_of(event) or ""
        case Finished(_, result, _, canceled):
            return "" if canceled else result
    return ""


class Bars(Lines):
    """Progress bars on stderr, with rate and time of arrival, and sentences above them."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._console = Console(stderr=True, highlight=False)
        self._bars = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}"),
            TextColumn("[dim]{task.fields[detail]}"),
            console=self._console,
            redirect_stdout=False,
        )
        self._task: int | None = None

    def note(self, text: str) -> None:
        """Say something above the bars."""
        self._console.print(text, markup=False)

    def _progress(self, progress: Progress) -> None:
        if self._task is None or progress.label != self._label:
            self._label = progress.label
            self._task = self._bars.add_task(progress.label, total=None, pace="", detail="")
        self._bars.update(
            self._task,  # type: ignore[arg-type]
            completed=progress.done,
            total=progress.total or None,
            pace=progress.pace,
            detail=progress.detail,
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        super().__exit__(kind, error, trace)


def presenter(form: EventFormat) -> Presenter:
    """Return who shows events in that form, given where stderr goes."""
    if form is EventFormat.jsonl:
        return JsonLines()
    return Bars() if sys.stderr.isatty() else Lines()
