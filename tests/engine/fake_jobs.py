"""A child process with jobs that need no training: run as ``python fake_jobs.py [OPTION=VALUE…]``."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from napari_semiseg.engine.control import Control
from napari_semiseg.engine.serve import Job, Verb, serve
from napari_semiseg.errors import InputError
from napari_semiseg.events import (
    Cancel,
    Event,
    Finished,
    Focus,
    LabelsChanged,
    LabelsRead,
    Pause,
    Paused,
    PreviewWritten,
    Progressed,
    Resume,
    Resumed,
    Saved,
    Started,
    StepDone,
    Stop,
    Validated,
    Written,
)


def count(args: dict[str, Any], control: Control) -> Iterator[Event]:
    """Count `steps` steps of `seconds`, and answer every command, as a training does."""
    run = args.get("run", "")
    yield Started("train", run, args["steps"])
    for step in range(args["steps"]):
        for command in control.take():
            match command:
                case Stop() | Cancel():
                    canceled = isinstance(command, Cancel)
                    if run:
                        Path(run, "checkpoint").write_text(str(step))
                    yield Saved(step, run)
                    yield Finished("train", run, stopped=True, canceled=canceled)
                    return
                case Pause():
                    yield Paused(step)
                    while not isinstance(command, Resume | Stop):
                        command = control.wait()
                    if isinstance(command, Stop):
                        yield Finished("train", run, stopped=True)
                        return
                    yield Resumed(step)
                case LabelsChanged():
                    yield LabelsRead(1, 2, "abc")
                case Focus(image, box):
                    yield PreviewWritten(step, "preview.npy", image, box, 1)
        time.sleep(args.get("seconds", 0.01))
        yield StepDone(step, {"sup": 1 / (step + 1)})
    yield Validated(args["steps"], {"dice": 0.5}, best=True)
    yield Finished("train", run)


def deaf(args: dict[str, Any], control: Control) -> Iterator[Event]:
    """Never look at a command."""
    yield Started("train", args.get("run", ""))
    time.sleep(args.get("seconds", 60))
    yield Finished("train")


def gripping(args: dict[str, Any], control: Control) -> Iterator[Event]:
    """Hold the interpreter's lock for some seconds, as one long call into C may."""
    yield Started("train")
    time.sleep(0.2)
    ctypes.PyDLL(None).usleep(int(1e6 * args["seconds"]))
    yield Finished("train")


def flood(args: dict[str, Any], control: Control) -> Iterator[Event]:
    """Say `count` steps and results as fast as can be."""
    for number in range(args["count"]):
        yield StepDone(number, {"sup": 0.1})
        if number % (args["count"] // 10) == 0:
            yield Saved(number, "x")
    yield Finished("flood", facts={"count": args["count"]})


def noisy(args: dict[str, Any], control: Control) -> Iterator[Event]:
    """Print wherever a library might, and speak of a file whose name no code page has."""
    print("plain print é µ 日本")  # noqa: T201
    os.write(1, b"raw write\n")
    os.system("echo from a child of the child")
    sys.stderr.write("to stderr\n")
    warnings.warn("a library's warning", UserWarning, stacklevel=1)
    yield Written("csv", "/tmp/ergebnis é 日本 \udcff.csv", {"dice": 0.5})
    yield Finished("noisy")


def fail(args: dict[str, Any], control: Control) -> Iterator[Event]:
    """Raise."""
    yield Progressed("reading", 1, 2)
    match args["how"]:
        case "input":
            raise InputError("The image 'a.tif' has two channels: choose one with a.tif[c=1].")
        case "defect":
            raise ZeroDivisionError("division by zero\nsecond line")
        case "exit":
            sys.exit(7)
        case "cuda":
            raise RuntimeError("CUDA error: unspecified launch failure")
        case "unspeakable":
            endless: dict[str, Any] = {}
            endless["more"] = endless
            yield Written("csv", "x", endless)


def die(args: dict[str, Any], control: Control) -> Iterator[Event]:
    """End the process from within, as a driver that crashes does."""
    yield Started("train", args.get("run", ""))
    time.sleep(0.1)
    signal.raise_signal(getattr(signal, args.get("signal", "SIGSEGV")))
    time.sleep(10)
    yield Finished("train")


def quick(args: dict[str, Any], control: Control) -> Iterator[Event]:
    """Answer at once."""
    yield Written("nuclei", "labels.npy", {"args": args})


def with_torch(args: dict[str, Any], control: Control) -> Iterator[Event]:
    """Do nothing, once torch is there."""
    yield Finished("with_torch")


def threads(args: dict[str, Any], control: Control) -> Iterator[Event]:
    """Say what this process has open."""
    import psutil

    process = psutil.Process()
    yield Finished("threads", facts={"threads": process.num_threads(), "files": process.num_fds()})


def environment(args: dict[str, Any], control: Control) -> Iterator[Event]:
    """Say how this process was started."""
    facts = {
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "omp": os.environ.get("OMP_NUM_THREADS"),
        "modules": sorted(name for name in ("torch", "qtpy", "napari", "PyQt6") if name in sys.modules),
        "group": os.getpgid(0) == os.getpid(),
        "session": os.getsid(0),
        "idle": hasattr(os, "SCHED_IDLE") and os.sched_getscheduler(0) == os.SCHED_IDLE,
    }
    yield Finished("environment", facts=facts)


VERBS: dict[str, Job | Verb] = {
    verb.__name__: verb for verb in (count, deaf, gripping, flood, noisy, fail, die, quick, threads, environment)
}
VERBS["with_torch"] = Verb("fake_jobs:with_torch")
VERBS |= {"region": quick, "doubtful": fail, "compare": count}  # what may be done beside a training


def main() -> None:
    options = dict(word.split("=", 1) for word in sys.argv[1:])
    prepared = float(options.get("prepare", 0))

    def prepare() -> None:
        time.sleep(prepared)
        if options.get("torch") == "broken":
            raise ImportError("libcudart.so.99: cannot open shared object file")
        if options.get("torch") == "segfault":
            signal.raise_signal(signal.SIGSEGV)

    serve(VERBS, prepare=prepare, describe=lambda: {"methods": []}, idle_s=float(options.get("idle", 300)))


if __name__ == "__main__":
    main()
