"""What looking from four sides gives: runs scored with one look at each pixel, and with the mean of quarter turns.

The images are those of one part of a data set, from which none of the runs may have learned. No test part is read
unless it is asked for. With ``--today`` the two networks of `stain_guided` are weighed as they are today, whatever the
run had.

    python benchmarks/turns.py DATA/monuseg RUN [RUN…] [--part val] [--splits FILE] [--today]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path

import torch
from rescore import labeled_pixels, reweighed
from scoring import scores_of

from napari_semiseg.engine.learning_data import read_split
from napari_semiseg.engine.predictor import Predictor, load_predictor
from napari_semiseg.errors import InputError
from napari_semiseg.io.locate import stem
from napari_semiseg.nn.turned import Sides, TurnAveraged

SIDES: tuple[Sides, ...] = (1, 4)
SCORES = ("dice", "aji")


def predictor(run: Path, turns: Sides, pixels: dict[str, int] | None) -> Predictor:
    """Load a run that looks at each block from so many sides; with its labeled pixels by image, weighed as today."""
    device = torch.device("cpu")
    if pixels is None:
        return load_predictor(run, device, turns)
    alone = reweighed(run, device, pixels)
    return alone if turns == 1 else dataclasses.replace(alone, network=TurnAveraged(alone.network, turns).eval())


def main() -> None:
    """Print a row for each run: the scores from one side, from four, and how many times as long the latter took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--part", default="val")
    parser.add_argument("--splits", help="a splits.json instead of the data set's own")
    parser.add_argument("--today", action="store_true", help="weigh the networks of stain_guided as they are today")
    args = parser.parse_args()
    stems = list(read_split(args.dataset, args.splits, args.part))
    print("| run | " + " | ".join(f"{name}, {turns} side(s)" for name in SCORES for turns in SIDES) + " | time |")
    print("|---|" + "--:|" * (len(SCORES) * len(SIDES) + 1))
    for run in args.runs:
        asked = json.loads((run / "run.json").read_text(encoding="utf-8"))
        if known := sorted({stem(Path(image)) for image in asked["images"]} & set(stems)):
            raise InputError(f"{run} has learned from {known[0]}: choose a part that it has not seen.")
        pixels = labeled_pixels(run, args.dataset) if args.today else None
        values, times = {}, []
        for turns in SIDES:
            begun = time.monotonic()
            model = predictor(run, turns, pixels)
            values[turns] = scores_of(run, args.dataset, stems, model.device, model).values
            times.append(time.monotonic() - begun)
        cells = [f"{values[turns][name]:.4f}" for name in SCORES for turns in SIDES]
        print(f"| {run.name} | {' | '.join(cells)} | {times[1] / times[0]:.1f} |", flush=True)


if __name__ == "__main__":
    main()
