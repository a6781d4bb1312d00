"""What labels are worth on the image that they lie in, and on others: Dice per image for each count of them.

As how many pixels labels count changes the answer of `stain_guided` and not its training, so one run shows every
choice. Its two networks are asked about images of `train` and `val`: all that have labels, whose labeled cells count
nowhere, all of `val`, and one in two of the others. No test part is read.

    napari-semiseg train DATA/monuseg --labeled benchmarks/splits/monuseg-1x8-0.txt --validation 0 --steps 600 --out RUN
    python benchmarks/homes.py RUN DATA/monuseg
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from rescore import TODAY, labeled_pixels
from scoring import SIDE
from two_opinions import logits_of, unseen

from napari_semiseg import metrics
from napari_semiseg.blocks import Box
from napari_semiseg.engine.learning_data import read_split
from napari_semiseg.engine.predictor import load_predictor
from napari_semiseg.io.find_images import find_images
from napari_semiseg.io.images import open_image
from napari_semiseg.io.labels import read_labels
from napari_semiseg.io.locate import stem
from napari_semiseg.methods.stain_guided import stain_share
from napari_semiseg.nn.neighborhood import Neighborhood
from napari_semiseg.nn.two_opinions import TwoOpinions

CELLS = (0.5, 1, 2, 3, 5, 8, 16, 48)
"""As how many labeled cells of 250 x 250 pixels the labels are to count."""


def scores(network: TwoOpinions, path: Path, labels: Path, seen: set[str]) -> list[float]:
    """Return the Dice of an image: the stain alone, then for each of `CELLS`, then the labels alone."""
    image = open_image(path)
    truth = read_labels(labels, expect_shape=image.shape) > 0
    new = unseen(stem(path), image.shape, seen)
    maps = logits_of(network, image, image.read(Box.whole(image.shape)))
    first, second = (torch.from_numpy(one)[None, None] for one in maps)
    answers = [second]
    for count in CELLS:
        network.share.fill_(stain_share(count * SIDE**2, TODAY.stain_worth))
        answers.append(network.weighed(first, second))
    found = [(answer[0, 0].numpy() > TODAY.caution)[new] for answer in (*answers, first)]
    return [metrics.dice(metrics.confusion(nuclei, truth[new])) for nuclei in found]


def table(run: Path, dataset: Path, most: int | None = None) -> str:
    """Return a row for images with labels and one for others, of which the first `most` are looked at."""
    seen = set(json.loads((run / "run.json").read_text(encoding="utf-8"))["facts"]["labeled"])
    network = load_predictor(run, torch.device("cpu")).network
    if not isinstance(network, TwoOpinions):
        raise SystemExit(f"{run} is no run of stain_guided.")
    network.neighborhood = Neighborhood(1)
    paths = {stem(path): path for path in find_images([dataset / "images"])}
    train, val = (read_split(dataset, None, part) for part in ("train", "val"))
    told = labeled_pixels(run, dataset)
    groups = {
        "with labels": [name for name in told if unseen(name, open_image(paths[name]).shape, seen).any()],
        "others": [*val, *[name for name in train if name not in told][::2]],
    }
    lines = [
        "| images | how many | stain alone | " + " | ".join(map(str, CELLS)) + " | labels alone |",
        "|---|---|" + "---|" * (len(CELLS) + 2),
    ]
    for words, names in groups.items():
        if names := names[:most]:
            every = [scores(network, paths[name], dataset / "labels" / f"{name}.tif", seen) for name in names]
            row = " | ".join(f"{dice:.3f}" for dice in np.mean(every, axis=0))
            lines.append(f"| {words} | {len(names)} | {row} |")
    return "\n".join([f"{run.name}: {len(seen)} cells of {len(told)} images", "", *lines, ""])


def main() -> None:
    """Print the table of a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run of `stain_guided` with labels of some images")
    parser.add_argument("dataset", type=Path)
    args = parser.parse_args()
    print(table(args.run, args.dataset))


if __name__ == "__main__":
    main()
