"""Score runs of `stain_guided` again as it would answer today: how its two networks are weighed is no part of learning.

Rows of BENCH, whose labels were given by cells, that were scored with another share of the stain, caution or contrast
are written anew, as if they had been trained with the options of today; give the command of the benchmark once more for
its table.

    python benchmarks/rescore.py BENCH
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from scoring import SIDE, scores_of

from napari_semiseg import atomic
from napari_semiseg.blocks import cells
from napari_semiseg.engine.learning_data import read_split
from napari_semiseg.engine.predictor import Predictor, load_predictor
from napari_semiseg.engine.provenance import commit
from napari_semiseg.io.find_images import find_images
from napari_semiseg.io.images import open_image
from napari_semiseg.io.locate import stem
from napari_semiseg.methods.stain_guided import StainGuidedConfig, counted, stain_share
from napari_semiseg.nn.two_opinions import TwoOpinions

TODAY = StainGuidedConfig()
WEIGHED = ("stain_worth", "labels_at_home", "stain_around", "caution", "contrast")
"""Options that change the answer, and nothing that is learned."""


def reweighed(run: Path, device: torch.device, labeled_pixels: Mapping[str, int]) -> Predictor:
    """Load a run as if it had weighed its two networks as `stain_guided` does today on images without labels."""
    found = load_predictor(run, device)
    if not isinstance(found.network, TwoOpinions):
        raise SystemExit(f"{run} is no run of stain_guided.")
    pixels = counted(labeled_pixels, TODAY.stain_worth, TODAY.labels_at_home)
    found.network.share.fill_(stain_share(pixels, TODAY.stain_worth))
    found.network.caution.fill_(TODAY.caution)
    found.network.contrast, found.network.around = TODAY.contrast, TODAY.stain_around
    return found


def labeled_pixels(run: Path, dataset: Path) -> dict[str, int]:
    """Return how many pixels of each image a run had labels of."""
    labeled = json.loads((run / "run.json").read_text(encoding="utf-8"))["facts"]["labeled"]
    paths = {stem(path): path for path in find_images([dataset / "images"])}
    found: dict[str, int] = {}
    for name, number in (cell.rsplit("#", 1) for cell in labeled):
        area = cells(open_image(paths[name]).shape, SIDE)[int(number)].area
        found[name] = found.get(name, 0) + area
    return found


def rescored(row: dict[str, Any], run: Path, dataset: Path, splits: Path | None) -> dict[str, Any]:
    """Return a row with new scores."""
    pixels = labeled_pixels(run, dataset)
    stems = read_split(dataset, str(splits) if splits else None, row["scored_on"]["part"])
    begun = time.monotonic()
    device = torch.device("cpu")
    scored = scores_of(run, dataset, stems, device, reweighed(run, device, pixels))
    options = {**row["options"], "options": {**row["options"]["options"], **_weighed()}}
    found = {"scores": scored.values, "images": scored.images, "options": options, "commit": commit()}
    finished = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {**row, **found, "finished": finished, "seconds_scoring": round(time.monotonic() - begun, 1)}


def _weighed() -> dict[str, float]:
    return {name: getattr(TODAY, name) for name in WEIGHED}


def main() -> None:
    """Go through the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", type=Path, help="the folder of the benchmark")
    args = parser.parse_args()
    request = json.loads((args.bench / "results.json").read_text(encoding="utf-8"))["request"]
    splits = Path(request["splits"]) if request["splits"] else None
    for path in sorted((args.bench / "rows").glob("stain_guided-*.json")):
        row = json.loads(path.read_text(encoding="utf-8"))
        if _weighed().items() <= row["options"]["options"].items():
            continue
        scored_on = f"-{row['scored_on']['dataset']}-"
        run = args.bench / "runs" / path.stem[: path.stem.rindex(scored_on)]
        new = rescored(row, run, Path(request["dataset"]), splits)
        print(f"{path.stem}: {row['scores']['dice']:.4f} → {new['scores']['dice']:.4f}", flush=True)
        atomic.write_json(path, new)


if __name__ == "__main__":
    main()
