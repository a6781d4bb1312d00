"""What a job says, and what it is told: small frozen records, one JSON object a line.

A job is a generator of events. The command line prints them, a test collects them with `list`, and the dock reads
them from the child process that runs the job. Nothing here knows who listens.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from napari_semiseg.errors import InputError

MAX_EVENT = 1_000_000
"""Longest event that is read, in characters: parsing it holds up the viewer for at most 100 ms. A `Described` has some
100,000; images never travel this way."""

RENEW_STATUS = 75
"""Exit status of a child that must be started anew, since its graphics driver no longer answers it; its job has been
reported as `Failed`."""

ASIDE = frozenset({"split", "doubtful", "compare", "region"})
"""Verbs that can be done beside a training: they need no torch, are soon done, and read results that it never writes.
`split` only without ``apply``."""

MAX_COMMAND = 8_000_000
"""Longest command that is read, in characters: the paths of many thousand images fit."""


@dataclass(frozen=True)
class Event:
    """Something that happened in a job."""


@dataclass(frozen=True)
class Ready(Event):
    """The child listens. `versions` by package."""

    pid: int
    versions: dict[str, str]


@dataclass(frozen=True)
class Described(Event):
    """Answer to `Describe`: methods, networks, presets and devices with their JSON Schemas.

    While torch is still being loaded the answer says little and has ``complete`` false; the whole one follows.
    """

    description: dict[str, Any]


@dataclass(frozen=True)
class Heartbeat(Event):
    """The child is alive. Said every second, by a thread of its own, whatever the job does."""

    rss_bytes: int


@dataclass(frozen=True)
class Started(Event):
    """A job begins.

    For training: `run` is the run folder, `facts` says in words what was chosen (method, network, device, cells,
    steps).
    """

    what: str
    run: str = ""
    total: int = 0
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Progressed(Event):
    """Something long went on: `done` of `total` units.

    `rate` is units a second, `eta_s` seconds to the end, NaN if unknown.
    """

    what: str
    done: int
    total: int
    rate: float = math.nan
    eta_s: float = math.nan


@dataclass(frozen=True)
class StepDone(Event):
    """An optimizer step was made. `losses` are the weighted terms by name, `counters` what the method counted.

    `total` is how many steps the run will have, which may be corrected on the way; 0 where `Started` has said it.
    """

    step: int
    losses: dict[str, float]
    counters: dict[str, float] = field(default_factory=dict)
    rate: float = math.nan
    eta_s: float = math.nan
    total: int = 0


@dataclass(frozen=True)
class Skipped(Event):
    """A batch gave nothing to learn from; no step was made."""

    step: int
    reason: str


REGION = "dice of "
"""What comes before the name of a region among the scores of a run."""


@dataclass(frozen=True)
class Validated(Event):
    """The predictor was scored on the validation tiles of this run.

    `scores` holds the mean Dice (`dice`), the threshold's own (`threshold_dice`), and that of each region under
    `REGION` and its name. `best`: it is the one that the run keeps from now on.
    """

    step: int
    scores: dict[str, float]
    best: bool = False


@dataclass(frozen=True)
class Fitted(Event):
    """The predictor was scored on labels that it learns from: Dice by the name of the region.

    That says how well it gives back what it was taught, and nothing of how good it is elsewhere. A few regions at a
    time; a low score is worth a look, since the labels there may contradict the others.
    """

    step: int
    scores: dict[str, float]


@dataclass(frozen=True)
class PreviewWritten(Event):
    """A confidence map lies on disk.

    `path` is a ``.npy`` file, uint8 (h, w) or (classes - 1, h, w), complete when this is said; it covers `box`
    (y0, x0, y1, x1; level-0 pixels) of the image with index `image`, at every `downsample`-th pixel.
    """

    step: int
    path: str
    image: int
    box: tuple[int, int, int, int]
    downsample: int


@dataclass(frozen=True)
class PatchesCounted(Event):
    """Patches of the last map of image `image` by mean confidence and by mean entropy, in 20 equal bins of [0, 1]."""

    step: int
    image: int
    confidence: list[int]
    entropy: list[int]


@dataclass(frozen=True)
class LabelsRead(Event):
    """Annotations of a project were read into the running job.

    How many tiles it learns from, how many nuclei are in them, a hash of all, and one of each tile that was read.
    """

    tiles: int
    nuclei: int
    digest: str
    seen: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ImagesChanged(Event):
    """Images are no longer what a run that is to go on has learned from: the user decides, and so the job ends."""

    sources: list[str]


@dataclass(frozen=True)
class Saved(Event):
    """A checkpoint was written and verifies."""

    step: int
    path: str


@dataclass(frozen=True)
class Paused(Event):
    """The job holds at `step`."""

    step: int


@dataclass(frozen=True)
class Resumed(Event):
    """The job goes on at `step`."""

    step: int


@dataclass(frozen=True)
class Warned(Event):
    """Something the user should know, in one sentence; the job goes on."""

    message: str


@dataclass(frozen=True)
class Unanswered(Event):
    """What a job was asked while it runs cannot be answered, for a reason in one sentence; the job goes on.

    `asked` is the kind of the command ("ProposeNuclei", "SuggestTiles", "Inspect"), `path` the file that was asked for.
    """

    asked: str
    message: str
    path: str = ""


@dataclass(frozen=True)
class BlockDone(Event):
    """A block of image `image` was predicted and written: `box` is (y0, x0, y1, x1)."""

    image: int
    box: tuple[int, int, int, int]
    done: int
    total: int
    rate: float = math.nan
    eta_s: float = math.nan


@dataclass(frozen=True)
class Written(Event):
    """A result lies on disk, complete and verified: `what` is a format or a kind, `path` where."""

    what: str
    path: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Suggested(Event):
    """Tiles worth painting, best first: each with `image`, `box` and `reason`."""

    tiles: list[dict[str, Any]]


@dataclass(frozen=True)
class Finished(Event):
    """The job ended by its own hand. `stopped`: it was asked to; `canceled`: its result was discarded."""

    what: str
    result: str = ""
    stopped: bool = False
    canceled: bool = False
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Failed(Event):
    """The job ended with an error.

    `message` is one plain sentence. `wrong_input` tells a user's error (status 2) from a defect of ours (status 1),
    whose traceback is in `detail`.
    """

    message: str
    wrong_input: bool
    detail: str = ""


@dataclass(frozen=True)
class Command:
    """Something a job, or the process that runs jobs, is told."""


@dataclass(frozen=True)
class Run(Command):
    """Start a job.

    `verb` is ``train``, ``predict``, ``suggest``, ``split``, ``propose``, ``doubtful``, ``compare``, ``region``,
    ``export`` or ``inspect`` (`engine.serve.VERBS`); `args` are that verb's options. `aside`: beside the job that runs;
    only what is small and writes nothing that a user keeps.
    """

    verb: str
    args: dict[str, Any]
    job: str
    aside: bool = False


@dataclass(frozen=True)
class Describe(Command):
    """Ask for `Described`."""


@dataclass(frozen=True)
class Pause(Command):
    """Hold after the current step or block, and say `Paused`."""


@dataclass(frozen=True)
class Resume(Command):
    """Go on."""


@dataclass(frozen=True)
class Stop(Command):
    """End, and keep the best so far."""


@dataclass(frozen=True)
class Cancel(Command):
    """End, and discard the result."""


@dataclass(frozen=True)
class LabelsChanged(Command):
    """Annotations have changed on disk: read them."""


@dataclass(frozen=True)
class Focus(Command):
    """The rectangle (y0, x0, y1, x1; level-0 pixels of image `image`) whose confidence is wanted first."""

    image: int
    box: tuple[int, int, int, int]


GROWN = 60
"""Steps from which a network that nothing judges is worth asking; one that is judged has to be better than the
threshold that needs no training."""


@dataclass(frozen=True)
class ProposeNuclei(Command):
    """Find the nuclei of a rectangle (as in `Focus`) with the network as it is now, or with the threshold until then.

    A training answers between two steps with `Written`, what="nuclei": the ``.npy`` file `path`, uint32 (h, w), with
    the fact `by`: "network", or "threshold" as long as the network is not worth asking (`GROWN`).
    """

    image: int
    box: tuple[int, int, int, int]
    path: str


@dataclass(frozen=True)
class SuggestTiles(Command):
    """Find places for tiles of `side` pixels, by the doubt of the network as it is now (`GROWN`).

    In image `image`, or where that is None, in all images of the project. A training of a project answers between two
    steps with `Suggested`.
    """

    image: int | None
    side: int
    n: int


@dataclass(frozen=True)
class Inspect(Command):
    """Look inside the method as it is now, over a rectangle (as in `Focus`).

    A training answers between two steps with `Written`, what="look": a file for `io.diagnostics.read_look`, whose
    facts name `show`, `step` and `image`. `show` is one of the ideas that `describe` lists.
    """

    show: str
    image: int
    box: tuple[int, int, int, int]


def _subclasses(base: type[Any]) -> dict[str, type[Any]]:
    return {cls.__name__: cls for cls in base.__subclasses__()}


class _Codec:
    """One JSON object a line, its kind under `key`."""

    kinds: ClassVar[dict[str, dict[str, type[Any]]]] = {"event": _subclasses(Event), "command": _subclasses(Command)}
    longest: ClassVar[dict[str, int]] = {"event": MAX_EVENT, "command": MAX_COMMAND}

    @staticmethod
    def encode(record: Event | Command, job: str = "") -> str:
        key = "event" if isinstance(record, Event) else "command"
        body = {name: _plain(value) for name, value in vars(record).items()}
        head = {key: type(record).__name__} | ({"in_job": job} if job else {})
        return json.dumps(head | body, ensure_ascii=True, allow_nan=False, default=str)

    @classmethod
    def decode(cls, line: str, key: str) -> tuple[Any, str]:
        if len(line) > cls.longest[key]:
            raise InputError(f"A line longer than {cls.longest[key]} characters is not read as {_a(key)}.")
        try:
            body = json.loads(line)
            kind = cls.kinds[key][body.pop(key)]
            job = _restored("str", body.pop("in_job", ""))
            names = {f.name: f for f in dataclasses.fields(kind)}
            values = {name: _restored(names[name].type, value) for name, value in body.items()}
            return kind(**values), job
        except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
            raise InputError(f"This is not {_a(key)}: {line[:80]!r} ({error!r:.80}).") from None


def _a(key: str) -> str:
    return f"{'an' if key == 'event' else 'a'} {key}"


def _plain(value: Any) -> Any:
    """Return what JSON can hold: numbers of NumPy and torch become Python's, NaN and infinities None."""
    if getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _restored(annotation: Any, value: Any) -> Any:
    """Check a value against the type that its field declares, and undo what JSON did to it."""
    match annotation:
        case "float":
            return _number(value)
        case "int":
            return _whole(value)
        case "dict[str, float]":
            return {name: _number(item) for name, item in _only(dict, value).items()}
        case "dict[str, str]":
            return {name: _only(str, item) for name, item in _only(dict, value).items()}
        case "list[dict[str, Any]]":
            return [_only(dict, item) for item in _only(list, value)]
        case "list[str]":
            return [_only(str, item) for item in _only(list, value)]
        case "list[int]":
            return [_whole(item) for item in _only(list, value)]
        case "int | None":
            return None if value is None else _whole(value)
        case "tuple[int, int, int, int]":
            y0, x0, y1, x1 = _only(list, value)
            return _whole(y0), _whole(x0), _whole(y1), _whole(x1)
    return _only({"str": str, "bool": bool, "dict[str, Any]": dict}[annotation], value)


def _only(kind: type[Any], value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{value!r:.40} is no {kind.__name__}")
    return value


def _number(value: Any) -> float:
    if value is None:
        return math.nan
    return float(value if type(value) is float else _whole(value))


def _whole(value: Any) -> int:
    """Whole numbers have 64 bits at most: what shows them has no more."""
    if not -(2**63) <= _only(int, value) < 2**63:
        raise ValueError("a whole number beyond 64 bits")
    return int(value)


def encode(record: Event | Command, job: str = "") -> str:
    """Write a record as one line of JSON, without the line's end. NaN and infinities become null.

    Parameters
    ----------
    record : Event or Command
    job : str
        The job that an event belongs to, if any.
    """
    return _Codec.encode(record, job)


def decode_event(line: str) -> tuple[Event, str]:
    """Read an event and the job it belongs to ("" if none).

    Raises
    ------
    InputError
        If the line is not an event: no JSON, an unknown kind, a missing or surplus field, a wrong type, too long.
    """
    event, job = _Codec.decode(line, "event")
    return event, job


def decode_command(line: str) -> Command:
    """Read a command.

    Raises
    ------
    InputError
        If the line is not a command.
    """
    command, _ = _Codec.decode(line, "command")
    assert isinstance(command, Command)
    return command


class Lines:
    r"""Cuts a stream of bytes into lines, however the bytes arrive, in bounded memory.

    A line that is too long is cut off just beyond `longest` characters, so that the decoder refuses it; the rest of it
    is passed over.

    Parameters
    ----------
    longest : int
        `MAX_EVENT` or `MAX_COMMAND`.

    Examples
    --------
    >>> lines = Lines(MAX_EVENT)
    >>> list(lines.feed(b'{"event": '))
    []
    >>> list(lines.feed(b'1}\n{'))
    ['{"event": 1}']
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._part = bytearray()

    def feed(self, chunk: bytes) -> Iterator[str]:
        """Take the next bytes, and yield the lines that they complete, without their ends and without empty ones."""
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            self._append(piece)
            line = self._part.decode("utf-8", "replace").strip()
            self._part.clear()
            if line:
                yield line
        self._append(rest)

    def _append(self, piece: bytes) -> None:
        self._part += piece[: self._longest + 1 - len(self._part)]
