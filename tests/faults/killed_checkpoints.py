"""Kill a process that saves checkpoints, at every call of the system and in the middle of its writes.

    python killed_checkpoints.py FOLDER --offsets 50 --seed 0

One line of JSON for each kill goes to stdout. It is a program of its own because it forks, which a process with threads
must not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
from pathlib import Path

import torch
from torch import nn

from napari_semiseg.engine.checkpoint import RunFolder, Snapshot, verifies

CALLS = ("open", "write", "fsync", "replace", "unlink")


def model(step: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a model whose every weight tells its step."""
    network = nn.Linear(40, 60)
    for parameter in network.parameters():
        parameter.data.fill_(float(step))
    return network, torch.optim.SGD(network.parameters(), lr=0.1)


def save(run: RunFolder, step: int) -> None:
    network, optimizer = model(step)
    run.save(network, [optimizer], Snapshot(step, {"best": step}))
    run.save_model(network, step, {"choices": {}, "threshold": 0.5})


def die_at(call: int, part: float) -> None:
    """Let this process kill itself at its `call`-th call of the system; a write is done up to `part`."""
    seen = [0]

    def dying(name: str) -> None:
        real = getattr(os, name)

        def call_it(*args: object, **keywords: object) -> object:
            seen[0] += 1
            if seen[0] == call:
                if name == "write":
                    data = memoryview(args[1])  # type: ignore[arg-type]
                    real(args[0], data[: int(part * len(data))])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **keywords)

        setattr(os, name, call_it)

    for name in CALLS:
        dying(name)


def try_once(start: Path, path: Path, call: int, part: float) -> dict[str, object]:
    """Save the third checkpoint, save it again as a pause does, then the fourth, and die meanwhile."""
    shutil.copytree(start, path)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            die_at(call, part)
            for step in (3, 3, 4):
                save(RunFolder(path), step)
                os.writev(writer, [bytes([step])])  # not `write`, which is counted
        finally:
            os._exit(0)
    os.close(writer)
    _, status = os.waitpid(pid, 0)
    said = os.read(reader, 9)
    os.close(reader)
    report = {"call": call, "killed": os.WIFSIGNALED(status), "said": max(said, default=2)}
    report |= found(RunFolder(path))
    shutil.rmtree(path)
    return report


def found(run: RunFolder) -> dict[str, object]:
    """Return what a resumed run, and a prediction, would go on with."""
    network, optimizer = model(-1)
    snapshot, passed_over = run.restore(network, [optimizer])
    named = run.checkpoints / f"{(run.checkpoints / 'LATEST').read_text()}.safetensors"
    tensors, card = run.read_model()
    return {
        "step": snapshot.step if snapshot else None,
        "exact": snapshot is not None and bool((network.weight == snapshot.step).all()),
        "passed over": len(passed_over),
        "LATEST verifies": verifies(named),
        "model": card["step"],
        "model exact": bool((tensors["weight"] == card["step"]).all()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--offsets", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    os.fsync = lambda descriptor: None  # a kill does not need it, and it takes long
    start = RunFolder(given.folder / "start")
    start.begin()
    save(start, 2)
    draw = random.Random(given.seed)
    calls = 0
    while True:
        report = try_once(start.path, given.folder / f"call-{calls}", calls + 1, 0.5)
        sys.stdout.write(json.dumps(report) + "\n")
        if not report["killed"]:
            break
        calls += 1
    for number in range(given.offsets):
        report = try_once(start.path, given.folder / f"offset-{number}", draw.randint(1, calls), draw.random())
        sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
