"""Nuclei by doubt, and the figures of a region."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from skimage.color import hed2rgb

from napari_semiseg.blocks import Box
from napari_semiseg.engine import review
from napari_semiseg.engine.control import Control
from napari_semiseg.engine.review import (
    DoubtfulRequest,
    RegionRequest,
    doubtful,
    region,
    region_from_args,
)
from napari_semiseg.errors import InputError
from napari_semiseg.events import Finished, Stop, Written
from napari_semiseg.io.result import Result
from napari_semiseg.io.result_writer import ResultWriter
from napari_semiseg.io.stains import OD_PER_UNIT, separated


@pytest.fixture
def result(tmp_path, monkeypatch):
    """Four nuclei on 200 x 300 pixels of 0.5 µm, read in parts of 128: the second lies in four of them."""
    monkeypatch.setattr(review, "CELL", 128)
    labels = np.zeros((200, 300), np.uint32)
    confidence = np.zeros((1, 200, 300), np.uint8)
    for number, (y, x, value) in enumerate([(20, 20, 250), (120, 120, 140), (60, 220, 200), (170, 260, 255)], start=1):
        labels[y : y + 16, x : x + 16] = number
        confidence[0, y : y + 16, x : x + 16] = value
    path = tmp_path / "result.ome.zarr"
    with ResultWriter.create(path, labels.shape, ["nucleus"], mpp=0.5) as writer:
        whole = Box.whole(labels.shape)
        writer.write_confidence(whole, confidence)
        writer.write_nuclei(whole, labels)
        writer.finish()
    return path


def facts_of(events) -> dict:
    (written,) = [event for event in events if isinstance(event, Written)]
    return written.facts


def test_nuclei_come_the_most_doubtful_first_also_those_on_a_seam(result, tmp_path):
    list(doubtful(DoubtfulRequest(source=str(result), out=str(tmp_path / "table.npy"), n=3)))
    table = np.load(tmp_path / "table.npy")

    assert table[:, 0].tolist() == [2, 3, 1]
    np.testing.assert_allclose(table[0, 2:], [127.5, 127.5, 120, 120, 136, 136])
    share = 140 / 255
    assert table[0, 1] == pytest.approx(-share * np.log2(share) - (1 - share) * np.log2(1 - share))


def test_it_ends_when_it_is_asked_to(result, tmp_path):
    control = Control()
    control.send(Stop())
    events = list(doubtful(DoubtfulRequest(source=str(result), out=str(tmp_path / "table.npy")), control))

    assert events[-1] == Finished("doubtful", str(tmp_path / "table.npy"), stopped=True)
    assert np.load(tmp_path / "table.npy")[:, 0].tolist()[-1] == 1


def test_a_region_counts_the_nuclei_whose_center_it_holds(result):
    corners = ((-50.0, -50.0), (-50.0, 149.5), (149.5, 149.5), (149.5, -50.0))  # reaches beyond the image
    facts = facts_of(region(RegionRequest(source=str(result), polygon=corners)))

    assert facts["nuclei"] == 2
    assert facts["area_px"] == pytest.approx(150 * 150, rel=0.02)
    assert facts["area_mm2"] == pytest.approx(facts["area_px"] * 0.25e-6)
    assert facts["per_mm2"] == pytest.approx(2 / facts["area_mm2"])
    assert "positive" not in facts


def test_the_share_of_positive_nuclei_is_told_by_their_dab(result, tmp_path):
    stain = np.zeros((200, 300, 3))
    stain[..., 0] = 0.03
    stain[55:80, 215:240, 2] = 0.1  # an optical density of 0.6 over the third nucleus
    tifffile.imwrite(tmp_path / "image.tif", (hed2rgb(stain) * 255).round().astype(np.uint8), photometric="rgb")
    corners = [[0, 0], [0, 300], [200, 300], [200, 0]]
    args = {"source": str(result), "polygon": corners, "image": str(tmp_path / "image.tif")}
    facts = facts_of(region_from_args(args, Control()))

    assert (facts["nuclei"], facts["positive"], facts["positive_fraction"]) == (4, 1, 0.25)


def test_a_region_beside_the_image_is_refused(result):
    with pytest.raises(InputError, match="does not lie on the result"):
        list(region(RegionRequest(source=str(result), polygon=((500, 500), (500, 600), (600, 600)))))


def test_dark_nuclei_of_hematoxylin_and_eosin_are_not_called_positive(result, tmp_path):
    """Color deconvolution finds a DAB of more than 0.2 in them, though nobody has put any there."""
    pixels = np.full((200, 300, 3), (225, 150, 190), np.uint8)
    pixels[(Result.open(result).nuclei(Box(0, 0, 200, 300)) > 0)] = (60, 35, 80)
    tifffile.imwrite(tmp_path / "image.tif", pixels, photometric="rgb")
    assert separated(pixels)[20, 20, 2] * OD_PER_UNIT > review.POSITIVE_OD
    corners = ((0, 0), (0, 300), (200, 300), (200, 0))
    facts = facts_of(region(RegionRequest(source=str(result), polygon=corners, image=str(tmp_path / "image.tif"))))

    assert facts["nuclei"] == 4
    assert facts["dab"] is False
    assert "positive" not in facts
