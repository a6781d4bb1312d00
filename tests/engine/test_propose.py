"""Nuclei before any training."""

import numpy as np
import pytest
import tifffile
import torch
from skimage.data import immunohistochemistry
from torch import nn

from napari_semiseg.app.tile_proposals import class_names
from napari_semiseg.engine import predictor as predictor_module
from napari_semiseg.engine import propose as propose_module
from napari_semiseg.engine import typical as typical_module
from napari_semiseg.engine.control import Control
from napari_semiseg.engine.predictor import Predictor
from napari_semiseg.engine.propose import propose_from_args
from napari_semiseg.errors import InputError
from napari_semiseg.events import Finished, Started, Written
from napari_semiseg.metrics import compare
from napari_semiseg.postprocess import proposal
from napari_semiseg.postprocess.instances import split_nuclei


def proposed(image, out, **changes):
    events = list(propose_from_args({"image": str(image), "out": str(out), **changes}, Control()))
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finished)
    files = {event.what: np.load(event.path) for event in events if isinstance(event, Written)}
    return files["confidence"], files["nuclei"], events[-1].facts


@pytest.fixture
def tissue(tmp_path):
    path = tmp_path / "tissue.tif"
    tifffile.imwrite(path, immunohistochemistry(), photometric="rgb")
    return path


def test_the_nuclei_of_a_rectangle_are_split_as_those_of_the_image_around_it(tissue, tmp_path):
    _, whole, _ = proposed(tissue, tmp_path / "out")
    _, labels, facts = proposed(tissue, tmp_path / "out", box=[100, 50, 200, 150])
    np.testing.assert_array_equal(labels > 0, whole[100:200, 50:150] > 0)
    assert facts["nuclei"] == len(np.unique(labels)) - 1
    pairs = np.unique(np.stack([labels[labels > 0], whole[100:200, 50:150][labels > 0]]), axis=1)
    assert pairs.shape[1] == facts["nuclei"]  # one to one


def test_a_trained_run_proposes_the_nuclei_of_a_rectangle(tissue, tmp_path):
    from napari_semiseg.engine.requests import TrainRequest
    from napari_semiseg.engine.train import train

    request = TrainRequest(images=[str(tissue)], out=str(tmp_path / "run"), method="hematoxylin_threshold", steps=1)
    list(train(request))
    args = {"image": str(tissue), "out": str(tmp_path / "out"), "run": str(tmp_path / "run")}
    events = list(propose_from_args({**args, "box": [100, 50, 200, 150]}, Control()))
    (written,) = [event for event in events if isinstance(event, Written)]
    labels = np.load(written.path)
    assert labels.shape == (100, 100)
    assert written.facts["nuclei"] == len(np.unique(labels)) - 1 > 5
    with pytest.raises(InputError, match="name one"):
        list(propose_from_args(args, Control()))


class ByColor(nn.Module):
    """A network that takes dark for nucleus, and what is blue in that for another class."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        nucleus = 20 * (0.6 - image[:, 1:2])
        blue = 6 * (image[:, 2:] - image[:, :1]) - 1
        return torch.cat([torch.zeros_like(nucleus), nucleus, nucleus + blue], dim=1)


@pytest.mark.parametrize("several", [True, False])
def test_a_run_with_several_classes_tells_that_of_each_nucleus(tmp_path, discs, monkeypatch, several):
    labels = discs(40, shape=(200, 200), radius=9)
    colors = np.array([[220, 220, 220], [60, 60, 180], [90, 60, 90]], np.uint8)
    tifffile.imwrite(tmp_path / "field.tif", colors[np.where(labels > 0, 1 + labels % 2, 0)], photometric="rgb")
    network = ByColor() if several else nn.Sequential(ByColor(), nn.Conv2d(3, 2, 1, bias=False))
    if not several:
        network[1].weight.data = torch.tensor([[1.0, 0, 0], [0, 1, 0]])[..., None, None]
    classes = ("background", "red", "blue") if several else ("background", "nucleus")
    run = Predictor(network.eval(), classes, 1, 0, None, 0.5, 7, torch.device("cpu"))
    monkeypatch.setattr(predictor_module, "load_predictor", lambda path, device: run)
    args = {"image": str(tmp_path / "field.tif"), "out": str(tmp_path / "out"), "run": "a run"}
    events = list(propose_from_args({**args, "box": [20, 30, 180, 190]}, Control()))
    (written,) = [event for event in events if isinstance(event, Written)]
    found, truth = np.load(written.path), labels[20:180, 30:190]
    names = class_names(found, written.facts)
    if not several:
        assert names == {}
        return

    both = (found > 0) & (truth > 0)
    assert both.sum() > 0.9 * (truth > 0).sum()
    said = np.array([names[number] for number in found[both].tolist()])
    np.testing.assert_array_equal(said, np.where(truth[both] % 2, "red", "blue"))


def test_a_field_is_proposed_whole_by_its_own_threshold(tissue, tmp_path):
    mask, expected = proposal.propose(immunohistochemistry())
    confidence, labels, facts = proposed(tissue, tmp_path / "out")
    np.testing.assert_array_equal(confidence, expected)
    np.testing.assert_array_equal(confidence >= 128, mask)
    np.testing.assert_array_equal(labels, split_nuclei(confidence))
    assert facts["box"] == [0, 0, 512, 512]
    assert facts["stain"] == "hematoxylin"
    assert facts["nuclei"] == labels.max() > 50


def test_a_rectangle_is_proposed_as_in_the_whole_field(tissue, tmp_path):
    confidence, _, facts = proposed(tissue, tmp_path / "out", box=[100, 50, 300, 900])
    assert facts["box"] == [100, 50, 300, 512]
    np.testing.assert_array_equal(confidence, proposal.propose(immunohistochemistry())[1][100:300, 50:512])


def test_gray_images_are_proposed_by_intensity(tmp_path, discs):
    labels = discs(20, shape=(150, 200), radius=9)
    rng = np.random.default_rng(0)
    image = np.where(labels > 0, 3000, 400) + rng.normal(0, 60, labels.shape)
    tifffile.imwrite(tmp_path / "dapi.tif", image.astype(np.uint16))
    _, found, facts = proposed(tmp_path / "dapi.tif", tmp_path / "out")
    assert facts["stain"] == "intensity"
    counts = compare(found, labels)
    assert counts.matched == counts.truth == counts.predicted == 20


def test_on_a_slide_the_part_with_most_tissue_is_proposed_and_glass_does_not_move_the_threshold(tmp_path, monkeypatch):
    for name, value in (("LARGEST", 600), ("WINDOW", 512), ("_CELL", 128), ("OVERVIEW", 256)):
        for place in (propose_module, typical_module):
            monkeypatch.setattr(place, name, value, raising=hasattr(place, name))
    slide = np.full((1024, 1536, 3), 244, np.uint8)
    slide[512:, 1024:] = immunohistochemistry()
    tifffile.imwrite(tmp_path / "slide.tif", slide, photometric="rgb")

    confidence, _, facts = proposed(tmp_path / "slide.tif", tmp_path / "out")

    mask, _ = proposal.propose(immunohistochemistry())
    assert facts["box"] == [512, 1024, 1024, 1536]
    assert ((confidence >= 128) == mask).mean() > 0.95
    other, _, elsewhere = proposed(tmp_path / "slide.tif", tmp_path / "out", box=[400, 900, 700, 1200])
    assert elsewhere["threshold"] == facts["threshold"]
    np.testing.assert_array_equal(other[112:, 124:], confidence[:188, :176])


def test_a_blank_image_has_no_nuclei(tmp_path):
    tifffile.imwrite(tmp_path / "blank.tif", np.full((40, 50, 3), 240, np.uint8), photometric="rgb")
    confidence, labels, facts = proposed(tmp_path / "blank.tif", tmp_path / "out")
    assert not labels.any()
    assert confidence.max() < 128
    assert facts["nuclei"] == 0


def test_wrong_requests_are_refused_in_a_sentence(tissue, tmp_path):
    for args, reason in (
        ({"box": [600, 600, 700, 700]}, "does not lie"),
        ({"image": str(tmp_path / "none.tif")}, "none.tif"),
        ({"strength": 2}, "strength"),
    ):
        with pytest.raises(InputError, match=reason):
            proposed(**{"image": tissue, "out": tmp_path / "out", **args})
