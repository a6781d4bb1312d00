"""From a request to what a run learns from: a data set, a folder of images, or a project."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semiseg import atomic
from napari_semiseg.data.batch import IGNORE
from napari_semiseg.data.learned import Learned
from napari_semiseg.data.sources import LabeledRegion, TrainingData, class_labels
from napari_semiseg.data.splits import Cell, choose_cells, cut_cells, set_aside
from napari_semiseg.engine.requests import TrainRequest
from napari_semiseg.errors import InputError
from napari_semiseg.io.find_images import find_images
from napari_semiseg.io.images import Image, open_image
from napari_semiseg.io.labels import read_labels
from napari_semiseg.io.locate import stem
from napari_semiseg.io.rescale import scale_of
from napari_semiseg.io.source import DecodedCache
from napari_semiseg.project.annotations import conflicts, leave_out, tile_digest, training_labels
from napari_semiseg.project.folder import ProjectFolder
from napari_semiseg.project.schema import Tile
from napari_semiseg.project.tile_annotation import TileAnnotation
from napari_semiseg.project.tiles import validation_tiles

LABEL_SUFFIXES = (".tif", ".tiff", ".png", ".ome.zarr", ".zarr")


DECODED_BYTES = 2**30
"""Decoded pixels that all images of a run keep together; what is more is decoded again."""


def read_training_data(request: TrainRequest) -> TrainingData:
    """Open the images of a request and read the labels that it may see.

    Raises
    ------
    InputError
        If there is no image, an image or label cannot be used, or more cells are asked for than there are.
    """
    sources = [name for name in ("images", "dataset", "project") if getattr(request, name)]
    if len(sources) != 1:
        raise InputError("Give images, or --dataset, or a project folder: one of them, to learn from.")
    if request.project:
        return read_project(request.project, request.mpp)
    if request.dataset:
        return _read_dataset(Path(request.dataset), request)
    paths = find_images(request.images)
    images = _open_all(paths)
    labels = None if request.labels is None else Path(request.labels)
    classes = None if request.classes is None else Path(request.classes)
    return _with_cells(images, labels, classes, _class_names(classes), request)


def read_project(
    path: str | Path, mpp: float | None = None, *, learned: Learned | None = None, known: int | None = None
) -> TrainingData:
    """Read images and tiles of a project folder, as they are on disk now.

    Parameters
    ----------
    path : path
        The ``.semiseg`` folder. It is only read: somebody may be painting in it.
    mpp : float, optional
        Pixel size to work at, in µm; without it the most usual one of the images.
    learned : Learned, optional
        What the run that reads has learned from before: what lies there does not judge it.
    known : int, optional
        How many classes of nuclei that run tells apart: nuclei of others are ignored.
    """
    project = ProjectFolder.open(path, read_only=True)
    cache = DecodedCache(DECODED_BYTES)
    images = [
        open_image(project.source_path(index), series=source.series, mpp=source.mpp, cache=cache)
        for index, source in enumerate(project.images)
    ]
    if not images:
        raise InputError(f"{path} holds no image yet: add one to the project.")
    roles = _Roles.of(project.tiles, learned or Learned())
    excluded = [tile for tile in project.tiles if tile.status == "excluded"]
    names = tuple(spec.name for spec in project.classes)
    data = _at_one_size(images, ("background", *names), mpp)
    data.notes += [str(conflict) for conflict in conflicts(project)]
    data.notes += roles.notes
    data.notes += [_not_learned(name) for name in names[known:] if known is not None]
    data.seen = {tile.id: tile_digest(tile) for tile in excluded}
    data.excluded += [(tile.image, tile.box) for tile in excluded]
    for tile in project.tiles:
        if tile.used:
            annotation = project.annotation(tile.id)
            label = training_labels(tile, annotation, classes=len(names))
            unknown = _ignore_unknown(label, annotation, known)
            leave_out(label, tile, excluded)
            data.seen[tile.id] = tile_digest(tile, annotation, judges=tile in roles.chosen)
            if tile not in roles.apart:
                data.notes += _spare(label, tile, roles.apart)
            if bool((label == IGNORE).all()) or tile in roles.idle:
                continue
            region = LabeledRegion(tile.id, tile.image, tile.box, label, annotation.nuclei - unknown)
            (data.validation if tile in roles.apart else data.labeled).append(region)
    taught = [(region.image, region.box) for region in data.labeled]
    data.learned = roles.learned.and_from(taught, [(tile.image, tile.box) for tile in roles.apart])
    return data


@dataclass(frozen=True)
class _Roles:
    """Which tiles are set aside in a project, and what becomes of them in a run that has learned from some before."""

    chosen: Sequence[Tile]
    learned: Learned

    @classmethod
    def of(cls, tiles: Sequence[Tile], learned: Learned) -> _Roles:
        return cls(validation_tiles(tiles), learned)

    @cached_property
    def known(self) -> list[Tile]:
        """Those that cannot judge the run."""
        return [tile for tile in self.chosen if self.learned.reaches(tile.image, tile.box)]

    @cached_property
    def idle(self) -> list[Tile]:
        """Those of them that do not teach it either: so the user said after it had learned from them."""
        return [tile for tile in self.known if tile.role == "validation"]

    @cached_property
    def apart(self) -> list[Tile]:
        """Those that nothing is learned from. What the rule has chosen goes on teaching where it has begun to."""
        return [tile for tile in self.chosen if tile not in self.known or tile in self.idle]

    @property
    def notes(self) -> list[str]:
        return [
            f"Tile {tile.id} is kept for validation, but this training has learned from it before: "
            f"{'from now on it does not, and' if tile in self.idle else 'it goes on teaching here, and'} "
            "the tile judges the next training."
            for tile in self.known
        ]


def _ignore_unknown(label: NDArray[np.uint8], annotation: TileAnnotation, known: int | None) -> int:
    """Ignore nuclei of classes that a run does not know, in place; return how many there are."""
    if known is None:
        return 0
    unknown = (label > known) & (label != IGNORE)
    label[unknown] = IGNORE
    return int(np.count_nonzero(np.unique(annotation.instance[unknown])))


def _not_learned(name: str) -> str:
    return f"This training does not know the class '{name}' and ignores its nuclei: start another training to learn it."


def _spare(label: NDArray[np.uint8], tile: Tile, judges: Sequence[Tile]) -> list[str]:
    """Leave out of the labels of a tile, in place, what lies on tiles that judge; say so where there was something."""
    return [
        f"Tile {tile.id} lies in part on tile {judge.id}, which is kept for validation: what is painted there is not "
        "learned from."
        for judge in judges
        if leave_out(label, tile, [judge])
    ]


def _open_all(paths: Sequence[Path]) -> list[Image]:
    cache = DecodedCache(DECODED_BYTES)
    return [open_image(path, cache=cache) for path in paths]


def _at_one_size(images: Sequence[Image], classes: tuple[str, ...], mpp: float | None) -> TrainingData:
    """Decide the pixel size that the run works with: images of another are brought to it, as in every prediction."""
    sizes = sorted(image.mpp for image in images if image.mpp)
    working = mpp or (sizes[len(sizes) // 2] if sizes else None)
    data = TrainingData(images, classes=classes, mpp=working, scales=[scale_of(image, working) for image in images])
    rescaled = [image for image, scale in zip(images, data.scales, strict=True) if scale != 1.0]
    if rescaled and mpp is None:
        data.notes.append(
            f"The images have pixels of {sizes[0]:g} to {sizes[-1]:g} µm: all are brought to {working:g} µm. "
            "Choose another size with --mpp."
        )
    return data


def _read_dataset(folder: Path, request: TrainRequest) -> TrainingData:
    stems = read_split(folder, request.splits, request.split)
    paths = {stem(path): path for path in find_images([folder / "images"])}
    if not stems:
        raise InputError(f"The part '{request.split}' of {folder} lists no image: name another with --split.")
    missing = [stem for stem in stems if stem not in paths]
    if missing:
        raise InputError(f"{folder / 'images'} lacks {missing[0]}, which the split '{request.split}' lists.")
    images = _open_all([paths[stem] for stem in stems])
    labels = Path(request.labels) if request.labels else folder / "labels"
    classes = Path(request.classes) if request.classes else None
    return _with_cells(images, labels, classes, _class_names(classes), request)


def read_split(folder: Path, splits: str | None, part: str) -> list[str]:
    """Return the stems that a part of a data set lists, or several parts ("train+val").

    Raises
    ------
    InputError
        If the file or the part is missing.
    """
    path = Path(splits) if splits else folder / "splits.json"
    if not path.is_file():
        raise InputError(f"{path} is missing: a data set is a folder with images/, labels/ and splits.json.")
    parts = atomic.read_json(path)
    for name in part.split("+"):
        if not isinstance(parts, dict) or not isinstance(parts.get(name), list):
            known = ", ".join(parts) if isinstance(parts, dict) else "none"
            raise InputError(f"{path} has no part '{name}': it has {known}.")
    return [str(stem) for name in part.split("+") for stem in parts[name]]


def _with_cells(
    images: Sequence[Image], labels: Path | None, classes: Path | None, names: tuple[str, ...], request: TrainRequest
) -> TrainingData:
    data = _at_one_size(images, names, request.mpp)
    if labels is None or request.labeled == "0":
        return data
    found = {index: path for index, image in enumerate(images) if (path := _label_path(labels, image.name)) is not None}
    if not found:
        raise InputError(
            f"{labels} holds no labels for these images: a label file has its image's stem, as {images[0].name}.tif."
        )
    every = cut_cells([(index, images[index].name, images[index].shape) for index in found], request.subimage)
    chosen = choose_cells(every, request.labeled, request.seed)
    regions = _read_cells(chosen, images, found, classes, len(names))
    kept = set_aside(len(regions), request.validation)
    data.labeled, data.validation = regions[: len(regions) - kept], regions[len(regions) - kept :]
    return data


def _read_cells(
    chosen: Sequence[Cell], images: Sequence[Image], paths: dict[int, Path], classes: Path | None, count: int
) -> list[LabeledRegion]:
    """Read the chosen cells, each label file once, in the order chosen."""
    regions: dict[Cell, LabeledRegion] = {}
    for index in sorted({cell.image for cell in chosen}):
        instances = read_labels(paths[index], expect_shape=images[index].shape)
        kinds = None
        if classes is not None:
            path = _label_path(classes, images[index].name)
            if path is None:
                raise InputError(
                    f"{classes} holds no class map for {images[index].name}: a class map has its image's stem."
                )
            kinds = read_labels(path, expect_shape=images[index].shape)
            if int(kinds.max(initial=0)) >= count:
                raise InputError(
                    f"{path} has class {int(kinds.max())}, but there are only {count - 1}: list them in classes.json."
                )
        for cell in (cell for cell in chosen if cell.image == index):
            part = instances[cell.box.slices]
            label = class_labels(part, None if kinds is None else kinds[cell.box.slices])
            nuclei = len(np.unique(part)) - int((part == 0).any())
            regions[cell] = LabeledRegion(cell.name, index, cell.box, label, nuclei)
    return [regions[cell] for cell in chosen]


def _label_path(folder: Path, stem: str) -> Path | None:
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: --labels takes the folder that holds the label files.")
    for suffix in LABEL_SUFFIXES:
        if (path := folder / f"{stem}{suffix}").exists():
            return path
    return None


def _class_names(classes: Path | None) -> tuple[str, ...]:
    """Return the class names, background first, from the ``classes.json`` in or beside the folder of class maps."""
    if classes is None:
        return ("background", "nucleus")
    for path in (classes / "classes.json", classes.parent / "classes.json"):
        if path.is_file():
            return _listed_classes(atomic.read_json(path), path)
    raise InputError(f"{classes} has no classes.json: list the class names there, background first.")


def _listed_classes(listed: Any, path: Path) -> tuple[str, ...]:
    if isinstance(listed, dict) and set(listed) == {str(number) for number in range(len(listed))}:
        listed = [listed[str(number)] for number in range(len(listed))]
    names = listed if isinstance(listed, list) and all(isinstance(name, str) for name in listed) else []
    if not 2 <= len(names) < IGNORE:
        raise InputError(
            f'{path} lists no classes: write names by number, background first, as in {{"0": "background", "1": …}}.'
        )
    return tuple(names)
