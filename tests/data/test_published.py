"""Data sets in their published layouts, as small files made in them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
from skimage.io import imread, imsave

from napari_semiseg.data.batch import IGNORE
from napari_semiseg.data.published import BCSS_CODES, bcss_center, converted
from napari_semiseg.data.sources import class_labels
from napari_semiseg.errors import InputError
from napari_semiseg.io.labels import read_labels


@pytest.fixture
def bcss(tmp_path):
    """Six centers, one region each, with all codes."""
    folder = tmp_path / "0_Public-data"
    for name in ("masks", "rgbs_colorNormalized", "meta"):
        (folder / name).mkdir(parents=True)
    codes = np.repeat(np.arange(22, dtype=np.uint8), 22).reshape(22, 22)
    for center in ("A1", "A2", "AC", "AN", "AR", "BH"):
        name = f"TCGA-{center}-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500.png"
        imsave(folder / "masks" / name, codes, check_contrast=False)
        imsave(folder / "rgbs_colorNormalized" / name, np.full((22, 22, 3), 200, np.uint8), check_contrast=False)
    return folder


def test_bcss_becomes_four_classes_and_other_by_the_published_codes(bcss, tmp_path):
    made = converted(bcss, tmp_path / "data")
    [name, *_] = json.loads((made / "splits.json").read_text())["train"]
    label = class_labels(read_labels(made / "labels" / f"{name}.tif"), read_labels(made / "classes" / f"{name}.tif"))

    of_code = label[:, 0].tolist()
    assert of_code[0] == IGNORE, "outside of what was annotated"
    assert [code for code in range(22) if of_code[code] == 1] == [1, 19, 20]
    assert [code for code in range(22) if of_code[code] == 2] == [2]
    assert [code for code in range(22) if of_code[code] == 3] == [3, 10, 11]
    assert [code for code in range(22) if of_code[code] == 4] == [4]
    assert of_code[1:] == [BCSS_CODES[code] for code in range(1, 22)]
    assert list(json.loads((made / "classes.json").read_text()).values())[1:] == [
        "tumor", "stroma", "inflammatory", "necrosis",
    ]  # fmt: skip


def test_bcss_is_split_by_center(bcss, tmp_path):
    parts = json.loads((converted(bcss, tmp_path / "data") / "splits.json").read_text())
    centers = {part: {bcss_center(name) for name in names} for part, names in parts.items()}

    assert len(centers["test"]) == 2
    assert not centers["test"] & centers["train"]


def test_an_unknown_code_is_refused(bcss, tmp_path):
    path = next((bcss / "masks").iterdir())
    imsave(path, np.full((22, 22), 40, np.uint8), check_contrast=False)

    with pytest.raises(InputError, match="code 40"):
        converted(bcss, tmp_path / "data")
    assert not list((tmp_path / "data").rglob("splits.json")), "what is not whole does not count"


def stack(shape=(3, 16, 20), seed=0):
    truth = np.zeros(shape, np.uint8)
    truth[:, 2:6, 2:6] = truth[:, 9:14, 10:18] = 255
    return np.random.default_rng(seed).integers(0, 255, shape).astype(np.uint8), truth


def test_lucchi_becomes_slices_with_single_mitochondria(tmp_path):
    folder = tmp_path / "lucchi"
    folder.mkdir()
    for name in ("training", "testing"):
        image, truth = stack()
        tifffile.imwrite(folder / f"{name}.tif", image, photometric="minisblack")
        tifffile.imwrite(folder / f"{name}_groundtruth.tif", truth, photometric="minisblack")
    made = converted(folder, tmp_path / "data")

    assert {part: len(names) for part, names in json.loads((made / "splits.json").read_text()).items()} == {
        "train": 3,
        "test": 3,
    }
    assert np.array_equal(tifffile.imread(made / "images" / "train-0001.tif"), image[1])
    assert read_labels(made / "labels" / "test-0002.tif").max() == 2


@pytest.mark.parametrize("in_color", [False, True], ids=["gray", "color"])
def test_lucchi_plus_plus_pairs_slices_by_number_and_takes_white_for_mitochondria(tmp_path, in_color):
    folder = tmp_path / "Lucchi++"
    image, _ = stack((12, 16, 20))
    truth = np.zeros(image.shape, np.uint8)
    for number in range(12):
        truth[number, number, 3:9] = 255  # no two slices have the same
    for part in ("Train", "Test"):
        for end in ("In", "Out"):
            (folder / f"{part}_{end}").mkdir(parents=True)
        for number in range(12):
            drawn = np.dstack([truth[number]] * 3 + [np.full_like(truth[number], 255)]) if in_color else truth[number]
            imsave(folder / f"{part}_In" / f"mask{number:04d}.png", image[number], check_contrast=False)
            imsave(folder / f"{part}_Out" / f"{number}.png", drawn, check_contrast=False)
    made = converted(folder, tmp_path / "data")

    assert len(list((made / "images").iterdir())) == 24
    for number in (0, 2, 10):
        assert np.array_equal(imread(made / "images" / f"train-{number:04d}.png"), image[number])
        assert np.array_equal(read_labels(made / "labels" / f"train-{number:04d}.tif") > 0, truth[number] > 0)


def test_a_slice_without_its_label_is_said(tmp_path):
    folder = tmp_path / "Lucchi++"
    for part in ("Train", "Test"):
        for end, names in (("In", ("mask0000", "mask0001")), ("Out", ("0", "2"))):
            (folder / f"{part}_{end}").mkdir(parents=True)
            for name in names:
                imsave(folder / f"{part}_{end}" / f"{name}.png", np.zeros((8, 8), np.uint8), check_contrast=False)

    with pytest.raises(InputError, match="slice 1 is in only one of Train_In and Train_Out"):
        converted(folder, tmp_path / "data")


@pytest.mark.parametrize("below", ["", "im"], ids=["images in their folder", "as the archive holds them"])
def test_mitoem_keeps_its_instances(tmp_path, below):
    folder = tmp_path / "MitoEM-R"
    base, images = folder / "EM30-R-mito-train-val-v2", folder / "EM30-R-im" / below
    for name in (images, base / "mito-train-v2", base / "mito-val-v2"):
        name.mkdir(parents=True)
    image, truth = stack((2, 16, 20))
    for number, part in ((0, "mito-train-v2"), (400, "mito-val-v2")):
        imsave(images / f"im{number:04d}.png", image[0], check_contrast=False)
        tifffile.imwrite(base / part / f"seg{number:04d}.tif", np.where(truth[0] > 0, 37, 0).astype(np.uint16))
    made = converted(folder, tmp_path / "data")

    assert json.loads((made / "splits.json").read_text()) == {"train": ["R-0000"], "val": ["R-0400"]}
    assert set(np.unique(read_labels(made / "labels" / "R-0400.tif"))) == {0, 37}


def test_what_was_converted_is_not_converted_again(bcss, tmp_path):
    made = converted(bcss, tmp_path / "data")
    before = (made / "splits.json").stat().st_mtime_ns

    assert converted(bcss, tmp_path / "data") == made
    assert (made / "splits.json").stat().st_mtime_ns == before


def test_a_data_set_of_ours_is_taken_as_it_is(tmp_path):
    for name in ("images", "labels"):
        (tmp_path / "set" / name).mkdir(parents=True)

    assert converted(tmp_path / "set", tmp_path / "data") == tmp_path / "set"


def test_another_folder_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(InputError, match="no data set that is known"):
        converted(tmp_path, tmp_path / "data")
