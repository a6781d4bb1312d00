"""Data sets in the layout in which they are published, made into what everything else here takes.

What is taken is a folder with ``images/``, ``labels/`` (same stem, instances), ``splits.json``, and where there are
classes ``classes/`` and ``classes.json``. Known layouts:

========  ============================================================================================
BCSS      ``masks/*.png`` with the codes of its ``gtruth_codes.tsv``, beside ``rgbs_colorNormalized/`` or ``images/``
Lucchi    ``training.tif``, ``training_groundtruth.tif``, ``testing.tif``, ``testing_groundtruth.tif``: stacks
Lucchi++  ``Train_In/mask0000.png`` …, ``Train_Out/0.png`` …, ``Test_In/``, ``Test_Out/``: slices, of which those with
          the same number belong together; mitochondria are white, in gray or in color
MitoEM    ``EM30-R-im/im0000.png`` … (or in ``im/`` below it, as its archive holds them), and
          ``mito-train-v2/seg0000.tif`` …, ``mito-val-v2/seg0400.tif`` … below ``EM30-R-mito-train-val-v2/``; H likewise
========  ============================================================================================
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_semiseg import atomic
from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.io.images import open_image
from napari_semiseg.io.labels import read_labels

BCSS_CLASSES = ("other", "tumor", "stroma", "inflammatory", "necrosis")
BCSS_CODES: Mapping[int, int] = MappingProxyType(
    {**dict.fromkeys(range(5, 22), 0), 1: 1, 19: 1, 20: 1, 2: 2, 3: 3, 10: 3, 11: 3, 4: 4}
)
"""Class of every published code but 0, which lies outside what was annotated. As in the code of CRCFP, where 0 is
counted as "other"; here it is ignored."""
_TEST_SHARE = 3
"""One center in so many is for the test."""


def converted(folder: Path, into: Path) -> Path:
    """Return a data set as a folder with ``images/``, ``labels/`` and ``splits.json``.

    Parameters
    ----------
    folder : Path
        Such a folder, which is returned as it is, or a data set in its published layout.
    into : Path
        Where one of the latter is written to, once; under the same name and layout it is found again.

    Raises
    ------
    InputError
        If the layout is none of these, or a file is missing or damaged.
    """
    if (folder / "images").is_dir() and (folder / "labels").is_dir():
        return folder
    if not folder.is_dir():
        raise InputError(f"There is no data set '{folder}': give a folder with images/, labels/ and splits.json.")
    for name, (is_it, convert) in LAYOUTS.items():
        if is_it(folder):
            target = into / f"{name}-{folder.resolve().name}"
            if not (target / "splits.json").is_file():
                _Target(target).write(convert(folder))
            return target
    raise InputError(
        f"{folder} is no data set that is known here: it has neither images/ and labels/ nor the published layout of "
        f"{', '.join(LAYOUTS)}."
    )


class _Slice:
    """An image on its way: its part, its name, where its pixels are, instances, and classes where there are any."""

    def __init__(
        self,
        part: str,
        name: str,
        image: Path | NDArray[np.uint8],
        instances: NDArray[np.integer],
        classes: NDArray[np.uint8] | None = None,
    ) -> None:
        self.part, self.name, self.image, self.instances, self.classes = part, name, image, instances, classes


class _Target:
    """The folder that is written; ``splits.json`` comes last, and without it nothing counts."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, slices: Iterator[_Slice]) -> None:
        parts: dict[str, list[str]] = {}
        for one in slices:
            self._image(one)
            self._labels("labels", one.name, one.instances.astype(np.uint32))
            if one.classes is not None:
                self._labels("classes", one.name, one.classes)
                names = json.dumps({str(number): name for number, name in enumerate(_named())})
                atomic.write_text(self.path / "classes.json", names)
            parts.setdefault(one.part, []).append(one.name)
        if not parts:
            raise InputError(f"Nothing was found to put into {self.path}: the data set is empty.")
        atomic.write_json(self.path / "splits.json", parts)

    def _image(self, one: _Slice) -> None:
        folder = self.path / "images"
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(one.image, Path):
            _link(one.image, folder / f"{one.name}{one.image.suffix}")
        else:
            with atomic.staged(folder / f"{one.name}.tif") as file:
                tifffile.imwrite(file, one.image, photometric="minisblack", compression="zlib")

    def _labels(self, kind: str, name: str, values: NDArray[np.integer]) -> None:
        (self.path / kind).mkdir(parents=True, exist_ok=True)
        with atomic.staged(self.path / kind / f"{name}.tif") as file:
            tifffile.imwrite(file, values, compression="zlib")


def _named() -> tuple[str, ...]:
    """Return the classes of BCSS, the only set here that has any: "other" takes the place of background."""
    return ("background", *BCSS_CLASSES[1:])


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another disk, or one that knows no links
        shutil.copyfile(source, target)


def _bcss_images(folder: Path) -> Path | None:
    return next((p for name in ("rgbs_colorNormalized", "rgbs", "images") if (p := folder / name).is_dir()), None)


def _is_bcss(folder: Path) -> bool:
    return (folder / "masks").is_dir() and _bcss_images(folder) is not None


def bcss_center(name: str) -> str:
    """Return the center that a region comes from: the second word of its TCGA barcode (``TCGA-A1-…`` → ``A1``)."""
    found = re.match(r"TCGA-([A-Z0-9]{2})-", name)
    if found is None:
        raise InputError(f"'{name}' has no TCGA barcode, which says its center: keep the published names.")
    return found[1]


def _bcss(folder: Path) -> Iterator[_Slice]:
    images = _bcss_images(folder)
    assert images is not None
    masks = sorted((folder / "masks").glob("*.png"))
    centers = sorted({bcss_center(mask.name) for mask in masks})
    # Which centers the papers tested on is not published with the data: one in three, by a draw that never changes.
    order = np.random.default_rng(0).permutation(len(centers))
    tested = {centers[place] for place in order[: len(centers) // _TEST_SHARE]}
    for mask in masks:
        if not (image := images / mask.name).is_file():
            raise InputError(f"{images} lacks {mask.name}, which masks/ has.")
        codes = read_labels(mask)
        unknown = set(np.unique(codes).tolist()) - {0, *BCSS_CODES}
        if unknown:
            raise InputError(f"{mask} holds code {min(unknown)}: the published ones are 0 to 21.")
        classes = _remapped(codes)
        # Outside what was annotated: something without a class, which is ignored; see `class_labels`.
        instances = ((classes > 0) | (codes == 0)).astype(np.uint32)
        part = "test" if bcss_center(mask.name) in tested else "train"
        yield _Slice(part, mask.stem, image, instances, classes)


def _remapped(codes: NDArray[np.integer]) -> NDArray[np.uint8]:
    table = np.zeros(max(BCSS_CODES) + 1, np.uint8)
    table[list(BCSS_CODES)] = list(BCSS_CODES.values())
    return np.asarray(table[codes], np.uint8)


def _is_lucchi(folder: Path) -> bool:
    return (folder / "training.tif").is_file() and (folder / "training_groundtruth.tif").is_file()


def _lucchi(folder: Path) -> Iterator[_Slice]:
    for part, name in (("train", "training"), ("test", "testing")):
        images, truths = (_stack(folder / f"{name}{end}.tif") for end in ("", "_groundtruth"))
        if images.shape != truths.shape:
            raise InputError(f"{folder}: {name}.tif is {images.shape} and its ground truth {truths.shape}.")
        for number, (image, truth) in enumerate(zip(images, truths, strict=True)):
            yield _Slice(part, f"{part}-{number:04d}", image, _objects(truth))


def _stack(path: Path) -> NDArray[np.uint8]:
    if not path.is_file():
        raise InputError(f"{path} is missing: the set is published with it.")
    try:
        stack = tifffile.imread(path)
    except (tifffile.TiffFileError, ValueError) as error:
        raise InputError(f"{path} is damaged: {error}.") from None
    if stack.ndim != 3 or stack.dtype != np.uint8:
        raise InputError(f"{path} is no stack of bytes: it has the shape {stack.shape} and the type {stack.dtype}.")
    return np.asarray(stack)


def _objects(truth: NDArray[np.integer] | NDArray[np.bool_]) -> NDArray[np.int32]:
    """Give the connected parts of a mask numbers."""
    return np.asarray(ndi.label(truth != 0, np.ones((3, 3)))[0], np.int32)


def _is_lucchi_pp(folder: Path) -> bool:
    return all((folder / name).is_dir() for name in ("Train_In", "Train_Out", "Test_In", "Test_Out"))


def _lucchi_pp(folder: Path) -> Iterator[_Slice]:
    for part, name in (("train", "Train"), ("test", "Test")):
        images, truths = (_by_number(folder / f"{name}_{end}") for end in ("In", "Out"))
        if unpaired := images.keys() ^ truths.keys():
            raise InputError(f"{folder}: slice {min(unpaired)} is in only one of {name}_In and {name}_Out.")
        for number, image in sorted(images.items()):
            yield _Slice(part, f"{part}-{number:04d}", image, _objects(_white(truths[number])))


def _by_number(folder: Path) -> dict[int, Path]:
    """Return slices by the number in their names: ``mask0010.png`` and ``10.png`` are the same one."""
    return {int(found[-1]): path for path in folder.glob("*.png") if (found := re.findall(r"\d+", path.stem))}


def _white(path: Path) -> NDArray[np.bool_]:
    """Return where a picture is white: labels of Lucchi++ are drawings, some of them in color."""
    image = open_image(path)
    return np.asarray(image.read(Box.whole(image.shape)).min(-1) == 255)


def _mitoem_letter(folder: Path) -> str | None:
    return next((letter for letter in "RH" if (folder / f"EM30-{letter}-im").is_dir()), None)


def _mitoem(folder: Path) -> Iterator[_Slice]:
    letter = _mitoem_letter(folder)
    base, images = folder / f"EM30-{letter}-mito-train-val-v2", folder / f"EM30-{letter}-im"
    images = images / "im" if (images / "im").is_dir() else images
    for part, name in (("train", "mito-train-v2"), ("val", "mito-val-v2")):
        for path in sorted((base / name).glob("seg*.tif")):
            number = path.stem.removeprefix("seg")
            image = images / f"im{number}.png"
            if not image.is_file():
                raise InputError(f"{image} is missing, and {path.name} is its label.")
            yield _Slice(part, f"{letter}-{number}", image, read_labels(path))


LAYOUTS: Mapping[str, tuple[Callable[[Path], bool], Callable[[Path], Iterator[_Slice]]]] = MappingProxyType(
    {
        "bcss": (_is_bcss, _bcss),
        "lucchi": (_is_lucchi, _lucchi),
        "lucchi++": (_is_lucchi_pp, _lucchi_pp),
        "mitoem": (lambda folder: _mitoem_letter(folder) is not None, _mitoem),
    }
)
"""Published layouts: how each is known, and how it is read."""
