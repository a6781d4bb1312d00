"""What grows in the viewer while somebody paints: memory of the process, Python's objects, and with --trace its bytes.

Strokes come faster than in `tests/faults/soaking_napari.py`, each third taken back. After every 500 strokes a line is
printed: seconds, steps of the training, memory of the process in MB, objects that Python's collector knows; with
--trace also what Python has allocated since the tracing began (`tracemalloc`), and what is in use of C's heap
(`mallinfo2`, glibc alone).

    python benchmarks/what_grows.py --strokes 5000 --pause 0.01
    python benchmarks/what_grows.py --strokes 4000 --pause 0.06 --train
    python benchmarks/what_grows.py --strokes 2500 --pause 0.1 --train --trace
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import random
import tempfile
import time
import tracemalloc
from pathlib import Path

import psutil
from ui_latency import begin_training, prepare, wait

SIDE = 512
EVERY = 500
TRACED_FROM = 300
"""Strokes after which tracing begins: what is made once is there then."""


_HEAP = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")


class _Heap(ctypes.Structure):
    """What glibc's `mallinfo2` returns; `uordblks` are the bytes in use."""

    _fields_ = [(name, ctypes.c_size_t) for name in _HEAP]


def heap_mb() -> float:
    """Return how much of C's heap is in use, in MB."""
    mallinfo = ctypes.CDLL("libc.so.6").mallinfo2
    mallinfo.restype = _Heap
    return float(mallinfo().uordblks / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strokes", type=int, default=5000)
    parser.add_argument("--pause", type=float, default=0.01, help="seconds between two strokes")
    parser.add_argument("--train", action="store_true", help="beside a training")
    parser.add_argument("--trace", action="store_true", help="trace what Python allocates")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        viewer, dock = prepare(Path(folder), SIDE)
        layer = dock.tiles.layer(dock.session.project.selected)
        if options.train:
            begin_training(dock)
        process, begun = psutil.Process(), time.monotonic()
        for stroke in range(1, options.strokes + 1):
            if stroke % 3:
                layer.paint((random.randrange(200), random.randrange(200)), random.randrange(9))
            else:
                layer.undo()
            due = time.monotonic() + options.pause
            wait(lambda due=due: time.monotonic() >= due, 60, "the pause")
            if options.trace and stroke == TRACED_FROM:
                tracemalloc.start(1)
            if stroke % EVERY == 0:
                gc.collect()
                said = [f"{stroke} strokes, {time.monotonic() - begun:.0f} s, step {dock.session.training.record.step}"]
                said += [f"{process.memory_info().rss / 2**20:.1f} MB, {len(gc.get_objects())} objects"]
                if options.trace:
                    said += [f"{tracemalloc.get_traced_memory()[0] / 2**20:.2f} MB traced, {heap_mb():.1f} MB of C"]
                print("; ".join(said), flush=True)
        viewer.close()


if __name__ == "__main__":
    main()
