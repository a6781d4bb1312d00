"""The process that runs jobs for the dock: commands come in on stdin, events go out on stdout, one JSON object a line.

It ends by itself when its stdin closes, even in the middle of a job, and when nobody has wanted anything for a while:
graphics memory is given back only when a process ends.
"""

from __future__ import annotations

import faulthandler
import importlib
import logging
import os
import platform
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from types import MappingProxyType
from typing import Any, NoReturn

import psutil

from napari_semiseg.engine.control import Control
from napari_semiseg.engine.courtesy import Courtesy
from napari_semiseg.engine.pipes import Outbox, claim_streams, read_commands, trim_log
from napari_semiseg.errors import InputError
from napari_semiseg.events import (
    ASIDE,
    RENEW_STATUS,
    Command,
    Describe,
    Described,
    Event,
    Failed,
    Finished,
    Heartbeat,
    Progressed,
    Ready,
    Run,
    Stop,
    Warned,
)

IDLE_S = 300.0
"""Seconds without job or command after which the process ends."""
HEARTBEAT_S = 1.0
GRACE_S = 1.6
"""Seconds that a running job has to end by its own hand once stdin has closed."""
_SHORT_S = 0.02
FIRST_WISH_S = 0.15
"""Seconds in which whoever starts the process may ask for something that needs no torch, and has it before torch is
loaded: both at once take longer than one after the other, and the user looks at the former."""

Job = Callable[[dict[str, Any], Control], Iterator[Event]]


@dataclass(frozen=True)
class Verb:
    """Where the job of a verb is found.

    Attributes
    ----------
    path : str
        ``module:function`` of a `Job`; imported when it is first wanted.
    needs_torch : bool
        Whether the job has to wait until torch has been loaded in the background.
    """

    path: str
    needs_torch: bool = True

    def load(self) -> Job:
        """Import the job."""
        module, _, name = self.path.partition(":")
        job: Job = getattr(importlib.import_module(module), name)
        return job


VERBS: Mapping[str, Verb] = MappingProxyType(
    {
        "train": Verb("napari_semiseg.engine.train:train_from_args"),
        "predict": Verb("napari_semiseg.engine.predict:predict_from_args"),
        "suggest": Verb("napari_semiseg.engine.suggest:suggest_from_args"),
        "split": Verb("napari_semiseg.engine.split:split_from_args", needs_torch=False),
        "propose": Verb("napari_semiseg.engine.propose:propose_from_args", needs_torch=False),
        "doubtful": Verb("napari_semiseg.engine.review:doubtful_from_args", needs_torch=False),
        "compare": Verb("napari_semiseg.engine.compare:compare_from_args", needs_torch=False),
        "region": Verb("napari_semiseg.engine.review:region_from_args", needs_torch=False),
        "export": Verb("napari_semiseg.engine.export:export_from_args"),
        "inspect": Verb("napari_semiseg.engine.inspect:inspect_from_args"),
    }
)


def load_torch() -> None:
    """Import what takes long: torch, and all that training is made of."""
    import torch  # noqa: F401

    import napari_semiseg.engine.train  # noqa: F401


def describe_all() -> dict[str, Any]:
    """Describe methods, networks, presets and devices; `load_torch` comes first."""
    from napari_semiseg.engine.describe import describe

    return describe()


def serve(
    verbs: Mapping[str, Verb | Job] = VERBS,
    *,
    prepare: Callable[[], None] = load_torch,
    describe: Callable[[], dict[str, Any]] = describe_all,
    idle_s: float = IDLE_S,
) -> NoReturn:
    """Run jobs until stdin closes or nobody wants any; then end the process.

    Exit status 0 is an end by its own hand, `events.RENEW_STATUS` asks for a new process at once.

    Parameters
    ----------
    verbs : mapping of str to Verb or callable
        The jobs by name. A callable needs no torch.
    prepare : callable
        Called in the background once the process is ready.
    describe : callable
        Called in the background after that; its result answers `Describe`.
    idle_s : float
        Seconds without job or command after which the process ends.
    """
    faulthandler.enable(file=2)
    commands, events = claim_streams()
    server = _Server(verbs, events, idle_s)
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: server.leave())
    server.outbox.say(Ready(os.getpid(), _versions()))
    _start("commands in", lambda: server.listen(commands))
    _start("heartbeat", server.beat)
    server.courtesy.begin()  # only now: the two threads above have to answer on a busy machine
    _start("preparation", lambda: server.prepare(prepare, describe))
    _start("small jobs", server.run_asides)
    status = server.run()
    server.outbox.close(timeout_s=0.3)
    logging.shutdown()
    sys.stderr.flush()
    # Not by way of the interpreter's own end: a thread may be deep inside the import of torch, or waiting for a driver.
    os._exit(status)


def _start(name: str, work: Callable[[], None]) -> None:
    threading.Thread(target=work, name=name, daemon=True).start()


class _Server:
    """What the threads share: the queue, the job that runs, and the way out."""

    def __init__(self, verbs: Mapping[str, Verb | Job], events: int, idle_s: float) -> None:
        self.outbox = Outbox(events, on_broken=self.leave)
        self.courtesy = Courtesy()
        self._verbs = verbs
        self._idle_s = idle_s
        self._wanted: queue.SimpleQueue[Run | None] = queue.SimpleQueue()
        self._asides: queue.SimpleQueue[Run] = queue.SimpleQueue()
        self._asides_open = 0
        self._lock = threading.RLock()  # a signal may come while the main thread holds it
        self._control: Control | None = None  # of the job that was accepted and is not over
        self._last_wish = time.monotonic()
        self._leaving = False
        self._no_light_job = threading.Event()
        self._no_light_job.set()
        self._prepared = threading.Event()
        self._no_torch = ""
        self._description: dict[str, Any] | None = None
        self._describe_asked = False

    # Threads other than the main one

    def listen(self, descriptor: int) -> None:
        """Answer commands until stdin closes."""
        try:
            for command in read_commands(descriptor):
                if isinstance(command, InputError):
                    self.outbox.say(Warned(str(command)))
                else:
                    self._last_wish = time.monotonic()
                    self._accept(command)
        finally:
            self.leave()

    def beat(self) -> None:
        """Say every second that the process is alive, and keep its log small."""
        process = psutil.Process()
        while True:
            self.outbox.say(Heartbeat(process.memory_info().rss))
            trim_log()
            self.courtesy.look()
            time.sleep(HEARTBEAT_S)

    def prepare(self, prepare: Callable[[], None], describe: Callable[[], dict[str, Any]]) -> None:
        """Load torch and find out what there is, while the process already listens."""
        time.sleep(FIRST_WISH_S)
        self._no_light_job.wait(timeout=self._idle_s)
        try:
            prepare()
        except Exception as error:
            traceback.print_exc()
            self._no_torch = (
                f"PyTorch could not be loaded ({_in_short(error)}): "
                "run `napari-semiseg doctor` in a terminal, which says how to mend it."
            )
            self.outbox.say(Failed(self._no_torch, wrong_input=False, detail=traceback.format_exc()))
            return
        finally:
            self._prepared.set()
        try:
            description = describe()
        except Exception as error:
            traceback.print_exc()
            message = f"Methods and devices could not be listed ({_in_short(error)}): the log has the details."
            self.outbox.say(Failed(message, wrong_input=False, detail=traceback.format_exc()))
            return
        with self._lock:  # also while saying it: the outline must not come after the whole
            self._description = {"complete": True, "verbs": list(self._verbs), **description}
            if self._describe_asked:
                self.outbox.say(Described(self._description))

    def run_asides(self) -> None:
        """Do small jobs beside the one that runs, one after the other."""
        while True:
            wanted = self._asides.get()
            last, _ = self._outcome(wanted, Control())
            with self._lock:
                self._asides_open -= 1
            self._last_wish = time.monotonic()
            self.outbox.say(last, wanted.job)

    def leave(self) -> None:
        """End soon: ask the job to stop and keep its best, and end without it if it does not."""
        with self._lock:
            if self._leaving:
                return
            self._leaving = True
            # This clock needs no interpreter lock: it also ends a job that holds on to it.
            faulthandler.dump_traceback_later(GRACE_S, exit=True, file=2)
            self.courtesy.end()
            if self._control:
                self._control.send(Stop())
        self._wanted.put(None)

    def _accept(self, command: Command) -> None:
        match command:
            case Run(aside=True):
                with self._lock:
                    self._asides_open += 1
                self._asides.put(command)
            case Run(job=job):
                with self._lock:
                    busy = self._control is not None
                    if not busy:
                        self._control = Control()
                        if not self._needs_torch(command.verb):
                            self._no_light_job.clear()
                if busy:
                    message = "Another job is still running: wait for its end or stop it, then start this one again."
                    self.outbox.say(Failed(message, wrong_input=True), job)
                else:
                    self._wanted.put(command)
            case Describe():
                with self._lock:
                    self._describe_asked = True
                    self.outbox.say(Described(self._description or self._outline()))
            case _:
                control = self._control
                if control:
                    control.send(command)

    def _outline(self) -> dict[str, Any]:
        return {"complete": False, "verbs": list(self._verbs), "versions": _versions()}

    # The main thread

    def run(self) -> int:
        """Run one job after the other; return the exit status."""
        while not self._leaving:
            left = self._last_wish + self._idle_s - time.monotonic()
            try:
                wanted = self._wanted.get(timeout=max(left, 0.01))
            except queue.Empty:
                if self._last_wish + self._idle_s <= time.monotonic():
                    return 0
                continue
            if wanted is None:
                break
            while self._asides_open and not self._leaving:  # they may read what this one is about to write
                time.sleep(_SHORT_S)
            fit = self._perform(wanted)
            self._last_wish = time.monotonic()
            if not fit:
                return RENEW_STATUS
        return 0

    def _perform(self, wanted: Run) -> bool:
        """Run a job to its end, and return whether this process can run another."""
        control = self._control
        assert control is not None
        last, fit = self._outcome(wanted, control)
        with self._lock:
            self._control = None
            self._no_light_job.set()
        self.outbox.say(last, wanted.job)
        return fit

    def _outcome(self, wanted: Run, control: Control) -> tuple[Event, bool]:
        """Run a job, and return what is to be said when it is really over, and whether this process can run another."""
        last: Event = Finished(wanted.verb)
        try:
            for event in self._job(wanted)(wanted.args, control):
                if isinstance(event, Finished | Failed):
                    last = event
                else:
                    self.outbox.say(event, wanted.job)
        except InputError as error:
            return Failed(str(error), wrong_input=True), True
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            return _failure(wanted.verb, error), not _is_lost(error)
        return last, True

    def _needs_torch(self, verb: str) -> bool:
        found = self._verbs.get(verb)
        return isinstance(found, Verb) and found.needs_torch

    def _job(self, wanted: Run) -> Job:
        verb = self._verbs.get(wanted.verb)
        if verb is None:
            raise InputError(f"There is no verb '{wanted.verb}': choose one of {', '.join(self._verbs)}.")
        if wanted.aside and wanted.verb not in ASIDE:
            raise InputError(f"'{wanted.verb}' is no small job that runs beside another: wait for the end of that one.")
        if not isinstance(verb, Verb):
            return verb
        if verb.needs_torch and not self._prepared.is_set():
            self.outbox.say(Progressed("loading PyTorch", 0, 1), wanted.job)
            self._prepared.wait()
        if verb.needs_torch and self._no_torch:
            raise InputError(self._no_torch)
        return verb.load()


def _failure(verb: str, error: BaseException) -> Failed:
    message = f"'{verb}' ended with an error ({_in_short(error)}): what was saved is intact, the log has the details."
    return Failed(message, wrong_input=False, detail=traceback.format_exc())


def _in_short(error: BaseException) -> str:
    """Return the kind of an error and the first line of what it says."""
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {line:.200}" if line else type(error).__name__


def _is_lost(error: BaseException) -> bool:
    """Whether the graphics driver has given this process up, so that only a new one can use it.

    Lack of memory is not meant: that says "CUDA out of memory", not "CUDA error".
    """
    return type(error).__name__ == "AcceleratorError" or "CUDA error" in str(error)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in ("napari-semiseg", "torch", "torchvision", "numpy", "scikit-image", "zarr"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions
