"""What labels are worth while their network is young: `homes.py` at some steps of a training, on the way.

The training pauses at each of the steps, and goes on once its networks were asked. No test part is read.

    python benchmarks/first_steps.py DATA/monuseg --labeled benchmarks/splits/monuseg-1x8-0.txt --out RUN
"""

from __future__ import annotations

import argparse
from pathlib import Path

import homes

from napari_semiseg.engine.control import Control
from napari_semiseg.engine.requests import TrainRequest
from napari_semiseg.engine.train import train
from napari_semiseg.events import Cancel, Pause, Paused, Resume, StepDone

PLANNED = 600
"""Steps of the training as it was begun: some three minutes."""


def main() -> None:
    """Train as far as the last of the steps, and print a table for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--labeled", required=True, help="a number of cells, or a file that lists them")
    parser.add_argument("--out", required=True, help="the run folder to make")
    parser.add_argument("--at", default="20,35,50,100", help="after how many steps, in ascending order")
    parser.add_argument("--images", type=int, help="look at the first so many images only, with labels and others")
    args = parser.parse_args()
    steps, control = [int(step) for step in args.at.split(",")], Control()
    asked = {"dataset": str(args.dataset), "labeled": args.labeled, "out": args.out, "device": "cpu"}
    request = TrainRequest(method="stain_guided", validation=0, steps=PLANNED, **asked)
    for event in train(request, control):
        match event:
            case StepDone(step) if step + 1 >= steps[0]:
                control.send(Pause())
            case Paused(step):
                steps.pop(0)
                print(f"After {step} steps, {homes.table(Path(args.out), args.dataset, args.images)}", flush=True)
                control.send(Resume() if steps else Cancel())


if __name__ == "__main__":
    main()
