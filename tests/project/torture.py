"""Kill a program that paints, again and again, and look what is left.

    python torture.py kills FOLDER --count 20 --seed 0
    python torture.py steps FOLDER

`kills` paints in several projects at once as the dock does (a stroke every 20 ms, the layer handed over once a
second), kills each painter with SIGKILL at a random moment, opens the project, and compares it with what had been
painted: it must be exactly what lay there after some stroke, and that stroke may be no older than two seconds.

`steps` kills a painter at its first, second, third, … call of the system while it opens a project, saves strokes, makes
snapshots and closes, until it gets through. It does not flush, which takes long and which a kill does not need.

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
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from napari_semiseg.blocks import Box
from napari_semiseg.project.folder import ProjectFolder
from napari_semiseg.project.journal import WriterOptions
from napari_semiseg.project.tile_annotation import TileAnnotation

SHAPE = (64, 64)
AT_ONCE = 10
EVERY_S, HANDED_OVER_EVERY_S = 0.02, 1.0
_NOTE = struct.Struct("<Id")


def paint(annotation: TileAnnotation, number: int, seed: int) -> Box:
    """Paint stroke `number` of a painter, and return where: always the same for the same seed."""
    draw = random.Random(f"{seed} {number}")
    y, x = draw.randrange(SHAPE[0] - 8), draw.randrange(SHAPE[1] - 8)
    box = Box(y, x, y + draw.randint(1, 8), x + draw.randint(1, 8))
    annotation.instance[box.slices] = number
    annotation.classes[box.slices] = 1 + number % 200
    return box


def after(strokes: int, seed: int) -> TileAnnotation:
    """Return what lies there after so many strokes."""
    annotation = TileAnnotation.empty(SHAPE)
    for number in range(1, strokes + 1):
        paint(annotation, number, seed)
    return annotation


def create(path: Path) -> None:
    with ProjectFolder.create(path) as project:
        project.add_image(path / "image.tif", shape=SHAPE)
        project.add_tile(0, Box.whole(SHAPE))


# ---- kills at random moments ----


def paint_until_killed(path: Path, seed: int, first: int, notes: int) -> None:
    """Paint on, and note each stroke with its time: what the user saw on the screen."""
    with ProjectFolder.open(path) as project:
        project.start_journal(WriterOptions(compact_strokes=1, idle_s=0.1))
        annotation = after(first, seed)
        handed_over = time.monotonic()
        for number in range(first + 1, 10**6):
            paint(annotation, number, seed)
            now = time.monotonic()
            os.write(notes, _NOTE.pack(number, now))
            if now - handed_over >= HANDED_OVER_EVERY_S:
                handed_over = now
                project.autosave.submit("t0001", instance=annotation.instance.copy(), classes=annotation.classes.copy())
            time.sleep(EVERY_S)


@dataclass
class Painter:
    path: Path
    seed: int
    strokes: int = 0
    pid: int = 0
    notes: int = 0
    dies_at: float = 0.0

    def start(self, lives_s: float) -> None:
        reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reader)
            try:
                paint_until_killed(self.path, self.seed, self.strokes, writer)
            finally:
                os._exit(1)
        os.close(writer)
        self.notes = reader
        self.dies_at = time.monotonic() + lives_s

    def kill(self) -> dict[str, object]:
        at = time.monotonic()
        os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        data = b"".join(iter(lambda: os.read(self.notes, 1 << 16), b""))
        os.close(self.notes)
        painted = list(_NOTE.iter_unpack(data[: len(data) // _NOTE.size * _NOTE.size]))
        with ProjectFolder.open(self.path) as project:
            found = project.annotation("t0001")
            damaged = list(project.recovery.damaged)
        kept = int(found.instance.max())
        lost = [time_ for number, time_ in painted if number > kept]
        report: dict[str, object] = {
            "killed": os.WIFSIGNALED(status),
            "painted": len(painted),
            "lost": len(lost),
            "oldest_lost_s": round(max((at - time_ for time_ in lost), default=0.0), 3),
            "exact": found.equals(after(kept, self.seed)) and kept >= self.strokes,
            "damaged": damaged,
        }
        self.strokes = kept
        return report


def kills(folder: Path, count: int, seed: int) -> Iterator[dict[str, object]]:
    draw = random.Random(seed)
    painters = [Painter(folder / f"{number}.semiseg", seed * 1000 + number) for number in range(min(AT_ONCE, count))]
    for painter in painters:
        create(painter.path)
    left = count
    painting: list[Painter] = []
    while left or painting:
        for painter in painters:
            if left and painter not in painting:
                painter.start(draw.uniform(0.1, 4.0))
                painting.append(painter)
                left -= 1
        painting.sort(key=lambda painter: painter.dies_at)
        time.sleep(max(0.0, painting[0].dies_at - time.monotonic()))
        yield painting.pop(0).kill()


# ---- a kill at each call of the system ----


def die_at_call(number: int) -> None:
    """Let this process kill itself at its `number`-th call that changes a disk, before or in the middle of it."""
    calls = [0]

    def dying(name: str) -> None:
        real = getattr(os, name)

        def call(*args: object, **keywords: object) -> object:
            calls[0] += 1
            if calls[0] == number:
                if name == "write":
                    real(args[0], memoryview(args[1])[: len(args[1]) // 2])  # type: ignore[arg-type]
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **keywords)

        setattr(os, name, call)

    for name in ("open", "write", "fsync", "replace", "rename", "unlink", "link", "mkdir"):
        dying(name)


def save_in_steps(path: Path, notes: int, seed: int) -> None:
    """Save five strokes, with snapshots between them, and note each that was said to be saved."""
    project = ProjectFolder.open(path)
    journal = project.journal
    annotation = TileAnnotation.empty(SHAPE)
    for number in range(1, 6):
        box = paint(annotation, number, seed)
        journal.record_stroke(
            "t0001",
            [("instance", box, annotation.instance[box.slices]), ("class", box, annotation.classes[box.slices])],
        )
        if journal.flush():
            os.writev(notes, [_NOTE.pack(number, 0.0)])  # not `write`, which is counted
        if number % 2 == 0:
            journal.compact("t0001")
    project.close()


def steps(folder: Path, seed: int) -> Iterator[dict[str, object]]:
    os.fsync = lambda descriptor: None
    create(folder / "new.semiseg")
    for number in range(1, 10**4):
        path = folder / f"{number}.semiseg"
        shutil.copytree(folder / "new.semiseg", path)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            die_at_call(number)
            try:
                save_in_steps(path, writer, seed)
                os._exit(0)
            finally:
                os._exit(1)
        os.close(writer)
        _, status = os.waitpid(pid, 0)
        said = os.read(reader, 1 << 16)
        os.close(reader)
        with ProjectFolder.open(path) as project:
            found = project.annotation("t0001")
            damaged = list(project.recovery.damaged)
        kept = int(found.instance.max())
        with ProjectFolder.open(path) as project:
            again = project.annotation("t0001")
        yield {
            "killed": os.WIFSIGNALED(status),
            "status": status,
            "said": len(said) // _NOTE.size,
            "kept": kept,
            "exact": found.equals(after(kept, seed)) and again.equals(found),
            "damaged": damaged,
            "leftovers": [path.name for path in path.rglob(".semiseg-*")],
        }
        if not os.WIFSIGNALED(status):
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=["kills", "steps"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    reports = kills(given.folder, given.count, given.seed) if given.mode == "kills" else steps(given.folder, given.seed)
    for report in reports:
        sys.stdout.write(json.dumps(report) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
