"""Scores of a trained run on images of a data set."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_semiseg import atomic, metrics
from napari_semiseg.blocks import Box, cells
from napari_semiseg.data.batch import IGNORE
from napari_semiseg.data.sources import class_labels
from napari_semiseg.engine.evaluate import Pair, score
from napari_semiseg.engine.infer import confidence_map
from napari_semiseg.engine.predictor import Predictor, load_predictor
from napari_semiseg.errors import InputError
from napari_semiseg.events import Event, Progressed
from napari_semiseg.io.find_images import find_images
from napari_semiseg.io.images import open_image
from napari_semiseg.io.labels import read_labels
from napari_semiseg.io.locate import stem
from napari_semiseg.io.rescale import scale_of
from napari_semiseg.postprocess.classes import any_nucleus, pixel_classes
from napari_semiseg.postprocess.instances import smallest_area, split_nuclei
from napari_semiseg.postprocess.opened_closed import opened_and_closed

THRESHOLD = 127.5 / 255
"""Confidence above which a pixel is nucleus: a byte of 128 and more."""


@dataclass(frozen=True)
class Scored:
    """Scores of a run: of all images together by name, and of each image. None where there is nothing to judge."""

    values: dict[str, float | None]
    images: list[dict[str, Any]]


@dataclass
class _CellDice:
    """The Dice of sub-images, beside that of whole images."""

    subimage: int
    found: list[float]

    def add(self, mask: NDArray[np.bool_], truth: NDArray[Any], valid: NDArray[np.bool_] | None) -> None:
        for cell in cells(mask.shape, self.subimage):
            at = cell.slices
            part = None if valid is None else valid[at]
            self.found.append(metrics.dice(metrics.confusion(mask[at], truth[at] > 0, valid=part)))


def score_run(
    run: Path,
    dataset: Path,
    stems: Sequence[str],
    *,
    device: torch.device,
    subimage: int,
    classes: bool,
    should_stop: Callable[[], bool],
    model: Predictor | None = None,
) -> Generator[Event, None, Scored | None]:
    """Predict images and compare them with their labels.

    Parameters
    ----------
    run : Path
        The run folder.
    dataset : Path
        A folder with ``images/`` and ``labels/``, and ``classes/`` where `classes` are scored.
    stems : sequence of str
        The images.
    subimage : int
        Side, in pixels, of the cells whose Dice is also reported (``dice_cells``).
    classes : bool
        Whether classes are scored, where the run has learned them. Pixels whose class is not known count nowhere.
    should_stop : callable
        Asked between images.
    model : Predictor, optional
        What predicts, in place of the run's best model.

    Returns
    -------
    Scored or None
        None if it was stopped.
    """
    model = load_predictor(run, device) if model is None else model
    paths = {stem(path): path for path in find_images([dataset / "images"])}
    names = _class_names(dataset) if classes else ()
    learned = len(model.classes) > 2
    if learned and model.classes[1:] != names:
        raise InputError(f"{dataset} has other classes than {run} has learned: {', '.join(names) or 'none'}.")
    pairs: list[Pair] = []
    of_cells = _CellDice(subimage, [])
    opened: list[float] = []
    for number, name in enumerate(stems):
        if should_stop():
            return None
        yield Progressed("scoring", number, len(stems))
        if name not in paths:
            raise InputError(f"{dataset / 'images'} lacks {name}, which the split lists.")
        pair = _compared(model, paths[name], dataset, classes=classes, learned=learned)
        assert pair.mask is not None
        of_cells.add(pair.mask, pair.truth, pair.valid)
        opened.append(metrics.dice(metrics.confusion(opened_and_closed(pair.mask), pair.truth > 0, valid=pair.valid)))
        pairs.append(pair)
    yield Progressed("scoring", len(stems), len(stems))
    scores = score(pairs, names).as_dict()
    others = {"dice_cells": float(np.mean(of_cells.found)), "dice_opened": float(np.mean(opened))}
    return Scored({**scores["scores"], **others}, scores["images"])


def _compared(model: Predictor, path: Path, dataset: Path, *, classes: bool, learned: bool) -> Pair:
    image = open_image(path)
    confidence = confidence_map(
        model.network,
        image,
        Box.whole(image.shape),
        device=model.device,
        divisor=model.divisor,
        reach=model.reach,
        scale=scale_of(image, model.mpp),
    )
    nucleus = any_nucleus(confidence)
    truth = read_labels(_file(dataset / "labels", image.name), expect_shape=image.shape)
    true_classes: NDArray[np.uint8] | None = None
    valid: NDArray[np.bool_] | None = None
    if classes:
        kinds = read_labels(_file(dataset / "classes", image.name), expect_shape=image.shape)
        label = class_labels(truth, kinds)
        valid = label != IGNORE
        truth, true_classes = np.where(valid, truth, 0).astype(np.uint32), np.where(valid, label, 0).astype(np.uint8)
    return Pair(
        name=image.name,
        predicted=split_nuclei(nucleus, min_area=smallest_area(image.mpp), mpp=image.mpp),
        truth=truth,
        predicted_classes=pixel_classes(confidence, THRESHOLD) if learned else None,
        truth_classes=true_classes,
        mask=nucleus >= 128,
        valid=valid,
    )


def _file(folder: Path, name: str) -> Path:
    for suffix in (".tif", ".tiff", ".png"):
        if (path := folder / f"{name}{suffix}").exists():
            return path
    raise InputError(f"{folder} holds no file for {name}.")


def _class_names(dataset: Path) -> tuple[str, ...]:
    for path in (dataset / "classes" / "classes.json", dataset / "classes.json"):
        if path.is_file():
            listed = atomic.read_json(path)
            named = [listed[str(number)] for number in range(len(listed))] if isinstance(listed, dict) else list(listed)
            return tuple(map(str, named[1:]))
    raise InputError(f"{dataset} has no classes.json: list the class names there, background first.")
