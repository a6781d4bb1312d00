"""A small labeled data set on disk, in the layout that `train` takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_semiseg.engine.requests import TrainRequest


def stained(labels: np.ndarray, seed: int) -> np.ndarray:
    """Paint a field: pink tissue, purple nuclei, noise."""
    rng = np.random.default_rng(seed)
    image = np.where(labels[..., None] > 0, [90, 60, 140], [225, 170, 205])
    return np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def small_dataset(tmp_path: Path, discs: Callable[..., np.ndarray]) -> Path:
    """Four images of 128 x 128 with 12 nuclei each: three to train, one to test."""
    folder = tmp_path / "fields"
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    names = [f"field-{number}" for number in range(4)]
    for number, name in enumerate(names):
        labels = np.roll(discs(12, shape=(128, 128), radius=9), 7 * number, axis=1)
        tifffile.imwrite(folder / "images" / f"{name}.tif", stained(labels, number), photometric="rgb")
        tifffile.imwrite(folder / "labels" / f"{name}.tif", labels.astype(np.uint16))
    (folder / "splits.json").write_text(json.dumps({"train": names[:3], "test": names[3:]}))
    return folder


@pytest.fixture
def quick_request(small_dataset: Path, tmp_path: Path) -> Callable[..., TrainRequest]:
    """Ask for a training of a few seconds; everything can be overridden."""

    def ask(**changes: object) -> TrainRequest:
        options = {"crop": 64, "batch_labeled": 2, "batch_unlabeled": 2, **dict(changes.pop("set", {}))}  # type: ignore[call-overload]
        values = {
            "dataset": str(small_dataset),
            "out": str(tmp_path / "run"),
            "method": "supervised",
            "network": "small_unet",
            "labeled": "6",
            "subimage": 64,
            "steps": 8,
            "device": "cpu",
            "set": options,
        }
        return TrainRequest.model_validate(values | changes)

    return ask
