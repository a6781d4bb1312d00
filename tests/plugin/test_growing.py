"""A result that is looked at while it is being written."""

import numpy as np
import pytest
from napari.layers.labels._labels_utils import get_contours

from napari_semiseg.blocks import Box
from napari_semiseg.io.nucleus import Place
from napari_semiseg.io.parquet import write_parquet
from napari_semiseg.io.result_writer import ResultWriter, discard_result
from napari_semiseg.io.table import measure
from napari_semiseg.plugin import result_layers
from napari_semiseg.plugin.lazy_array import SQUARE
from napari_semiseg.plugin.lazy_result import numbered_outlines
from napari_semiseg.plugin.result_layers import growing_levels, nuclei_colormap, read_result


@pytest.fixture
def started(open_dock, tissue, tmp_path):
    """A project on an image, and a place for its result."""
    hands = open_dock(tissue, scale=(0.5, 0.5))
    hands.dock.view.choose_target(tmp_path / "field.semiseg")
    hands.press(hands.dock.slide_panel.start)
    hands.wait(lambda: hands.dock.view.started, "starting a project")
    return hands, tmp_path / "growing.ome.zarr", tissue.shape[:2]


def test_nuclei_appear_while_they_are_found_and_make_place_for_the_result(started, monkeypatch):
    hands, path, shape = started
    monkeypatch.setattr(result_layers, "GROW_S", 0.0)
    monkeypatch.setattr(result_layers, "STILL_S", 0.0)
    review, layers = hands.dock.session.review, hands.dock.review_panel.layers
    half = Box(0, 0, 40, shape[1])
    review.growing = path
    review.grown.emit()
    hands.rest()
    assert layers.growing is None  # nothing is there yet

    with ResultWriter.create(path, shape, ["nucleus"]) as writer:
        writer.write_nuclei(half, np.full(half.shape, 7, np.uint32))
        review.grown.emit()
        hands.wait(lambda: layers.growing is not None, "the layer")
        assert layers.growing in hands.viewer.layers
        assert tuple(layers.growing.scale) == (0.5, 0.5)
        assert set(np.unique(layers.growing.data[:80, :80])) == {0, 7}
        assert not layers.growing.data[60:].any()
        hands.viewer.layers.selection.active = layers.growing
        hands.dock._prepare_menu()
        assert not hands.dock.import_menu.layer.isEnabled(), "its outlines are no nuclei"
        rest = Box(40, 0, *shape)
        writer.write_nuclei(rest, np.full(rest.shape, 9, np.uint32))
        review.grown.emit()
        assert set(np.unique(layers.growing.data[:80, :80])) == {0, 7, 9}  # an outline on either side of row 40

    discard_result(path)
    assert not np.asarray(layers.growing.data).any()  # canceled: nothing fails while the layer is still there
    review.growing = None
    review.grown.emit()
    assert layers.growing is None
    assert not [layer for layer in hands.viewer.layers if "being found" in layer.name]


def test_what_grows_is_looked_at_again_once_the_view_rests(started, monkeypatch):
    hands, path, shape = started
    monkeypatch.setattr(result_layers, "GROW_S", 0.0)
    hands.rest()
    review, layers = hands.dock.session.review, hands.dock.review_panel.layers
    review.growing = path
    with ResultWriter.create(path, shape, ["nucleus"]) as writer:
        writer.write_nuclei(Box.whole(shape), np.ones(shape, np.uint32))
        hands.wait(lambda: review.grown.emit() or layers.growing is not None, "the layer")
        looks = []
        monkeypatch.setattr(layers.growing, "refresh", lambda **_: looks.append(1))

        hands.viewer.scene.camera.center = (0, 5, 5)
        review.grown.emit()
        assert not looks
        hands.wait(lambda: review.grown.emit() or looks, "a look once the view rests")


def test_every_level_of_a_growing_result_can_be_looked_at(tmp_path):
    path = tmp_path / "large.ome.zarr"
    shape = (2500, 2100)
    assert growing_levels(path) == []
    with ResultWriter.create(path, shape, ["nucleus"]) as writer:
        cell = Box(0, 0, 2048, 2048)
        labels = np.zeros(cell.shape, np.uint32)
        labels[512:1024, 512:1024] = 3
        writer.write_levels("nuclei", cell, labels)
        levels = growing_levels(path)

        assert [level.shape for level in levels] == [(2500, 2100), (1250, 1050), (625, 525), (313, 263)]
        for number, level in enumerate(levels):
            first, last = 512 >> number, (1024 >> number) - 1
            expected = np.zeros(level.shape, np.uint32)
            expected[first : last + 1, first : last + 1] = 3
            expected[first + 1 : last, first + 1 : last] = 0
            np.testing.assert_array_equal(level[:], expected, err_msg=f"level {number}")
            assert level.nbytes == level[:].nbytes


def test_a_result_in_levels_is_taken_in_squares_whether_it_is_in_memory_or_not(tmp_path, monkeypatch):
    monkeypatch.setattr(result_layers, "ONE_LEVEL", 100)
    shape = (600, 1100)
    with ResultWriter.create(tmp_path / "r.ome.zarr", shape, ["nucleus"]) as writer:
        values = np.arange(shape[0] * shape[1], dtype=np.uint32).reshape(shape)
        writer.write_nuclei(Box.whole(shape), values)
        writer.write_confidence(Box.whole(shape), np.full((1, *shape), 9, np.uint8))
        writer.finish()
    for most in (0, 10**9):
        monkeypatch.setattr(result_layers, "WHOLE_PIXELS", most)
        shown = read_result(tmp_path / "r.ome.zarr")
        assert len(shown.nuclei) == len(shown.confidence) > 1
        assert {level.chunks for level in (*shown.nuclei, *shown.confidence)} == {(SQUARE, SQUARE)}
        np.testing.assert_array_equal(shown.nuclei[0][300:310, 990:], values[300:310, 990:])


def test_outlines_are_those_that_napari_draws(discs):
    labels = discs(200, shape=(300, 400), radius=9).astype(np.uint32)
    assert len(np.unique(labels)) > 100
    np.testing.assert_array_equal(numbered_outlines(labels), get_contours(labels, 1, 0))
    far = np.where(labels, labels + np.uint32(1000), 0)
    shown = nuclei_colormap().map(get_contours(far, 1, 0))
    np.testing.assert_array_equal(nuclei_colormap().map(numbered_outlines(far)), shown)


def test_measured_nuclei_are_features_of_their_layer(started, tmp_path):
    hands, _, shape = started
    layers = hands.dock.review_panel.layers
    hands.rest()  # what follows the start of a project has been done
    labels = np.zeros(shape, np.uint32)
    labels[10:20, 10:30], labels[50:60, 50:60] = 4, 9
    write_parquet(tmp_path / "x.parquet", [measure(labels, mpp=0.5)], Place())
    layers.nuclei = layers._add_nuclei([labels], "Nuclei", {})
    hands.dock.session.review.table = tmp_path / "x.parquet"
    hands.dock.session.review.table_changed.emit()
    hands.wait(lambda: len(layers.nuclei.features), "the features")

    rows = layers.nuclei.features
    assert rows["index"].tolist() == [4, 9]
    assert rows["area_um2"].tolist() == [50, 25]
    assert "area_um2: 50," in layers.nuclei.get_status((12, 12), world=False)["value"]
