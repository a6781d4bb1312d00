"""Review: nuclei by doubt, a region, and two runs, over a viewer without a window; what is computed, is computed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from qtpy.QtGui import QGuiApplication

from napari_semiseg.app.nuclei_review import beside
from napari_semiseg.app.painting import BACKGROUND_ID
from napari_semiseg.blocks import Box
from napari_semiseg.engine.control import Control
from napari_semiseg.engine.serve import VERBS
from napari_semiseg.errors import InputError
from napari_semiseg.events import Failed
from napari_semiseg.io.result_writer import ResultWriter
from napari_semiseg.plugin.layers import of_role
from napari_semiseg.plugin.region_tool import figures
from napari_semiseg.project.folder import ProjectFolder

SIDE = 512
NUCLEI = {1: (100, 100), 2: (110, 160), 3: (400, 400), 4: (300, 60)}
"""Number of a nucleus of the result to its center; the lower the number, the more it is in doubt."""
RADIUS = 8


def nuclei_and_confidence() -> tuple[np.ndarray, np.ndarray]:
    """What a network might have found: uint32, and uint8 of one class."""
    rows, columns = np.indices((SIDE, SIDE))
    labels = np.zeros((SIDE, SIDE), np.uint32)
    for number, (y, x) in NUCLEI.items():
        labels[(rows - y) ** 2 + (columns - x) ** 2 <= RADIUS**2] = number
    return labels, np.where(labels, 140 + 20 * labels, 0).astype(np.uint8)[None]


def write_result(path: Any, labels: np.ndarray, confidence: np.ndarray, **facts: Any) -> None:
    split = {"threshold": 0.5, "strength": 0.5, "min_area": 40}
    whole = Box.whole(labels.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    with ResultWriter.create(
        path, labels.shape, ["nucleus"], mpp=0.5, facts={"nuclei": int(labels.max()), "split": split, **facts}
    ) as writer:
        writer.write_confidence(whole, confidence)
        writer.write_nuclei(whole, labels)
        writer.finish()


@pytest.fixture
def reviewed(open_dock, tissue, tmp_path) -> Any:
    """A dock whose image has a result, in a project with four complete tiles; the last is the one set aside."""
    with ProjectFolder.create(tmp_path / "case") as folder:
        folder.add_array(tissue, "field", 0.5)
        for y, x in ((10, 10), (10, 400), (10, 300), (360, 360)):
            folder.set_status(folder.add_tile(0, (y, x, y + 30, x + 30)).id, "complete")
        write_result(folder.prediction_path(0), *nuclei_and_confidence())
    hands = open_dock()
    hands.dock.view.open_project(tmp_path / "case.semiseg")
    hands.wait(lambda: of_role(hands.viewer, "nuclei") and len(of_role(hands.viewer, "annotation")) == 4, "the result")
    for step in hands.dock.steps:
        step.set_open(True)
    return hands


def work(hands: Any) -> None:
    """Do, in this process, what the engine is asked for."""
    engine = hands.dock.session.engine
    while engine.job is not None:
        job = engine.job
        try:
            for event in VERBS[job.verb].load()(job.args, Control()):
                engine.apply([(event, job.id)])
        except InputError as error:
            engine.apply([(Failed(str(error), wrong_input=True), job.id)])
        hands.dock.session.run_errands()
    hands.rest(0.1)


def begin(hands: Any) -> Any:
    """Go through the nuclei by doubt."""
    panel = hands.dock.review_panel
    hands.press(panel.begin_nuclei)
    work(hands)
    hands.wait(lambda: panel.nuclei.current is not None, "the nuclei")
    return panel


def key(hands: Any, name: str) -> None:
    """Press a key as the canvas passes it on: to the active layer."""
    layer = hands.viewer.layers.selection.active
    calls = {str(bound): call for bound, call in layer.keymap.items()}
    calls[name](SimpleNamespace())
    hands.rest(0.15)


def painted_at(hands: Any, nucleus: int) -> int:
    """Return what is painted at a nucleus of the result, 0 for nothing."""
    y, x = NUCLEI[nucleus]
    for tile in hands.project.tiles:
        layer = hands.dock.tiles.layer(tile.id)
        if (
            tile.box.y0 <= y < tile.box.y1
            and tile.box.x0 <= x < tile.box.x1
            and layer.data[y - tile.box.y0, x - tile.box.x0]
        ):
            return int(layer.data[y - tile.box.y0, x - tile.box.x0])
    return 0


def test_nuclei_by_doubt_are_judged_with_one_key_each_and_the_last_word_is_taken_back(reviewed):
    reviewed.viewer.layers.selection.active = None
    panel = begin(reviewed)
    assert reviewed.viewer.layers.selection.active == panel.layers.nuclei
    assert [nucleus.number for nucleus in panel.nuclei.nuclei] == [1, 2, 3, 4]

    key(reviewed, "A")
    key(reviewed, "D")
    assert painted_at(reviewed, 1) not in (0, BACKGROUND_ID)
    assert painted_at(reviewed, 2) == BACKGROUND_ID
    assert panel.nuclei_words.text().startswith("3 of 4")
    assert "1 accepted, 1 rejected" in panel.nuclei_words.text()

    key(reviewed, "Ctrl+Z")
    assert painted_at(reviewed, 2) == 0
    assert panel.nuclei.current.number == 2
    assert "1 accepted, 0 rejected" in panel.nuclei_words.text()


def test_whoever_goes_back_and_says_the_opposite_is_believed(reviewed):
    panel = begin(reviewed)
    key(reviewed, "A")
    reviewed.press(panel.back)
    assert "this one accepted" in panel.nuclei_words.text()
    key(reviewed, "D")

    assert painted_at(reviewed, 1) == BACKGROUND_ID
    assert "0 accepted, 1 rejected" in panel.nuclei_words.text()


def test_what_was_painted_by_hand_is_not_taken_for_a_word(reviewed):
    panel = begin(reviewed)
    tile = reviewed.project.add_tile(0, box=Box(60, 60, 150, 150))
    rows, columns = np.indices((90, 90))
    by_hand = np.nonzero((rows - 40) ** 2 + (columns - 43) ** 2 <= RADIUS**2)
    reviewed.dock.tiles.layer(tile.id).data_setitem(by_hand, 7)
    reviewed.viewer.layers.selection.active = panel.layers.nuclei
    key(reviewed, "D")

    assert painted_at(reviewed, 1) == 7
    assert "0 accepted, 0 rejected" in panel.nuclei_words.text()
    assert "your paint stays" in reviewed.dock.message.label.text()


def test_words_on_nuclei_take_nothing_from_the_tiles_that_judge(reviewed):
    """The third nucleus lies beside the tile that is set aside, and a tile of the usual size would reach into it."""
    judges = reviewed.project.validation
    assert len(judges) == 1
    begin(reviewed)
    for _ in NUCLEI:
        key(reviewed, "A")

    assert all(painted_at(reviewed, number) for number in NUCLEI)
    assert reviewed.project.validation == judges
    complete = [tile.box for tile in reviewed.project.tiles if tile.status == "complete"]
    made = [tile.box for tile in reviewed.project.tiles if tile.status != "complete"]
    assert not any(new.intersect(old).area for new in made for old in complete)


def test_nuclei_in_complete_tiles_are_not_asked_about(reviewed):
    tile = reviewed.project.add_tile(0, box=Box(80, 80, 140, 130))
    reviewed.project.set_status(tile.id, "complete")
    panel = begin(reviewed)

    assert [nucleus.number for nucleus in panel.nuclei.nuclei] == [2, 3, 4]


def test_a_moved_slider_ends_the_nuclei_by_doubt_and_what_is_heard_later_of_the_old_ones_counts_for_nothing(reviewed):
    panel = begin(reviewed)
    reviewed.dock.session.review.set_split(threshold=0.7)
    assert panel.nuclei.current is None
    work(reviewed)
    reviewed.press(panel.begin_nuclei)
    panel.nuclei.forget()
    work(reviewed)

    assert panel.nuclei.nuclei == []
    assert not panel.nuclei.waiting


def test_a_result_without_nuclei_is_said(reviewed):
    labels, confidence = nuclei_and_confidence()
    path = reviewed.project.folder.prediction_path(0)
    path.rename(path.with_name("other.ome.zarr"))
    write_result(path, labels * 0, confidence * 0)
    reviewed.dock.session.review.look()
    panel = reviewed.dock.review_panel
    reviewed.wait(lambda: panel.count.text() == "0 nuclei", "the empty result")
    reviewed.press(panel.begin_nuclei)
    work(reviewed)
    reviewed.wait(lambda: not panel.nuclei.waiting, "the answer")

    assert reviewed.dock.message.label.text() == "There is no nucleus in this result."
    assert panel.begin_nuclei.isVisible()


@pytest.mark.parametrize(
    ("other", "left"),
    [
        (Box(0, 0, 20, 20), Box(20, 10, 60, 60)),
        (Box(50, 0, 90, 90), Box(10, 10, 50, 60)),
        (Box(0, 55, 90, 90), Box(10, 10, 60, 55)),
        (Box(70, 70, 90, 90), Box(10, 10, 60, 60)),
        (Box(30, 30, 40, 40), Box(10, 10, 60, 60)),
    ],
)
def test_a_tile_is_cut_as_little_as_keeps_its_nucleus_out_of_another(other, left):
    assert beside(Box(10, 10, 60, 60), other, kept=Box(30, 30, 40, 40)) == left


def draw_region(hands: Any, corners: list[tuple[float, float]]) -> Any:
    """Draw a region as napari's lasso leaves it, and have it counted."""
    panel = hands.dock.review_panel
    hands.press(panel.draw_region)
    (layer,) = of_role(hands.viewer, "region")
    layer.add_polygons(np.array(corners, float))
    work(hands)
    return panel


SQUARE = [(79.5, 79.5), (79.5, 179.5), (179.5, 179.5), (179.5, 79.5)]


def test_a_region_is_counted_copied_and_counted_again_when_the_nuclei_are_others(reviewed):
    panel = draw_region(reviewed, SQUARE)
    counted = panel.figures.text()
    assert counted.startswith("2 nuclei · 0.0025 mm² · ")  # 100 x 100 pixels of 0.5 µm
    assert "% positive" in counted  # the sample is stained with DAB
    reviewed.press(panel.copy)
    assert QGuiApplication.clipboard().text() == counted
    assert reviewed.dock.message.label.text() == f"Copied: {counted}"

    labels, confidence = nuclei_and_confidence()
    path = reviewed.project.folder.prediction_path(0)
    path.rename(path.with_name("other.ome.zarr"))
    write_result(path, np.where(labels == 1, labels, 0), confidence)
    reviewed.dock.session.review.look()
    reviewed.wait(lambda: panel.region.waiting, "the other result")
    assert panel.figures.text() == "counting…"
    work(reviewed)
    assert panel.figures.text().startswith("1 nucleus")


def test_an_empty_region_is_said_and_none(reviewed):
    panel = draw_region(reviewed, [(100.0, 100.0)] * 3)
    (layer,) = of_role(reviewed.viewer, "region")

    assert len(layer.data) == 0
    assert reviewed.dock.message.label.text().startswith("That region is empty")
    assert panel.figures.text() == ""
    assert panel.region.drawing  # the next stroke may be a better one


def test_a_region_beside_the_image_is_said_once(reviewed):
    panel = draw_region(reviewed, [(-90.0, -90.0), (-90.0, -10.0), (-10.0, -10.0)])
    assert "does not lie on the image" in reviewed.dock.message.label.text()
    reviewed.dock.session.hush()
    reviewed.dock.session.review.result_changed.emit()
    work(reviewed)

    assert panel.figures.text() == ""
    assert reviewed.dock.session.notice is None


def test_figures_of_a_region_that_is_gone_are_not_shown(reviewed):
    panel = reviewed.dock.review_panel
    reviewed.press(panel.draw_region)
    (layer,) = of_role(reviewed.viewer, "region")
    layer.add_polygons(np.array(SQUARE))
    reviewed.viewer.layers.remove(layer)
    work(reviewed)

    assert panel.figures.text() == ""
    assert panel.copy.isHidden()


def test_a_region_says_what_is_not_known():
    assert figures({"nuclei": 3, "area_px": 2500}) == "3 nuclei · 2,500 pixels of unknown size"
    known = {"nuclei": 1, "area_px": 2500, "area_mm2": 0.01, "per_mm2": 100.0}
    assert figures({**known, "dab": False}) == "1 nucleus · 0.01 mm² · 100 per mm² · no DAB in this image"
    assert figures({**known, "dab": True, "positive": 1, "positive_fraction": 1.0}).endswith(" · 100 % positive (1)")
    assert figures({**known, "nuclei": 0, "dab": True, "positive": 0, "positive_fraction": 0.0}).startswith("0 nuclei")
