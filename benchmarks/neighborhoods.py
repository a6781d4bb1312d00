"""How `stain_guided` should weigh its two networks near by and around: Dice and AJI per image of a run with labels.

It changes the answer and not the training, so one run shows every choice. The two networks are asked about each image
of some parts of a data set; cells that the run learned from count nowhere. No test part is read.

    python benchmarks/neighborhoods.py RUN DATA/monuseg --parts train val --every 3
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from rescore import TODAY, labeled_pixels
from torch import Tensor
from two_opinions import logits_of, unseen

from napari_semiseg import metrics
from napari_semiseg.blocks import Box
from napari_semiseg.engine.learning_data import read_split
from napari_semiseg.engine.predictor import load_predictor
from napari_semiseg.io.find_images import find_images
from napari_semiseg.io.images import open_image
from napari_semiseg.io.labels import read_labels
from napari_semiseg.io.locate import stem
from napari_semiseg.methods.stain_guided import counted, stain_share
from napari_semiseg.nn import neighborhood
from napari_semiseg.nn.neighborhood import Neighborhood
from napari_semiseg.nn.two_opinions import TwoOpinions
from napari_semiseg.postprocess.instances import split_nuclei

CHOICES = (
    (0.3, 1.0, 0.0, 16.0),
    (0.3, 1.0, 0.25, 16.0),
    (0.2, 1.0, 0.25, 16.0),
    (0.2, 4.0, 0.25, 16.0),
    (0.2, 9.0, 0.25, 16.0),
    (0.2, 16.0, 0.25, 16.0),
    (0.15, 9.0, 0.25, 16.0),
    (0.3, 9.0, 0.25, 16.0),
    (0.2, 9.0, 0.0, 16.0),
    (0.2, 9.0, 0.5, 16.0),
    (0.2, 9.0, 0.25, 8.0),
    (0.2, 9.0, 0.25, 24.0),
)
"""`stain_worth`, `stain_around`, `contrast`, and the neighborhood in pixels; the first is a plain mean of both."""


def score(logit: NDArray[np.floating], truth: NDArray[np.uint32], counts: NDArray[np.bool_]) -> tuple[float, float]:
    """Return Dice and AJI of a map, where it counts."""
    confidence = 1 / (1 + np.exp(-logit))
    nuclei = split_nuclei(confidence) * counts
    dice = metrics.dice(metrics.confusion((confidence > 0.5)[counts], truth[counts] > 0))
    return dice, metrics.compare(nuclei, truth * counts).aji


def weighed(
    network: TwoOpinions,
    labels: Tensor,
    stain: Tensor,
    pixels: Mapping[str, int],
    choice: tuple[float, float, float, float],
    *,
    image: str,
) -> NDArray[np.float32]:
    """Return the answer of both, as `TwoOpinions` gives it, (h, w), on an image."""
    worth, network.around, network.contrast, side = choice
    network.share.fill_(stain_share(counted(pixels, worth, TODAY.labels_at_home, image), worth))
    with patch.object(neighborhood, "NEIGHBORHOOD", side):
        network.neighborhood = Neighborhood(1)
    found: NDArray[np.float32] = network.weighed(labels, stain)[0, 0].numpy()
    return found


def main() -> None:
    """Print a table with a row for each choice."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run of `stain_guided` with labels")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--splits", type=Path)
    parser.add_argument("--parts", nargs="+", choices=("train", "val"), default=("val",))
    parser.add_argument("--every", type=int, default=1, help="look at one image in so many")
    args = parser.parse_args()
    seen = set(json.loads((args.run / "run.json").read_text(encoding="utf-8"))["facts"]["labeled"])
    network = load_predictor(args.run, torch.device("cpu")).network
    if not isinstance(network, TwoOpinions):
        parser.error(f"{args.run} is no run of stain_guided.")
    pixels = labeled_pixels(args.run, args.dataset)
    paths = {stem(path): path for path in find_images([args.dataset / "images"])}
    names = [name for part in args.parts for name in read_split(args.dataset, args.splits, part)][:: args.every]
    found = np.zeros((len(names), len(CHOICES), 2))
    for place, name in enumerate(names):
        image = open_image(paths[name])
        truth = read_labels(args.dataset / "labels" / f"{name}.tif", expect_shape=image.shape)
        counts = unseen(name, image.shape, seen)
        maps = logits_of(network, image, image.read(Box.whole(image.shape)))
        labels, stain = (torch.from_numpy(one)[None, None] for one in maps)
        for row, choice in enumerate(CHOICES):
            answer = weighed(network, labels, stain, pixels, choice, image=name) - TODAY.caution
            found[place, row] = score(answer, truth, counts)
        print(f"{place + 1} of {len(names)} images", end="\r", flush=True)
    print(f"{args.run.name}: {sum(pixels.values())} labeled pixels of {len(pixels)} images, {len(names)} images\n")
    print("| worth | around | contrast | neighborhood | Dice | AJI |\n|---|---|---|---|---|---|")
    for (worth, around, contrast, side), (dice, aji) in zip(CHOICES, found.mean(0), strict=True):
        print(f"| {worth:g} | {around:g} | {contrast:g} | {side:g} | {dice:.4f} | {aji:.4f} |")


if __name__ == "__main__":
    main()
