"""A process that computes rows of a benchmark on one device; its parent writes the report.

    python -m napari_semiseg.engine.benchmark_child REQUEST

REQUEST is a `BenchmarkRequest` as JSON. SIGTERM stops it after the step; what was trained can be gone on with.
"""

from __future__ import annotations

import json
import signal
import sys

from napari_semiseg.engine.benchmark import BenchmarkRequest, benchmark
from napari_semiseg.engine.control import Control
from napari_semiseg.events import Finished, Stop, Warned

STOPPED = 3


def main(text: str) -> int:
    """Compute rows until none is left, and return the exit status."""
    control = Control()
    signal.signal(signal.SIGTERM, lambda *_: control.send(Stop()))
    status = 0
    for event in benchmark(BenchmarkRequest.checked(json.loads(text), "the request"), control):
        if isinstance(event, Warned):
            sys.stderr.write(f"{event.message}\n")
        if isinstance(event, Finished) and event.what == "benchmark" and event.stopped:
            status = STOPPED
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
