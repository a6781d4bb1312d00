"""What nuclei stand out by, before any training: Dice of thresholds, and where hematoxylin and green light agree.

Makes the tables of `docs/decisions/one-dye.md`, and the one about the neighborhood in `choosing-the-method.md`. Parts
`train` and `val` unless others are named; whoever names `test` writes it into `docs/decisions/test-scores.md`.

    python benchmarks/stains.py DATA/dsb2018 --splits benchmarks/splits/dsb2018-stained.json
    python benchmarks/stains.py DATA/monuseg --splits benchmarks/splits/monuseg-unseen-organs.json --guide 40 20 15
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skimage.filters import gaussian, threshold_otsu

from napari_semiseg import metrics
from napari_semiseg.blocks import Box
from napari_semiseg.engine.learning_data import read_split
from napari_semiseg.io.find_images import find_images
from napari_semiseg.io.images import open_image
from napari_semiseg.io.labels import read_labels
from napari_semiseg.io.locate import stem
from napari_semiseg.io.stains import separated
from napari_semiseg.postprocess import stain_guide
from napari_semiseg.postprocess.proposal import propose
from napari_semiseg.postprocess.single_stain import AGREEMENT, agreement
from napari_semiseg.postprocess.threshold import SIGMA

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
ABSORBED = 5.0
"""Light that hematoxylin of density h lets through: exp(-5 h), with the densities that scikit-image gives."""
CUTS = (0.0, 0.2)
"""Where the guide is cut, in standard deviations of the density of the image."""

DENSITIES: dict[str, Callable[[Pixels], NDArray[np.float64]]] = {
    "hematoxylin, optical density": lambda image: separated(image)[..., 0],
    "hematoxylin, light absorbed": lambda image: 1 - np.exp(-ABSORBED * separated(image)[..., 0]),
    "red light absorbed, optical density": lambda image: -np.log((image[..., 0] + 1.0) / 256),
    "red light absorbed": lambda image: 255.0 - image[..., 0],
    "mean of the channels": lambda image: 255.0 - image.mean(axis=-1),
    "strongest channel": lambda image: 255.0 - image.max(axis=-1),
    "green light absorbed": lambda image: 255.0 - image[..., 1],
}


def read(dataset: Path, names: Sequence[str]) -> Iterator[tuple[Pixels, Mask]]:
    """Yield the pixels of each image and where its nuclei are."""
    paths = {stem(path): path for path in find_images([dataset / "images"])}
    for name in names:
        image = open_image(paths[name])
        truth = read_labels(dataset / "labels" / f"{name}.tif", expect_shape=image.shape) > 0
        yield image.read(Box.whole(image.shape)), truth


def dice(mask: Mask, truth: Mask) -> float:
    """Return the foreground Dice."""
    return metrics.dice(metrics.confusion(mask, truth))


def otsu(density: NDArray[np.float64]) -> Mask:
    """Cut a density by Otsu's threshold, smoothed as for a proposal."""
    smooth = gaussian(density, SIGMA, preserve_range=True)
    above: Mask = smooth > threshold_otsu(smooth)
    return above


def thresholds(images: Sequence[tuple[Pixels, Mask]]) -> dict[str, float]:
    """Return the mean Dice of Otsu's threshold on each density, and of what is proposed."""
    found = {
        words: float(np.mean([dice(otsu(density(image)), truth) for image, truth in images]))
        for words, density in DENSITIES.items()
    }
    return found | {"what is proposed": float(np.mean([dice(propose(image)[0], truth) for image, truth in images]))}


def guides(images: Sequence[tuple[Pixels, Mask]], nearby: float) -> list[float]:
    """Return the mean Dice of the guide that looks that many pixels around, for each cut."""
    stain_guide.NEARBY = nearby
    maps = [(stain_guide.find_guide([image], image, gray=False).beyond(image), truth) for image, truth in images]
    return [float(np.mean([dice(beyond > cut, truth) for beyond, truth in maps])) for cut in CUTS]


def main() -> None:
    """Print a table for each part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--splits")
    parser.add_argument("--parts", nargs="+", default=["train", "val"])
    parser.add_argument("--guide", nargs="+", type=float, metavar="PIXELS", help="only the guide, looking this far")
    args = parser.parse_args()
    for part in args.parts:
        images = list(read(args.dataset, read_split(args.dataset, args.splits, part)))
        print(f"\n`{part}`, {len(images)} images\n")
        if args.guide:
            print("| looks around | " + " | ".join(f"cut at {cut:g}" for cut in CUTS) + " |\n|" + "---|" * 3)
            for nearby in args.guide:
                print(f"| {nearby:g} | " + " | ".join(f"{value:.3f}" for value in guides(images, nearby)) + " |")
            continue
        print("| nuclei by | Dice per image |\n|---|---|")
        for words, value in thresholds(images).items():
            print(f"| {words} | {value:.3f} |")
        agree = np.array([agreement([image]) for image, _ in images])
        many = np.count_nonzero(agree >= AGREEMENT)
        print(f"\nHematoxylin and green light agree: {agree.min():.2f} to {agree.max():.2f}, median ", end="")
        print(f"{np.median(agree):.2f}; {AGREEMENT:g} and more in {many} of {len(images)}.")


if __name__ == "__main__":
    main()
