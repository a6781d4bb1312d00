"""Few labels and none on a labeled data set: methods beside the hematoxylin threshold and a random forest.

    python benchmarks/monuseg.py DATA --out RUNS --methods supervised cdcl csl --seeds 0 1 2 --minutes 10 --part test

DATA is a folder with ``images/``, ``labels/`` and ``splits.json``. Cells are cut from its part ``train`` as
``napari-semiseg train`` does it; every row sees the same cells for the same seed. What is broken off goes on where it
stopped: finished rows are read from RUNS. Scores: foreground Dice per image (mean) and pooled, two-class mIoU and
mDice pooled, AJI. The networks' maps are cut at 0.5.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from skimage.feature import multiscale_basic_features
from sklearn.ensemble import RandomForestClassifier

from napari_semiseg import metrics
from napari_semiseg.blocks import Box
from napari_semiseg.data.batch import IGNORE
from napari_semiseg.engine.infer import confidence_map
from napari_semiseg.engine.learning_data import read_split, read_training_data
from napari_semiseg.engine.predictor import load_predictor
from napari_semiseg.engine.requests import TrainRequest
from napari_semiseg.engine.train import train
from napari_semiseg.io.images import Image, open_image
from napari_semiseg.io.labels import read_labels
from napari_semiseg.postprocess.instances import split_nuclei
from napari_semiseg.postprocess.threshold import hematoxylin_threshold

Segment = Callable[[Image], np.ndarray]
"""Image → confidence, uint8 (h, w): nucleus from 128 on."""


def main() -> None:
    """Run what is missing, then write the table."""
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    rows = [_row("hematoxylin threshold", 0, options, _threshold)]
    if options.labeled != "0":
        rows += [
            _row("random forest", seed, options, lambda seed=seed: _forest(options, seed)) for seed in options.seeds
        ]
    for method in options.methods:
        for seed in options.seeds:
            rows.append(_row(method, seed, options, lambda method=method, seed=seed: _trained(method, options, seed)))
    table = _table(rows, options)
    print(table)
    if options.table:
        options.table.parent.mkdir(parents=True, exist_ok=True)
        options.table.write_text(table, encoding="utf-8")
        options.table.with_suffix(".json").write_text(json.dumps(rows, indent=1), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--methods", nargs="+", default=["supervised", "cdcl", "csl"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--steps", nargs="*", default=[], metavar="METHOD=N", help="steps in place of minutes")
    parser.add_argument("--labeled", default="15")
    parser.add_argument("--part", default="val", help="what is scored: val to choose, test once")
    parser.add_argument("--validation", type=float, default=0.0, help="share of the cells kept for choosing the step")
    parser.add_argument("--turns", type=int, default=1, choices=(1, 4, 8), help="sides a network looks from")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="options of train")
    parser.add_argument("--table", type=Path, help="where the table is written, .md; figures beside it as .json")
    return parser.parse_args()


def _row(name: str, seed: int, options: argparse.Namespace, make: Callable[[], tuple[Segment, dict]]) -> dict:
    """Return the row, from the file where it was finished before."""
    path = (
        options.out
        / f"{name.replace(' ', '-')}-{options.labeled.replace('/', '_')}-{seed}-{options.part}{_turned(options)}.json"
    )
    if path.exists():
        return json.loads(path.read_text())
    segment, facts = make()
    row = {"method": name, "seed": seed, **facts, **_scores(segment, options.data, options.part)}
    path.write_text(json.dumps(row))
    print(row, flush=True)
    return row


def _turned(options: argparse.Namespace) -> str:
    return "" if options.turns == 1 else f"-{options.turns}-turns"


def _threshold() -> tuple[Segment, dict]:
    return lambda image: hematoxylin_threshold(image.read(Box.whole(image.shape))).astype(np.uint8) * 255, {}


def _forest(options: argparse.Namespace, seed: int) -> tuple[Segment, dict]:
    """Train what ilastik does: a random forest on intensity, edges and texture at several scales."""
    begun = time.perf_counter()
    data = read_training_data(_request(options, seed, "forest", validation=0.0))
    features, targets = [], []
    for region in data.labeled:
        values = _features(data.images[region.image].read(region.box))
        known = region.label != IGNORE
        features.append(values[known])
        targets.append(region.label[known] > 0)
    kept = np.random.default_rng(seed).choice(sum(map(len, targets)), 100_000)
    forest = RandomForestClassifier(100, max_depth=20, n_jobs=-1, random_state=seed)
    forest.fit(np.concatenate(features)[kept], np.concatenate(targets)[kept])

    def segment(image: Image) -> np.ndarray:
        values = _features(image.read(Box.whole(image.shape)))
        probs = forest.predict_proba(values.reshape(-1, values.shape[-1]))[:, 1]
        return np.rint(255 * probs).astype(np.uint8).reshape(image.shape)

    return segment, {"seconds": round(time.perf_counter() - begun, 1)}


def _features(image: np.ndarray) -> np.ndarray:
    return multiscale_basic_features(image, channel_axis=-1, sigma_min=1, sigma_max=8)


def _trained(method: str, options: argparse.Namespace, seed: int) -> tuple[Segment, dict]:
    request = _request(options, seed, method)
    run = Path(request.out)
    if not _finished(run):
        if (run / "run.json").exists():
            request = request.model_copy(update={"resume": True})
        for _ in train(request):
            pass
    said = _said(run)
    seconds = sum(after["time"] - event["time"] for event, after in pairwise(said) if after["event"] != "Started")
    model = load_predictor(run, torch.device("cpu"), options.turns)
    skipped = sum(event["event"] == "Skipped" for event in said)

    def segment(image: Image) -> np.ndarray:
        return confidence_map(
            model.network,
            image,
            Box.whole(image.shape),
            device=model.device,
            divisor=model.divisor,
            reach=model.reach,
        )[0]

    return segment, {"seconds": round(seconds, 1), "skipped": skipped, **said[-1]["facts"]}


def _said(run: Path) -> list[dict]:
    """Return what a run has said, also before it was broken off."""
    path = run / "events.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _finished(run: Path) -> bool:
    said = _said(run)
    return bool(said) and said[-1]["event"] == "Finished"


def _request(options: argparse.Namespace, seed: int, method: str, **changes: object) -> TrainRequest:
    steps = dict(word.split("=") for word in options.steps).get(method)
    values: dict[str, object] = {
        "dataset": str(options.data),
        "out": str(options.out / f"run-{method}-{options.labeled.replace('/', '_')}-{seed}"),
        "method": "supervised" if method == "forest" else method,
        "labeled": options.labeled,
        "seed": seed,
        "preset": "standard",
        "validation": options.validation,
        "set": dict(word.split("=", 1) for word in options.set),
        **({"steps": int(steps)} if steps else {"minutes": options.minutes}),
        **changes,
    }
    return TrainRequest.model_validate(values)


def _scores(segment: Segment, data: Path, part: str) -> dict[str, float]:
    tables, aji = [], []
    for stem in read_split(data, None, part):
        image = open_image(next((data / "images").glob(f"{stem}.*")))
        truth = read_labels(data / "labels" / f"{stem}.tif", expect_shape=image.shape)
        confidence = segment(image)
        tables.append(metrics.confusion(confidence >= 128, truth > 0))
        aji.append(metrics.compare(split_nuclei(confidence), truth).aji)
    pooled = np.sum(tables, axis=0)
    return {
        "dice": float(np.mean([metrics.dice(table) for table in tables])),
        "dice_pooled": metrics.dice(pooled),
        "mdice": metrics.mean_dice(pooled),
        "miou": metrics.mean_iou(pooled),
        "aji": float(np.mean(aji)),
    }


def _table(rows: list[dict], options: argparse.Namespace) -> str:
    device = (
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"commit {_commit()}. Mean ± sd over seeds {options.seeds}; the threshold has none."
    )
    averaged = "" if options.turns == 1 else f", networks averaged over {options.turns} sides"
    lines = [
        f"# {options.data.name}: {options.labeled} cells of 250 x 250, scored on `{options.part}`{averaged}",
        "",
        device,
        "",
        "| method | Dice per image | Dice pooled | mDice, two classes | mIoU, two classes | AJI | minutes | steps |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == name]
        scores = [_mean(mine, key) for key in ("dice", "dice_pooled", "mdice", "miou", "aji")]
        minutes = np.mean([row.get("seconds", 0.0) for row in mine]) / 60
        steps = [row["steps"] for row in mine if "steps" in row]
        lines.append(f"| {name} | {' | '.join(scores)} | {minutes:.1f} | {int(np.mean(steps)) if steps else ''} |")
    return "\n".join(lines) + "\n"


def _mean(rows: list[dict], key: str) -> str:
    values = [row[key] for row in rows]
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def _commit() -> str:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
