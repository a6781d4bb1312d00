"""Where the rule for ink finds some, and what an image with ink gains by it: the figures of `docs/decisions/ink.md`.

Of images without ink only their number is printed. Test parts are looked at for ink, not for scores: images in them
have no score printed. `--density` darkens every image, as if it were stained by so much more.

    python benchmarks/ink.py DATA/consep
    python benchmarks/ink.py DATA/monuseg --density 1.5
    python benchmarks/ink.py DATA/consep --dark 72 --least 25
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from stains import Mask, Pixels, dice, read

from napari_semiseg.engine.learning_data import read_split
from napari_semiseg.io.stains import separated
from napari_semiseg.postprocess import ink
from napari_semiseg.postprocess.proposal import propose
from napari_semiseg.postprocess.stain_guide import find_guide
from napari_semiseg.postprocess.threshold import find_stain, hematoxylin_threshold

PARTS = ("train", "val", "test")


def darker(image: Pixels, density: float) -> Pixels:
    """Return an image whose optical density is so many times what it was."""
    return np.rint(255 * (image / 255.0) ** density).astype(np.uint8)


def told(image: Pixels, truth: Mask, found: Mask) -> str:
    """Say how much ink there is, and how much hematoxylin is in it, in nuclei and elsewhere."""
    amount: NDArray[np.float64] = separated(image)[..., 0]
    means = ", ".join(f"{amount[where].mean():.3f}" for where in (found, truth, ~found & ~truth) if where.any())
    return f"{100 * found.mean():.2f} % ink, {(found & truth).sum()} pixels of nuclei in it; hematoxylin {means}"


def scores(image: Pixels, truth: Mask) -> str:
    """Return the Dice of the hematoxylin threshold, of what is proposed, and of what is learned from."""
    guide = find_guide([image], image, gray=False).beyond(image) > 0
    found = (dice(mask, truth) for mask in (hematoxylin_threshold(image), propose(image)[0], guide))
    return "threshold {:.3f}, proposal {:.3f}, guide {:.3f}".format(*found)


def main() -> None:
    """Print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--dark", type=int, default=ink.DARK)
    parser.add_argument("--least", type=int, default=ink.LEAST)
    parser.add_argument("--density", type=float, default=1.0)
    options = parser.parse_args()
    seen = 0
    for part in PARTS:
        for name in read_split(options.dataset, None, part):
            ((image, truth),) = read(options.dataset, [name])
            if find_stain(image) != "hematoxylin":
                continue
            seen += 1
            image = darker(image, options.density)
            ink.DARK, ink.LEAST = options.dark, options.least
            found = ink.find_ink(image)
            if not found.any():
                continue
            print(f"{part} {name}: {told(image, truth, found)}")
            if part != "test":
                print(f"  with the rule: {scores(image, truth)}")
                ink.DARK = 0
                print(f"  without it: {scores(image, truth)}", flush=True)
    print(f"{seen} stained images looked at")


if __name__ == "__main__":
    main()
