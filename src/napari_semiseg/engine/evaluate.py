"""Every score at once, each with its definition in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_semiseg import metrics
from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.io.labels import read_labels
from napari_semiseg.io.locate import stem
from napari_semiseg.io.result import Result
from napari_semiseg.io.result_card import result_state
from napari_semiseg.metrics import ObjectCounts
from napari_semiseg.metrics.pixels import Table

DEFINITIONS: Mapping[str, str] = MappingProxyType(
    {
        "dice": "foreground Dice of each image, mean over images",
        "iou": "foreground Jaccard index (IoU) of each image, mean over images",
        "dice_pooled": "foreground Dice of all pixels of all images together",
        "iou_pooled": "foreground Jaccard index (IoU) of all pixels together",
        "mdice_two_class": "mean of the Dice of background and of nuclei, all pixels together",
        "miou_two_class": "mean of the IoU of background and of nuclei, all pixels together",
        "accuracy": "share of pixels on the right side of nucleus and background, mean over images",
        "specificity": "share of background pixels left alone, mean over images",
        "sensitivity": "share of nucleus pixels found, mean over images",
        "accuracy_pooled": "share of pixels on the right side of nucleus and background, all pixels together",
        "specificity_pooled": "share of background pixels left alone, all pixels together",
        "sensitivity_pooled": "share of nucleus pixels found, all pixels together",
        "aji": "aggregated Jaccard index of each image (Kumar 2017), mean over images",
        "pq": "panoptic quality SQ x DQ of each image (Kirillov 2019, match: IoU > 0.5), mean over images",
        "sq": "mean IoU of the matched nuclei of each image, mean over images",
        "dq": "TP / (TP + FP / 2 + FN / 2) over nuclei of each image, mean over images",
        "f1": "F1 of detection at IoU > 0.5 of each image (the same as DQ), mean over images",
        "aji_pooled": "aggregated Jaccard index over the nuclei of all images together",
        "pq_pooled": "panoptic quality over the nuclei of all images together",
        "f1_pooled": "F1 of detection at IoU > 0.5 over the nuclei of all images together",
        "count_error": "difference between the numbers of predicted and true nuclei, absolute, mean over images",
        "count_bias": "predicted nuclei less true nuclei, divided by true nuclei, all images together",
    }
)
"""Names and definitions of the scores, in the order in which they are shown."""

_OF_CLASSES = {
    "mdice": "mean of the Dice of all classes and background, all pixels together; classes that do not occur left out",
    "miou": "mean of the IoU of all classes and background, all pixels together; classes that do not occur left out",
    "accuracy_classes": "share of pixels of the right class, all pixels together",
}

EMPTY_CASES = (
    "Where an image has no nuclei and none were predicted, its scores are 1; where only one side has nuclei, Dice, "
    "IoU, AJI, PQ and F1 are 0. Sensitivity is 1 where there was nothing to find, specificity where there was no "
    "background."
)


@dataclass(frozen=True)
class Pair:
    """A prediction and its truth.

    Attributes
    ----------
    name : str
    predicted, truth : ndarray, (h, w), int
        Instance labels, 0 background.
    predicted_classes, truth_classes : ndarray, (h, w), int, optional
        Class of every pixel, 0 background.
    semantic : bool
        Whether the prediction has no instances of its own: its connected components count as nuclei.
    mask : ndarray, (h, w), bool, optional
        Where nuclei are, for the scores of pixels, if that is not where `predicted` has instances.
    valid : ndarray, (h, w), bool, optional
        Pixels that count in the scores of pixels; without it all do.
    """

    name: str
    predicted: NDArray[Any]
    truth: NDArray[Any]
    predicted_classes: NDArray[Any] | None = None
    truth_classes: NDArray[Any] | None = None
    semantic: bool = False
    mask: NDArray[np.bool_] | None = None
    valid: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Scores:
    """What `evaluate` found.

    Attributes
    ----------
    values : dict of str to float
        By the names in `definitions`; NaN where there is nothing to judge.
    definitions : dict of str to str
        What each value is, in words.
    images : list of dict
        Name and own scores of every image.
    notes : list of str
        Sentences that belong to the figures.
    """

    values: dict[str, float]
    definitions: dict[str, str]
    images: list[dict[str, Any]]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain numbers and text, for JSON; NaN becomes None."""
        return {
            "images": [{name: _plain(value) for name, value in image.items()} for image in self.images],
            "scores": {name: _plain(value) for name, value in self.values.items()},
            "definitions": self.definitions,
            "notes": self.notes,
        }

    def table(self) -> str:
        """Return the scores as text, one a line with its definition, and the notes below."""
        width = max(map(len, self.values))
        lines = [f"{len(self.images)} images"]
        for name, value in self.values.items():
            figure = f"{value:8.1f}" if name == "count_error" else f"{value:8.4f}"
            lines.append(f"{name:<{width}} {figure}  {self.definitions[name]}")
        return "\n".join([*lines, *self.notes])


def evaluate(predicted: str | Path, labels: str | Path, *, classes: str | Path | None = None) -> Scores:
    """Compare predictions on disk with the truth.

    Parameters
    ----------
    predicted : str or Path
        A result (``.ome.zarr``) or label image (TIFF, PNG, ``.npy``), or a folder of them. Of a folder with results
        only these are taken, since exports may lie beside them.
    labels : str or Path
        The true labels: a file for one prediction, or a folder of files with the predictions' stems.
    classes : str or Path, optional
        The true class maps, likewise: 0 background, 1 the first class of the results. Used where results have classes.

    Raises
    ------
    InputError
        If there is nothing to compare, a result is not finished, or shapes differ.
    """
    found, true = _files(Path(predicted), "prediction"), _files(Path(labels), "label image")
    if len(found) == len(true) == 1 and Path(labels).is_file():
        true = {next(iter(found)): next(iter(true.values()))}  # two files that were named belong together
    kinds = {} if classes is None else _files(Path(classes), "class map")
    common = [stem for stem in found if stem in true]
    names = next((_class_names(found[stem]) for stem in common), ())
    scores = score((_read(stem, found[stem], true[stem], kinds.get(stem)) for stem in common), names)
    scores.notes.extend(_left_out(found, true))
    return scores


def score(pairs: Iterable[Pair], classes: Sequence[str] = ()) -> Scores:
    """Compare predictions with the truth, one image after the other.

    Parameters
    ----------
    pairs : iterable of Pair
        Consumed one by one; only counts are kept.
    classes : sequence of str
        Names of the classes of nuclei, where pairs have classes.

    Raises
    ------
    InputError
        If there is no pair, two shapes differ, or a class has no name.
    """
    tables: list[Table] = []
    class_tables: list[Table] = []
    objects: list[ObjectCounts] = []
    images: list[dict[str, Any]] = []
    semantic = 0
    for pair in pairs:
        _check(pair, classes)
        predicted = ndi.label(pair.predicted > 0, np.ones((3, 3)))[0] if pair.semantic else pair.predicted
        mask = pair.predicted > 0 if pair.mask is None else pair.mask
        table = metrics.confusion(mask, pair.truth > 0, valid=pair.valid)
        counts = metrics.compare(predicted, pair.truth)
        semantic += pair.semantic
        tables.append(table)
        objects.append(counts)
        if pair.predicted_classes is not None and pair.truth_classes is not None:
            found, true, count = pair.predicted_classes, pair.truth_classes, len(classes) + 1
            class_tables.append(metrics.confusion(found, true, count, valid=pair.valid))
        images.append({"name": pair.name, **_pixel_scores(table), **_object_scores(counts)})
    if not images:
        raise InputError("There is nothing to evaluate: no predicted image has labels of the same name.")
    values = {
        **{name: float(np.mean([image[name] for image in images])) for name in (*_PIXEL_SCORES, *_OBJECT_SCORES)},
        **_pooled(tables, objects),
        "count_error": float(np.mean([abs(counts.count_error) for counts in objects])),
    }
    definitions = dict(DEFINITIONS)
    values = {name: values[name] for name in definitions}
    if class_tables:
        _add_classes(values, definitions, sum(class_tables[1:], class_tables[0]), classes)
    notes = [EMPTY_CASES]
    if semantic:
        notes.append(f"{semantic} predictions hold no single nuclei: their connected components count as nuclei.")
    return Scores(values, definitions, images, notes)


_PIXEL_SCORES = {
    "dice": metrics.dice,
    "iou": metrics.iou,
    "accuracy": metrics.accuracy,
    "specificity": metrics.specificity,
    "sensitivity": metrics.sensitivity,
}
_OBJECT_SCORES = ("aji", "pq", "sq", "dq", "f1")


def _pixel_scores(table: Table) -> dict[str, float]:
    return {name: function(table) for name, function in _PIXEL_SCORES.items()}


def _object_scores(counts: ObjectCounts) -> dict[str, float]:
    scores = {name: float(getattr(counts, name)) for name in _OBJECT_SCORES}
    return scores | {"nuclei_true": counts.truth, "nuclei_predicted": counts.predicted}


def _pooled(tables: Sequence[Table], objects: Sequence[ObjectCounts]) -> dict[str, float]:
    pixels = sum(tables[1:], tables[0])
    nuclei = sum(objects, ObjectCounts())
    empty = 0.0 if not nuclei.count_error else float("inf")
    return {
        **{f"{name}_pooled": value for name, value in _pixel_scores(pixels).items()},
        **{f"{name}_pooled": float(getattr(nuclei, name)) for name in ("aji", "pq", "f1")},
        "mdice_two_class": metrics.mean_dice(pixels),
        "miou_two_class": metrics.mean_iou(pixels),
        "count_bias": nuclei.count_error / nuclei.truth if nuclei.truth else empty,
    }


def _add_classes(values: dict[str, float], definitions: dict[str, str], table: Table, classes: Sequence[str]) -> None:
    values["mdice"], values["miou"] = metrics.mean_dice(table), metrics.mean_iou(table)
    values["accuracy_classes"] = metrics.accuracy(table)
    definitions.update(_OF_CLASSES)
    for number, name in enumerate(("background", *classes)):
        for score_name, per_class in (("dice", metrics.class_dice(table)), ("iou", metrics.class_iou(table))):
            values[f"{score_name}_{name}"] = float(per_class[number])
            definitions[f"{score_name}_{name}"] = f"{score_name.replace('iou', 'IoU')} of {name}, all pixels together"


def _check(pair: Pair, classes: Sequence[str]) -> None:
    if pair.predicted.shape != pair.truth.shape:
        (h, w), (th, tw) = pair.predicted.shape, pair.truth.shape
        raise InputError(
            f"The prediction of '{pair.name}' has {h} x {w} pixels and its labels have {th} x {tw}: "
            "compare results with the labels of the same image."
        )
    for side, array in (("prediction", pair.predicted_classes), ("truth", pair.truth_classes)):
        if array is not None and int(array.max(initial=0)) > len(classes):
            raise InputError(
                f"The {side} of '{pair.name}' holds class {int(array.max())}, but {len(classes)} classes are named."
            )


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value


_ENDINGS = (".zarr", ".tif", ".tiff", ".png", ".npy")


def _files(path: Path, what: str) -> dict[str, Path]:
    """Return the files that a path stands for, by their stems."""
    if not path.exists():
        raise InputError(f"There is no {what} '{path}': check the name.")
    if path.is_file() or path.name.lower().endswith(".zarr"):
        return {stem(path): path}
    inside = sorted(file for file in path.iterdir() if file.name.lower().endswith(_ENDINGS) and file.name[0] != ".")
    if not inside:
        raise InputError(f"'{path}' holds no {what}: name a folder of OME-Zarr, TIFF, PNG or .npy files.")
    found: dict[str, Path] = {}
    results = [file for file in inside if file.name.lower().endswith(".zarr")]
    for file in results or inside:
        if (name := stem(file)) in found:
            raise InputError(f"'{path}' has both {found[name].name} and {file.name}: keep one {what} for each image.")
        found[name] = file
    return found


def _class_names(path: Path) -> tuple[str, ...]:
    return Result.open(path).classes if result_state(path) == "complete" else ()


def _read(name: str, predicted: Path, truth: Path, kinds: Path | None) -> Pair:
    state = result_state(predicted)
    if state == "unfinished":
        raise InputError(f"'{predicted}' is not finished: give the same predict command again, and it goes on.")
    true_labels = read_labels(truth)
    true_classes = None if kinds is None else read_labels(kinds, expect_shape=true_labels.shape)
    if state != "complete":
        return Pair(name, read_labels(predicted), true_labels)
    result = Result.open(predicted)
    whole = Box.whole(result.shape)
    found_classes = result.pixel_classes(whole) if "classes" in result.kinds else None
    if "nuclei" in result.kinds:
        return Pair(name, result.nuclei(whole), true_labels, found_classes, true_classes)
    return Pair(name, result.pixel_classes(whole), true_labels, found_classes, true_classes, semantic=True)


def _left_out(found: dict[str, Path], true: dict[str, Path]) -> list[str]:
    notes = []
    for have, lack, sentence in (
        (found, true, "{n} of {of} predictions have no labels and were left out: {names}."),
        (true, found, "{n} of {of} label images have no prediction and were left out: {names}."),
    ):
        missing = [name for name in have if name not in lack]
        if missing:
            names = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
            notes.append(sentence.format(n=len(missing), of=len(have), names=names))
    return notes
