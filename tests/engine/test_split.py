"""Splitting again after a slider has moved."""

import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage as ndi

from napari_semiseg.blocks import Box
from napari_semiseg.engine.control import Control
from napari_semiseg.engine.split import SplitRequest, split, split_from_args
from napari_semiseg.errors import InputError
from napari_semiseg.events import Finished, Progressed, Started, Stop, Warned, Written
from napari_semiseg.io.result import Result
from napari_semiseg.io.result_card import result_state
from napari_semiseg.io.result_writer import ResultWriter
from napari_semiseg.metrics import compare
from napari_semiseg.postprocess.instances import split_nuclei


def blobs(shape, seed=0, scale=4.0):
    noise = ndi.gaussian_filter(np.random.default_rng(seed).normal(size=shape), scale)
    return np.rint(255 / (1 + np.exp(-60 * noise))).astype(np.uint8)


@pytest.fixture
def result(tmp_path):
    """Write a result of 400 x 500 with the nuclei of the default split; return its path and its confidence."""
    confidence = blobs((400, 500))
    path = tmp_path / "field.ome.zarr"
    with ResultWriter.create(path, confidence.shape, ["nucleus"], mpp=0.25) as writer:
        whole = Box.whole(confidence.shape)
        writer.write_confidence(whole, confidence)
        writer.write_nuclei(whole, split_nuclei(confidence))
        writer.finish()
    return path, confidence


def written(events, what="nuclei"):
    return next(event for event in events if isinstance(event, Written) and event.what == what)


def test_the_rectangle_in_view_is_split_as_the_whole_image_would_be(result, tmp_path):
    path, confidence = result
    box = (100, 150, 300, 350)
    request = SplitRequest(source=str(path), out=str(tmp_path / "view.npy"), box=box, threshold=0.6, min_area=20)

    events = list(split(request))

    labels = np.load(written(events).path)
    expected = split_nuclei(confidence, threshold=0.6, min_area=20)[Box(*box).slices]
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finished)
    assert labels.dtype == np.uint32
    assert written(events).facts == {"box": list(box), "downsample": 1, "nuclei": int(labels.max())}
    assert set(np.unique(labels)) == set(range(int(labels.max()) + 1))
    assert compare(labels, expected).pq == 1


def test_the_smallest_nucleus_may_be_given_in_um2_and_the_result_keeps_it_in_its_pixels(result):
    path, confidence = result
    list(split(SplitRequest(source=str(path), min_area_um2=10.0, apply=True)))
    after = Result.open(path)
    labels = after.nuclei(Box.whole(confidence.shape))
    np.testing.assert_array_equal(labels, split_nuclei(confidence, min_area=160, mpp=0.25))
    assert after.card.facts["split"]["min_area"] == 160


def test_a_preview_map_is_split_in_the_images_own_pixels(tmp_path):
    confidence = blobs((120, 130))
    np.save(tmp_path / "map.npy", confidence)
    request = SplitRequest(
        source=str(tmp_path / "map.npy"), out=str(tmp_path / "n.npy"), origin=(1000, 2000), box=(1010, 1990, 1100, 2050)
    )
    events = list(split(request))
    assert written(events).facts["box"] == [1010, 2000, 1100, 2050]
    assert compare(np.load(tmp_path / "n.npy"), split_nuclei(confidence)[10:100, :50]).pq == 1


def test_applied_to_the_result_it_holds_the_new_nuclei_and_is_complete(result):
    path, confidence = result
    events = list(split(SplitRequest(source=str(path), threshold=0.7, apply=True)))
    after = Result.open(path)
    labels = after.nuclei(Box.whole(confidence.shape))
    np.testing.assert_array_equal(labels, split_nuclei(confidence, threshold=0.7, min_area=48, mpp=0.25))
    np.testing.assert_array_equal(after.confidence(Box.whole(confidence.shape))[0], confidence)
    assert after.complete
    assert after.card.facts["split"]["threshold"] == 0.7
    assert written(events, "ome-zarr").facts["nuclei"] == labels.max()


def test_stopped_in_between_it_says_what_is_missing(result):
    path, _ = result
    control = Control()
    control.send(Stop())
    events = list(split(SplitRequest(source=str(path), apply=True), control))
    assert any(isinstance(event, Warned) for event in events)
    assert events[-1].stopped
    assert result_state(path) == "unfinished"


@pytest.mark.parametrize(
    ("array", "reason"),
    [(np.zeros((5, 5)), "float64"), (np.zeros(5, np.uint8), r"\(5,\)"), (np.array([{}], object), "cannot be read")],
)
def test_what_is_no_map_is_refused(array, reason, tmp_path):
    np.save(tmp_path / "odd.npy", array, allow_pickle=True)
    with pytest.raises(InputError, match=reason):
        list(split(SplitRequest(source=str(tmp_path / "odd.npy"), out=str(tmp_path / "n.npy"))))


def test_wrong_requests_are_refused_in_a_sentence(result, tmp_path):
    path, _ = result
    np.save(tmp_path / "map.npy", blobs((20, 20)))
    for args, reason in (
        ({"source": str(path)}, "needs a file"),
        ({"source": str(path), "out": str(tmp_path / "n.npy"), "box": [900, 900, 990, 990]}, "does not lie"),
        ({"source": str(tmp_path / "map.npy"), "apply": True}, "single map"),
        ({"source": str(tmp_path / "none.ome.zarr"), "out": str(tmp_path / "n.npy")}, "no result"),
        ({"source": str(path), "out": str(tmp_path / "n.npy"), "box": [1, 2, 3]}, "box"),
    ):
        with pytest.raises(InputError, match=reason):
            list(split_from_args(args, Control()))


def test_splitting_and_proposing_never_wait_for_torch():
    program = (
        "import sys, napari_semiseg.engine.split, napari_semiseg.engine.propose, napari_semiseg.engine.evaluate; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0


def test_progress_is_told_while_it_is_applied(result):
    assert any(isinstance(event, Progressed) for event in split(SplitRequest(source=str(result[0]), apply=True)))
