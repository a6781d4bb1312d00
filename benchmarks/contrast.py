"""What contrast does to a run of `stain_guided` with labels: Dice and AJI per image over its amount and neighborhood.

It changes the answer and not the training, so one run shows every choice. The two networks are asked about each image
of some parts of a data set; cells that the run learned from count nowhere. No test part is read.

    python benchmarks/contrast.py RUN DATA/monuseg --parts val
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from two_opinions import SIDE, logits_of

from napari_semiseg import metrics
from napari_semiseg.blocks import Box, cells
from napari_semiseg.engine.learning_data import read_split
from napari_semiseg.engine.predictor import load_predictor
from napari_semiseg.io.find_images import find_images
from napari_semiseg.io.images import open_image
from napari_semiseg.io.labels import read_labels
from napari_semiseg.io.locate import stem
from napari_semiseg.nn import local_contrast
from napari_semiseg.nn.local_contrast import LocalContrast
from napari_semiseg.nn.two_opinions import TwoOpinions
from napari_semiseg.postprocess.instances import split_nuclei

NEIGHBORHOODS = (4.0, 8.0, 12.0)
AMOUNTS = (0.25, 0.5)
CAUTIONS = (0.0, 0.25, 0.5, 0.75)


def score(logit: NDArray[np.floating], truth: NDArray[np.uint32], counts: NDArray[np.bool_]) -> tuple[float, float]:
    """Return Dice and AJI of a map, where it counts."""
    confidence = 1 / (1 + np.exp(-logit))
    nuclei = split_nuclei(confidence) * counts
    dice = metrics.dice(metrics.confusion((confidence > 0.5)[counts], truth[counts] > 0))
    return dice, metrics.compare(nuclei, truth * counts).aji


def sharpened(logit: NDArray[np.float32], amount: float, neighborhood: float) -> NDArray[np.float32]:
    """Return a map with contrast."""
    with patch.object(local_contrast, "NEIGHBORHOOD", neighborhood):
        contrast = LocalContrast(amount, 1)
    values: Tensor = contrast(torch.from_numpy(logit)[None, None])
    return values[0, 0].numpy()


def main() -> None:
    """Print a table: a row for each amount and neighborhood, a column for each caution."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run of `stain_guided` with labels")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--splits", type=Path)
    parser.add_argument("--parts", nargs="+", choices=("train", "val"), default=("val",))
    args = parser.parse_args()
    seen = set(json.loads((args.run / "run.json").read_text(encoding="utf-8"))["facts"]["labeled"])
    network = load_predictor(args.run, torch.device("cpu")).network
    if not isinstance(network, TwoOpinions):
        parser.error(f"{args.run} is no run of stain_guided.")
    share = float(network.share)
    paths = {stem(path): path for path in find_images([args.dataset / "images"])}
    names = [name for part in args.parts for name in read_split(args.dataset, args.splits, part)]
    choices = [(0.0, 1.0), *((amount, side) for amount in AMOUNTS for side in NEIGHBORHOODS)]
    found = np.zeros((len(names), len(choices), len(CAUTIONS), 2))
    for place, name in enumerate(names):
        image = open_image(paths[name])
        truth = read_labels(args.dataset / "labels" / f"{name}.tif", expect_shape=image.shape)
        counts = np.ones(image.shape, bool)
        for number, cell in enumerate(cells(image.shape, SIDE)):
            counts[cell.slices] = f"{name}#{number}" not in seen
        labels, stain = logits_of(network, image, image.read(Box.whole(image.shape)))
        for row, (amount, side) in enumerate(choices):
            mean = (1 - share) * sharpened(labels, amount, side) + share * stain
            found[place, row] = [score(mean - caution, truth, counts) for caution in CAUTIONS]
        print(f"{place + 1} of {len(names)} images", end="\r", flush=True)
    head = " | ".join(f"caution {caution:g}: Dice, AJI" for caution in CAUTIONS)
    print(
        f"{len(names)} images, share of the stain {share:.2f}\n\n| contrast | {head} |\n|"
        + "---|" * (len(CAUTIONS) + 1)
    )
    for (amount, side), row in zip(choices, found.mean(0), strict=True):
        words = f"{amount:g}, {side:g} px" if amount else "none"
        print(f"| {words} | " + " | ".join(f"{dice:.4f}, {aji:.3f}" for dice, aji in row) + " |")


if __name__ == "__main__":
    main()
