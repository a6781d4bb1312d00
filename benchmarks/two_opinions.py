"""How much the stain should count beside the labels, and how sure a pixel has to be: Dice over both, of a trained run.

Neither changes the training of `stain_guided`, so one run shows every choice. Its two networks are asked about each
image of some parts of a data set; cells that the run learned from count nowhere. No test part is read.

    python benchmarks/two_opinions.py RUN DATA/monuseg --splits benchmarks/splits/monuseg-unseen-organs.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scoring import SIDE

from napari_semiseg import metrics
from napari_semiseg.blocks import Box, cells
from napari_semiseg.engine.learning_data import read_split
from napari_semiseg.engine.predictor import load_predictor
from napari_semiseg.engine.typical import typical_of
from napari_semiseg.io.find_images import find_images
from napari_semiseg.io.images import Image, open_image
from napari_semiseg.io.labels import read_labels
from napari_semiseg.io.locate import stem
from napari_semiseg.nn.network import Network
from napari_semiseg.nn.stain_scale import StainScale
from napari_semiseg.nn.stain_unet import find_scale
from napari_semiseg.nn.two_opinions import TwoOpinions, nucleus_logit

SHARES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.35, 0.5, 0.65, 0.8, 1.0)
CAUTIONS = (-0.5, -0.25, 0.0, 0.25, 0.5, 0.75)
PARTS = ("train", "val")


def asked(
    network: TwoOpinions, dataset: Path, names: Sequence[str], seen: set[str]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]]:
    """Yield the logits of both networks and the truth, at the pixels of each image that the run did not learn from."""
    paths = {stem(path): path for path in find_images([dataset / "images"])}
    for name in names:
        image = open_image(paths[name])
        pixels = image.read(Box.whole(image.shape))
        truth = read_labels(dataset / "labels" / f"{name}.tif", expect_shape=image.shape) > 0
        first, second = logits_of(network, image, pixels)
        new = unseen(name, image.shape, seen)
        yield first[new], second[new], truth[new]


def unseen(name: str, shape: tuple[int, int], seen: set[str]) -> NDArray[np.bool_]:
    """Return which pixels of an image lie in no cell that a run learned from, (h, w)."""
    new = np.ones(shape, bool)
    for number, cell in enumerate(cells(shape, SIDE)):
        new[cell.slices] = f"{name}#{number}" not in seen
    return new


def logits_of(
    network: TwoOpinions, image: Image, pixels: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return what each of the two says of an image, (h, w), in logits."""
    scale = find_scale(*typical_of(image), gray=image.gray)
    first, second = (_logits(one, scale, pixels) for one in network.both)
    return first, second


def _logits(network: Network, scale: StainScale, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    height, width = pixels.shape[:2]
    padded = np.pad(pixels, ((0, -height % network.divisor), (0, -width % network.divisor), (0, 0)), mode="reflect")
    image = torch.from_numpy(padded).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        logit = nucleus_logit(network(torch.cat([image, scale.channel(image)], 1)))
    found: NDArray[np.float32] = logit[0, 0, :height, :width].numpy()
    return found


def scores(network: TwoOpinions, dataset: Path, names: Sequence[str], seen: set[str]) -> NDArray[np.float64]:
    """Return the mean Dice per image, (shares, cautions)."""
    found = []
    for first, second, truth in asked(network, dataset, names, seen):
        means = [(1 - share) * first + share * second for share in SHARES]
        found.append([[metrics.dice(metrics.confusion(mean > c, truth)) for c in CAUTIONS] for mean in means])
        print(f"{len(found)} of {len(names)} images", end="\r", flush=True)
    mean: NDArray[np.float64] = np.mean(found, axis=0)
    return mean


def table(words: str, found: NDArray[np.float64]) -> str:
    """Return a table in Markdown: a row for each share, a column for each caution; the highest is bold."""
    head = f"| {words} | " + " | ".join(f"caution {c:g}" for c in CAUTIONS) + " |"
    lines = [head, "|" + "---|" * (len(CAUTIONS) + 1)]
    for share, row in zip(SHARES, found, strict=True):
        values = [f"**{dice:.4f}**" if dice == found.max() else f"{dice:.4f}" for dice in row]
        lines.append(f"| share {share:g} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print a table for each part, and one for the mean of the parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run of `stain_guided`, with labels or without")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--splits", type=Path)
    args = parser.parse_args()
    seen = set(json.loads((args.run / "run.json").read_text())["facts"]["labeled"])
    network = load_predictor(args.run, torch.device("cpu")).network
    if not isinstance(network, TwoOpinions):
        parser.error(f"{args.run} is no run of stain_guided.")
    every = []
    for part in PARTS:
        names = read_split(args.dataset, args.splits, part)
        every.append(scores(network, args.dataset, names, seen))
        print(table(f"`{part}`, {len(names)} images", every[-1]) + "\n")
    print(table("mean of both parts", np.mean(every, axis=0)))


if __name__ == "__main__":
    main()
