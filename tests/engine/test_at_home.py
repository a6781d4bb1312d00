"""A model on the images that labels came from, and on others."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_semiseg.blocks import Box
from napari_semiseg.engine.infer import at_image, confidence_map
from napari_semiseg.engine.predictor import load_predictor
from napari_semiseg.engine.recipe import prepare
from napari_semiseg.engine.train import train
from napari_semiseg.io.images import open_image

CPU = torch.device("cpu")


@pytest.fixture(params=["small_unet", "narrow_stain_unet"])
def of_one_image(request, quick_request, small_dataset, tmp_path):
    """A model whose labels all lie in the first image: twice as many as are worth the stain."""
    labeled = tmp_path / "labeled.txt"
    labeled.write_text("field-0#0\nfield-0#1\n")
    options = {"stain_worth": 64 * 64 / 1e6, "labels_full_at": 1, "caution": 0.0}
    asked = quick_request(
        method="stain_guided", network=request.param, labeled=str(labeled), validation=0, steps=6, set=options
    )
    list(train(asked))
    return load_predictor(tmp_path / "run", CPU)


def confidence(predictor, path: Path) -> np.ndarray:
    image = open_image(path)
    return confidence_map(
        predictor.network, image, Box.whole(image.shape), device=CPU, divisor=predictor.divisor, reach=predictor.reach
    )


def test_labels_of_one_image_count_eight_times_there_and_elsewhere_for_as_much_as_the_stain(of_one_image):
    (share_at_home,) = of_one_image.network.homes.values()

    assert of_one_image.network.share == pytest.approx(1 / 2)
    assert share_at_home == pytest.approx(1 / (1 + 16**2))


def test_a_finished_run_that_is_resumed_still_counts_labels_at_home(of_one_image, quick_request, tmp_path):
    list(train(quick_request(resume=True)))

    again = load_predictor(tmp_path / "run", CPU)
    assert again.network.homes
    assert again.network.homes == of_one_image.network.homes


def test_labels_of_an_image_and_of_its_copy_are_labels_of_one_image(quick_request, small_dataset, tmp_path):
    for folder in ("images", "labels"):
        shutil.copy(small_dataset / folder / "field-0.tif", small_dataset / folder / "copy.tif")
    (small_dataset / "splits.json").write_text('{"train": ["field-0", "copy"]}')
    (tmp_path / "labeled.txt").write_text("field-0#0\nfield-0#1\ncopy#2\n")
    asked = quick_request(method="stain_guided", labeled=str(tmp_path / "labeled.txt"), validation=0)

    told = prepare(asked).batch(0).labeled_pixels
    assert list(told.values()) == [3 * 64 * 64]


def test_the_image_of_the_labels_is_known_wherever_it_lies(of_one_image, small_dataset, tmp_path):
    first, last = (small_dataset / "images" / f"field-{number}.tif" for number in (0, 3))
    moved = Path(shutil.copy(first, tmp_path / "moved.tif"))
    network = of_one_image.network
    seen = {path: confidence(of_one_image, path) for path in (first, moved, last)}
    network.share.copy_(*network.homes.values())
    everywhere = {path: confidence(of_one_image, path) for path in (first, moved, last)}

    np.testing.assert_array_equal(seen[first], everywhere[first])
    np.testing.assert_array_equal(seen[first], seen[moved])
    assert not np.array_equal(seen[last], everywhere[last])


def test_what_predicts_an_image_without_labels_is_the_network_by_itself(of_one_image, small_dataset):
    images = (open_image(small_dataset / "images" / f"field-{number}.tif") for number in (0, 3))
    labeled, other = (list(at_image(of_one_image.network, image).modules()) for image in images)

    assert of_one_image.network in other
    assert of_one_image.network not in labeled
