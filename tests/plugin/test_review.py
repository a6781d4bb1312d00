"""Review: nuclei by doubt, a region, and two runs, over a viewer without a window; what is computed, is computed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from napari.layers import Labels
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QLabel

from napari_semiseg.app import comparison as comparison_module
from napari_semiseg.app.nuclei_review import beside
from napari_semiseg.app.onward import without_result
from napari_semiseg.app.painting import BACKGROUND_ID, is_proposed
from napari_semiseg.blocks import Box
from napari_semiseg.engine.control import Control
from napari_semiseg.engine.serve import VERBS
from napari_semiseg.errors import InputError
from napari_semiseg.events import (
    BlockDone,
    Failed,
    Finished,
    PreviewWritten,
    Started,
    StepDone,
    Validated,
    Written,
    encode,
)
from napari_semiseg.io.result import Result
from napari_semiseg.io.result_writer import ResultWriter
from napari_semiseg.plugin import result_layers
from napari_semiseg.plugin.layers import of_role, tag
from napari_semiseg.plugin.region_tool import figures
from napari_semiseg.project.folder import ProjectFolder
from napari_semiseg.project.schema import with_class

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


def write_result(path: Any, labels: np.ndarray, confidence: np.ndarray, mpp: float | None = 0.5, **facts: Any) -> None:
    split = {"threshold": 0.5, "strength": 0.5, "min_area": 40}
    whole = Box.whole(labels.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    with ResultWriter.create(
        path, labels.shape, ["nucleus"], mpp=mpp, facts={"nuclei": int(labels.max()), "split": split, **facts}
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
    """Do, in this process, what the engine is asked for; a prediction finds what `OF_RUNS` says."""
    engine = hands.dock.session.engine
    while engine.job is not None:
        if (job := engine.aside or engine.job).verb == "train":
            break
        try:
            if job.verb == "predict":
                engine.apply([(predict(hands, job.args), job.id)])
                continue
            for event in VERBS[job.verb].load()(job.args, Control()):
                engine.apply([(event, job.id)])
        except InputError as error:
            engine.apply([(Failed(str(error), wrong_input=True), job.id)])
        hands.dock.session.run_errands()
    hands.rest(0.1)


OF_RUNS = {"run-1": (1, 2), "run-2": (1, 2, 3, 4)}
"""Nuclei that each run finds."""


def predict(hands: Any, args: Mapping[str, Any]) -> Finished:
    """Write a result, as a prediction would."""
    out, run = Path(args["out"]), Path(args["run"])
    shutil.rmtree(out, ignore_errors=True)
    labels, confidence = nuclei_and_confidence()
    found = np.isin(labels, OF_RUNS[run.name])
    write_result(out, labels * found, confidence * found, run=str(run))
    return Finished("predict", str(out))


def begin(hands: Any) -> Any:
    """Go through the nuclei by doubt."""
    panel = hands.dock.review_panel
    hands.press(panel.by_doubt.begin)
    work(hands)
    hands.wait(lambda: panel.by_doubt.nuclei.current is not None, "the nuclei")
    return panel


def key(hands: Any, name: str) -> None:
    """Press a key as the canvas passes it on: to the active layer."""
    layer = hands.viewer.layers.selection.active
    calls = {str(bound): call for bound, call in layer.keymap.items()}
    calls[name](SimpleNamespace())
    hands.wait(lambda: not hands.dock.session.background.pending, "what the key asks for")
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
    assert [nucleus.number for nucleus in panel.by_doubt.nuclei.nuclei] == [1, 2, 3, 4]

    key(reviewed, "A")
    key(reviewed, "D")
    assert painted_at(reviewed, 1) not in (0, BACKGROUND_ID)
    assert painted_at(reviewed, 2) == BACKGROUND_ID
    assert panel.by_doubt.words.text().startswith("3 of 4")
    assert "1 accepted, 1 rejected" in panel.by_doubt.words.text()

    key(reviewed, "Ctrl+Z")
    assert painted_at(reviewed, 2) == 0
    assert panel.by_doubt.nuclei.current.number == 2
    assert "1 accepted, 0 rejected" in panel.by_doubt.words.text()


def test_an_accepted_nucleus_is_of_the_class_that_the_result_gives_it(open_dock, tissue, tmp_path):
    labels, confidence = nuclei_and_confidence()
    with ProjectFolder.create(tmp_path / "case") as folder:
        folder.add_array(tissue, "field", 0.5)
        folder.set_classes(with_class(with_class(folder.classes, "stroma"), "Tumor"))
        with ResultWriter.create(folder.prediction_path(0), labels.shape, ["tumor", "nucleus", "lost"]) as writer:
            writer.write_confidence(Box.whole(labels.shape), np.concatenate([confidence, confidence // 2, confidence]))
            writer.write_nuclei(Box.whole(labels.shape), labels)
            writer.write_classes(Box.whole(labels.shape), np.minimum(labels, 3).astype(np.uint8))
            writer.finish()
    hands = open_dock()
    hands.dock.view.open_project(tmp_path / "case.semiseg")
    hands.wait(lambda: of_role(hands.viewer, "nuclei"), "the result")
    hands.dock.steps[3].set_open(True)
    hands.dock.tiles.choose_pen(3)  # "stroma": of what the project has no class for
    panel = begin(hands)
    for _ in panel.by_doubt.nuclei.nuclei:
        key(hands, "A")
    hands.wait(lambda: "4 accepted" in panel.by_doubt.words.text(), "the words")
    hands.saved()

    classes = np.zeros(labels.shape, np.uint8)
    with ProjectFolder.open(hands.project.path, read_only=True) as folder:
        for tile in folder.tiles:
            classes[tile.box.slices] = np.maximum(classes[tile.box.slices], folder.annotation(tile.id).classes)
    assert [classes[NUCLEI[number]] for number in (1, 2, 3, 4)] == [4, 2, 3, 3]


def test_whoever_goes_back_and_says_the_opposite_is_believed(reviewed):
    panel = begin(reviewed)
    key(reviewed, "A")
    reviewed.press(panel.by_doubt.back)
    assert "this one accepted" in panel.by_doubt.words.text()
    key(reviewed, "D")

    assert painted_at(reviewed, 1) == BACKGROUND_ID
    assert "0 accepted, 1 rejected" in panel.by_doubt.words.text()


def test_what_was_painted_by_hand_is_not_taken_for_a_word(reviewed):
    panel = begin(reviewed)
    tile = reviewed.project.add_tile(0, box=Box(60, 60, 150, 150))
    rows, columns = np.indices((90, 90))
    by_hand = np.nonzero((rows - 40) ** 2 + (columns - 43) ** 2 <= RADIUS**2)
    reviewed.dock.tiles.layer(tile.id).data_setitem(by_hand, 7)
    reviewed.viewer.layers.selection.active = panel.layers.nuclei
    key(reviewed, "D")

    assert painted_at(reviewed, 1) == 7
    assert "0 accepted, 0 rejected" in panel.by_doubt.words.text()
    assert "your paint stays" in reviewed.dock.message.label.text()


def test_a_word_on_a_nucleus_whose_tile_is_not_read_is_not_taken_for_painted_over(reviewed):
    panel = begin(reviewed)
    tile = reviewed.project.add_tile(0, box=Box(60, 60, 150, 150), select=False)
    reviewed.dock.tiles._tiles.pop(tile.id)  # as long as it is being read, or where its file is damaged
    reviewed.viewer.layers.selection.active = panel.layers.nuclei
    key(reviewed, "A")

    assert "is not read yet" in reviewed.dock.session.notice.sentence
    assert "0 accepted" in panel.by_doubt.words.text()


def test_keys_of_a_result_lead_through_its_nuclei_in_doubt_and_before_that_from_tile_to_tile(reviewed):
    panel = reviewed.dock.review_panel
    reviewed.dock.tiles_panel.go_to("t0001")
    reviewed.viewer.layers.selection.active = panel.layers.nuclei
    key(reviewed, "N")
    assert reviewed.project.selected == "t0002"
    begin(reviewed)
    key(reviewed, "N")
    assert panel.by_doubt.words.text().startswith("2 of 4")
    assert reviewed.project.selected == "t0002"
    key(reviewed, "S")
    assert reviewed.dock.suggestions.waiting


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

    assert [nucleus.number for nucleus in panel.by_doubt.nuclei.nuclei] == [2, 3, 4]


def test_a_moved_slider_ends_the_nuclei_by_doubt_and_what_is_heard_later_of_the_old_ones_counts_for_nothing(reviewed):
    panel = begin(reviewed)
    reviewed.dock.session.review.set_split(threshold=0.7)
    assert panel.by_doubt.nuclei.current is None
    work(reviewed)
    reviewed.press(panel.by_doubt.begin)
    panel.by_doubt.nuclei.forget()
    work(reviewed)

    assert panel.by_doubt.nuclei.nuclei == []
    assert not panel.by_doubt.nuclei.waiting


def test_a_result_without_nuclei_is_said(reviewed):
    labels, confidence = nuclei_and_confidence()
    path = reviewed.project.folder.prediction_path(0)
    path.rename(path.with_name("other.ome.zarr"))
    write_result(path, labels * 0, confidence * 0)
    reviewed.dock.session.review.look()
    panel = reviewed.dock.review_panel
    reviewed.wait(lambda: panel.count.text() == "0 nuclei", "the empty result")
    reviewed.press(panel.by_doubt.begin)
    work(reviewed)
    reviewed.wait(lambda: not panel.by_doubt.nuclei.waiting, "the answer")

    assert reviewed.dock.message.label.text() == "There is no nucleus in this result."
    assert panel.by_doubt.begin.isVisible()


def test_an_empty_table_of_nuclei_is_said_and_they_can_be_asked_for_again(reviewed, tmp_path):
    (tmp_path / "empty.npy").touch()
    panel, engine = reviewed.dock.review_panel, reviewed.dock.session.engine
    work(reviewed)
    reviewed.press(panel.by_doubt.begin)
    engine.apply([(Written("doubtful", str(tmp_path / "empty.npy")), engine.job.id)])
    engine.apply([(Finished("doubtful"), engine.job.id)])
    reviewed.wait(lambda: not panel.by_doubt.nuclei.waiting, "the end of the wait", 10)

    assert "The nuclei cannot be looked at" in reviewed.dock.message.label.text()
    assert begin(reviewed).by_doubt.nuclei.current.number == 1


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
    hands.press(panel.region.draw)
    (layer,) = of_role(hands.viewer, "region")
    layer.add_polygons(np.array(corners, float))
    work(hands)
    return panel


SQUARE = [(79.5, 79.5), (79.5, 179.5), (179.5, 179.5), (179.5, 79.5)]


def test_a_region_is_counted_copied_and_counted_again_when_the_nuclei_are_others(reviewed):
    panel = draw_region(reviewed, SQUARE)
    counted = panel.region.figures.text()
    assert counted.startswith("2 nuclei · 0.0025 mm² · ")  # 100 x 100 pixels of 0.5 µm
    assert "% positive" in counted  # the sample is stained with DAB
    reviewed.press(panel.region.copy)
    assert QGuiApplication.clipboard().text() == counted
    assert reviewed.dock.message.label.text() == f"Copied: {counted}"

    labels, confidence = nuclei_and_confidence()
    path = reviewed.project.folder.prediction_path(0)
    path.rename(path.with_name("other.ome.zarr"))
    write_result(path, np.where(labels == 1, labels, 0), confidence)
    reviewed.dock.session.review.look()
    reviewed.wait(lambda: panel.region.tool.waiting, "the other result")
    assert panel.region.figures.text() == "counting…"
    work(reviewed)
    assert panel.region.figures.text().startswith("1 nucleus")


def test_what_only_looks_at_the_result_is_answered_beside_a_training(reviewed):
    panel, session = reviewed.dock.review_panel, reviewed.dock.session
    work(reviewed)
    session.show_box(Box(0, 0, SIDE, SIDE))
    session.training.request_train()
    job = session.engine.job.id
    reviewed.press(panel.region.draw)
    (layer,) = of_role(reviewed.viewer, "region")
    layer.add_polygons(np.array(SQUARE))
    panel.sliders.threshold.setValue(0.6)
    reviewed.press(panel.by_doubt.begin)
    work(reviewed)
    reviewed.wait(lambda: panel.by_doubt.nuclei.current is not None, "the nuclei")

    assert session.engine.job.id == job
    assert panel.region.figures.text().startswith("2 nuclei")
    assert session.review.live.nuclei == 4
    session.engine.apply([(Started("train", "", 100), job), (StepDone(0, {"sup": 1.0}, {}, 1.0, 170.0), job)])
    reviewed.wait(panel.sliders.waits.isVisible, "what waits")
    assert panel.sliders.waits.text() == "The saved result waits for the training, about 3 min left"
    session.engine.apply([(Finished("train", "", stopped=True, canceled=True), job)])
    assert panel.sliders.waits.isHidden()
    assert "doubt" in panel.by_doubt.words.text()


def test_an_empty_region_is_said_and_none(reviewed):
    panel = draw_region(reviewed, [(100.0, 100.0)] * 3)
    (layer,) = of_role(reviewed.viewer, "region")

    assert len(layer.data) == 0
    assert reviewed.dock.message.label.text().startswith("That region is empty")
    assert panel.region.figures.text() == ""
    assert panel.region.tool.drawing  # the next stroke may be a better one


def test_a_region_beside_the_image_is_said_once(reviewed):
    panel = draw_region(reviewed, [(-90.0, -90.0), (-90.0, -10.0), (-10.0, -10.0)])
    assert "does not lie on the image" in reviewed.dock.message.label.text()
    reviewed.dock.session.hush()
    reviewed.dock.session.review.result_changed.emit()
    work(reviewed)

    assert panel.region.figures.text() == ""
    assert reviewed.dock.session.notice is None


def test_figures_of_a_region_that_is_gone_are_not_shown(reviewed):
    panel = reviewed.dock.review_panel
    reviewed.press(panel.region.draw)
    (layer,) = of_role(reviewed.viewer, "region")
    layer.add_polygons(np.array(SQUARE))
    reviewed.viewer.layers.remove(layer)
    work(reviewed)

    assert panel.region.figures.text() == ""
    assert panel.region.copy.isHidden()


def test_a_region_says_what_is_not_known():
    assert figures({"nuclei": 3, "area_px": 2500}) == "3 nuclei · 2,500 pixels of unknown size"
    known = {"nuclei": 1, "area_px": 2500, "area_mm2": 0.01, "per_mm2": 100.0}
    assert figures({**known, "dab": False}) == "1 nucleus · 0.01 mm² · 100 per mm² · no DAB in this image"
    assert figures({**known, "dab": True, "positive": 1, "positive_fraction": 1.0}).endswith(" · 100 % positive (1)")
    assert figures({**known, "nuclei": 0, "dab": True, "positive": 0, "positive_fraction": 0.0}).startswith("0 nuclei")


def make_run(folder: Path, dice: dict[str, float]) -> None:
    """Leave behind what a training leaves."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "best-9.safetensors").touch()
    (folder / "run.json").write_text("{}")
    scores = {"dice": 0.8, "threshold_dice": 0.7} | {f"dice of {tile}": value for tile, value in dice.items()}
    said = [Started("train", str(folder), 10, {}), StepDone(9, {"sup": 1.0}), Validated(10, scores, True)]
    (folder / "preview").mkdir()
    for step in (5, 10):
        path = folder / "preview" / f"image-0-step-{step:07d}.npy"
        np.save(path, nuclei_and_confidence()[1][0] // (10 // step))
        said.append(PreviewWritten(step, str(path), 0, (0, 0, SIDE, SIDE), 1))
    said.append(Finished("train", str(folder)))
    (folder / "events.jsonl").write_text("".join(f"{encode(event)}\n" for event in said))


@pytest.fixture
def compared(open_dock, tissue, tmp_path) -> Any:
    """A dock whose project has two runs and two images; the older run's result is compared with that of the newer."""
    with ProjectFolder.create(tmp_path / "case") as folder:
        folder.add_array(tissue, "field", 0.5)
        folder.add_array(tissue[::-1].copy(), "next field", 0.5)
        folder.set_status(folder.add_tile(0, (80, 80, 200, 200)).id, "complete")
        make_run(folder.runs_dir / "run-1", {"t1": 0.6, "t2": 0.62})
        make_run(folder.runs_dir / "run-2", {"t1": 0.9, "t2": 0.92})
        predict(None, {"out": folder.prediction_path(0), "run": folder.runs_dir / "run-1"})
    hands = open_dock()
    hands.dock.view.open_project(tmp_path / "case.semiseg")
    panel = hands.dock.review_panel
    hands.wait(lambda: of_role(hands.viewer, "nuclei") and panel.comparing.comparison.runs, "result and runs")
    for step in hands.dock.steps:
        step.set_open(True)
    hands.dock.session.show_box(Box(0, 0, SIDE, SIDE))
    assert [run.path.name for run in panel.comparing.comparison.runs] == ["run-2"]
    panel.comparing.runs.actions()[0].trigger()
    work(hands)
    hands.wait(lambda: of_role(hands.viewer, "difference"), "the difference")
    return hands


def difference_at(hands: Any) -> list[int]:
    (layer,) = of_role(hands.viewer, "difference")
    return [int(layer.data[center]) for center in NUCLEI.values()]


@pytest.mark.parametrize(
    ("most", "where"), [(SIDE, "In the part that was in view"), (60, "In the middle of what was in view")]
)
def test_on_an_image_too_large_to_be_compared_whole_the_view_is_or_its_middle(compared, monkeypatch, most, where):
    panel, view = compared.dock.review_panel, Box(60, 60, 160, 220)
    monkeypatch.setattr(comparison_module, "WIDEST", most - 1 if most == SIDE else most)
    compared.dock.session.show_box(view)
    panel.sliders.threshold.setValue(0.45)

    def again() -> bool:
        work(compared)
        return not compared.dock.session.review.pending and not panel.comparing.comparison.waiting

    compared.wait(again, "the other comparison", 20)
    assert panel.comparing.difference.text().startswith(f"{where}: ")
    assert Box(*panel.comparing.comparison.difference.facts["box"]) == (
        view if most == SIDE else Box(80, 110, 140, 170)
    )


def test_two_runs_are_compared_again_when_a_slider_has_moved(compared):
    """The third nucleus has a confidence of 0.78 and the fourth one of 0.86."""
    panel, review = compared.dock.review_panel, compared.dock.session.review
    assert difference_at(compared) == [2, 2, 3, 3]
    compared.press(panel.comparing.flip)
    panel.sliders.threshold.setValue(0.8)
    assert not panel.comparing.flip.isChecked()  # what the slider moves is to be seen
    (nuclei,), (other,) = of_role(compared.viewer, "nuclei"), of_role(compared.viewer, "other")
    assert (nuclei.visible, other.visible) == (True, False)

    def again() -> bool:
        work(compared)
        return not review.pending and not panel.comparing.comparison.waiting

    compared.wait(again, "the other comparison", 20)
    compared.wait(lambda: difference_at(compared) == [0, 0, 0, 3], "the other difference", 5)
    assert panel.comparing.difference.text() == "On this image: 0 % both, 0 % this run only, 100 % the other only"
    assert panel.comparing.scores.texts()[3:6] == [
        "Pixels (Dice)",
        "1.00",
        "1.00",
    ]  # neither finds any in the tile, and none is
    seen = [label for label in panel.comparing.scores.findChildren(QLabel) if label.isVisible()]
    assert len(seen) == len(panel.comparing.scores.texts())  # none of the scores before shines through


def test_the_smallest_nucleus_is_shown_in_um2_of_an_image_of_known_pixel_size_else_in_pixels(reviewed):
    panel, review = reviewed.dock.review_panel, reviewed.dock.session.review
    assert (panel.sliders.names["min_area"].text(), panel.sliders.min_area.value()) == (
        "Smallest, µm²",
        10.0,
    )  # 40 pixels of 0.5 µm
    panel.sliders.min_area.setValue(12.5)
    assert review.split.min_area_um2 == 12.5

    path = reviewed.project.folder.prediction_path(0)
    shutil.rmtree(path)
    write_result(path, *nuclei_and_confidence(), mpp=None)
    review.look()
    reviewed.wait(lambda: review.mpp is None, "the other result")
    assert (panel.sliders.names["min_area"].text(), panel.sliders.min_area.value()) == ("Smallest, px", 40)
    panel.sliders.min_area.setValue(700)
    assert review.split.min_area == 700


def test_sliders_regions_and_doubt_answer_in_a_window_while_a_training_runs(open_window, tissue, tmp_path):
    with ProjectFolder.create(tmp_path / "case") as folder:
        folder.add_array(tissue, "field", 0.5)
        write_result(folder.prediction_path(0), *nuclei_and_confidence())
    hands = open_window()
    hands.dock.view.open_project(tmp_path / "case.semiseg")
    session, panel = hands.dock.session, hands.dock.review_panel
    hands.wait(lambda: of_role(hands.viewer, "nuclei"), "the result")
    for step in hands.dock.steps:
        step.set_open(True)
    hands.wait(lambda: session.engine.status == "ready", "the engine", 30)
    session.training.request_train()
    hands.wait(lambda: session.training.state == "running", "the training", 10)
    panel.sliders.threshold.setValue(0.6)
    hands.wait(lambda: session.review.live is not None, "the nuclei in view")
    hands.press(panel.region.draw)
    of_role(hands.viewer, "region")[0].add_polygons(np.array(SQUARE))
    hands.wait(lambda: panel.region.figures.text().startswith("2 nuclei"), "the region's nuclei")
    hands.press(panel.by_doubt.begin)
    hands.wait(lambda: panel.by_doubt.nuclei.current is not None, "the doubtful nuclei")

    assert session.training.state == "running"
    session.training.stop()
    hands.wait(lambda: not session.review.pending, "the saved result")
    assert Result.open(session.review.result).card.facts["split"]["threshold"] == 0.6


def test_a_comparison_says_that_it_waits_for_a_training_and_then_what_it_does(compared):
    panel, session = compared.dock.review_panel, compared.dock.session
    session.training.request_train()
    job = session.engine.job.id
    panel.comparing.runs.actions()[0].trigger()
    assert panel.comparing.difference.text() == "Waits for the training"
    session.engine.apply([(Started("train", "", 100), job), (StepDone(0, {"sup": 1.0}, {}, 1.0, 7200.0), job)])
    assert panel.comparing.difference.text() == "Waits for the training, about 2 h left"
    session.engine.apply([(Finished("train", "", stopped=True, canceled=True), job)])
    assert session.engine.job.verb == "predict"  # its own
    assert panel.comparing.difference.text() == "Segmenting with the other run…"
    work(compared)

    assert panel.comparing.difference.text().startswith("On this image: ")


def test_a_comparison_is_ended_by_hand(compared):
    panel = compared.dock.review_panel
    compared.press(panel.comparing.leave)

    assert not of_role(compared.viewer, "difference")
    assert not of_role(compared.viewer, "other")
    assert panel.comparing.scores.isHidden()
    assert panel.comparing.flip.isHidden()
    assert panel.comparing.leave.isHidden()
    assert panel.comparing.compare.isEnabled()


def test_the_better_run_is_taken_and_goes_with_her_to_the_next_image(compared):
    panel, review = compared.dock.review_panel, compared.dock.session.review
    assert panel.comparing.accuracy.text().startswith("Dice 0.61")  # of the run that made the result, not of the newest
    compared.press(panel.comparing.prefer)
    work(compared)
    compared.wait(lambda: review.run == "run-2", "the result of the other run")
    compared.wait(lambda: panel.comparing.accuracy.text().startswith("Dice 0.91"), "what it is worth", 5)
    assert [run.path.name for run in panel.comparing.comparison.runs] == ["run-1"]
    assert not of_role(compared.viewer, "difference")

    compared.dock.session.review.run = "run-1"  # had she kept the other one
    compared.press(panel.onward)
    compared.wait(lambda: review.active, "the segmentation of the next image")
    sent = compared.dock.session.engine.job
    assert Path(sent.args["run"]).name == "run-1"
    assert Path(sent.args["out"]).name == "next field.ome.zarr"


@pytest.fixture
def many_images(open_dock, tissue, tmp_path) -> Any:
    """A dock whose project has four images: the second is in view, and only it and the third have results of run-1."""
    with ProjectFolder.create(tmp_path / "case") as folder:
        for number in range(4):
            folder.add_array(np.roll(tissue, 64 * number, 0), f"field {number}", 0.5)
        folder.add_tile(1, (80, 80, 200, 200))
        for run in ("run-1", "run-2"):
            make_run(folder.runs_dir / run, {})
        for number, run in ((1, "run-1"), (2, "run-1"), (3, "run-2")):
            predict(None, {"out": folder.prediction_path(number), "run": folder.runs_dir / run})
    hands = open_dock()
    hands.dock.view.open_project(tmp_path / "case.semiseg")
    hands.dock.view.show_image(1)
    review = hands.dock.session.review
    hands.wait(lambda: hands.dock.session.image_index == 1 and review.result is not None, "the second image")
    for step in hands.dock.steps:
        step.set_open(True)
    hands.wait(lambda: hands.dock.review_panel.onward.isEnabled(), "what is needed to segment")
    return hands


def test_the_model_goes_to_the_next_image_that_it_has_not_segmented_until_there_is_none(many_images):
    panel, session = many_images.dock.review_panel, many_images.dock.session
    visited = []
    for _ in range(2):
        many_images.press(panel.onward)
        many_images.wait(lambda: session.review.active, "the segmentation of another image")
        work(many_images)
        many_images.wait(lambda: session.review.run == "run-1", "its result")
        visited.append(session.image_index)
    assert visited == [3, 0]

    many_images.press(panel.onward)
    many_images.wait(lambda: session.notice is not None, "a word")
    assert session.notice.sentence == "This model has segmented every image of the project."
    assert session.image_index == 0
    assert not session.review.active
    ((words, show),) = session.notice.actions
    assert words == "Show the next one"
    show()
    many_images.wait(lambda: session.image_index == 1, "the next image")
    assert not session.review.active


def proposed_in(hands: Any, tile_id: str) -> set[int]:
    """Return the numbers, in the result, of the nuclei that are proposed in a tile where they have their centers."""
    tile, data = hands.project.tile(tile_id), hands.dock.tiles.layer(tile_id).data
    there = {n: Box(y, x, y + 1, x + 1).shifted(-tile.box.y0, -tile.box.x0) for n, (y, x) in NUCLEI.items()}
    inside = {n: box for n, box in there.items() if Box.whole(data.shape).contains(box)}
    return {n for n, box in inside.items() if is_proposed(int(data[box.slices][0, 0]))}


def test_outlines_that_are_seen_while_nuclei_are_found_are_not_proposed_for_nuclei(many_images, monkeypatch):
    monkeypatch.setattr(result_layers, "GROW_S", 0.0)
    monkeypatch.setattr(result_layers, "STILL_S", 0.0)
    session, layers = many_images.dock.session, many_images.dock.review_panel.layers
    many_images.dock.view.show_image(0)
    many_images.wait(lambda: session.image_index == 0 and session.review.result is None, "an image without a result")
    tile = many_images.project.add_tile(0, box=Box(80, 80, 180, 180))
    many_images.wait(lambda: many_images.dock.tiles.layer(tile.id) is not None, "the tile")
    work(many_images)  # what was asked for before
    many_images.press(many_images.dock.review_panel.segment)
    job = session.engine.job
    with ResultWriter.create(Path(job.args["out"]), (SIDE, SIDE), ["nucleus"]) as writer:
        writer.write_nuclei(Box.whole((SIDE, SIDE)), nuclei_and_confidence()[0])
        session.engine.apply([(BlockDone(0, (0, 0, SIDE, SIDE), 1, 2), job.id)])
        many_images.wait(lambda: layers.growing is not None, "the outlines", 10)
        many_images.press(many_images.dock.tiles_panel.tile_box.from_proposal)
        many_images.rest(0.2)

    assert not many_images.dock.tiles.layer(tile.id).data.any()
    assert tile.id in many_images.dock.proposals.waiting  # the engine is asked


def test_nuclei_of_what_is_in_view_are_proposed_where_they_lie_and_nowhere_else(compared):
    panel, session = compared.dock.review_panel, compared.dock.session
    compared.viewer.layers.remove(panel.layers.nuclei)  # as where an image is too large for one layer
    session.show_box(Box(60, 60, 460, 460))
    panel.sliders.threshold.setValue(0.45)
    work(compared)
    compared.wait(lambda: panel.layers.live is not None, "the nuclei in view")
    tile = compared.project.add_tile(0, box=Box(20, 20, 70, 200))
    compared.wait(lambda: compared.dock.tiles.layer(tile.id) is not None, "the tile")
    compared.press(compared.dock.tiles_panel.tile_box.from_proposal)
    compared.rest(0.2)

    assert not compared.dock.tiles.layer(tile.id).data.any()  # it holds no nucleus, and does not lie in that view

    compared.dock.tiles_panel.go_to("t0001")
    compared.press(compared.dock.tiles_panel.tile_box.from_proposal)
    compared.wait(lambda: compared.dock.tiles.layer("t0001").data.any(), "the nuclei that are shown there", 5)
    assert proposed_in(compared, "t0001") == {1, 2}


def test_a_word_on_a_nucleus_goes_into_no_tile_of_an_image_that_has_just_come_into_view(many_images):
    many_images.dock.view.show_image(2)
    session = many_images.dock.session
    many_images.wait(lambda: session.image_index == 2 and session.review.result is not None, "the third image")
    many_images.dock.view.show_image(1)
    many_images.wait(lambda: session.image_index == 1 and of_role(many_images.viewer, "nuclei"), "the second image")
    work(many_images)
    panel = begin(many_images)
    tiles = many_images.project.tiles
    many_images.dock.view.show_image(2)  # it is open already, so that it comes at once, and its result a moment later
    assert session.image_index == 2
    panel.by_doubt.accept.click()
    many_images.wait(lambda: not session.background.pending, "what was asked for")
    many_images.rest(0.2)

    assert many_images.project.tiles == tiles


def test_a_model_goes_on_to_no_image_of_a_project_that_is_opened_later(many_images, tissue, tmp_path):
    panel, session = many_images.dock.review_panel, many_images.dock.session
    folder = many_images.project.folder
    shutil.rmtree(folder.prediction_path(3))
    predict(None, {"out": folder.prediction_path(3), "run": folder.runs_dir / "run-1"})
    Path(folder.source_path(0)).unlink()
    many_images.viewer.layers.remove(next(one for one in many_images.viewer.layers if tag(one).get("image") == 0))
    many_images.press(panel.onward)
    many_images.wait(lambda: session.notice and "not where it was" in session.notice.sentence, "a word", 10)
    with ProjectFolder.create(tmp_path / "other") as folder:
        folder.add_array(tissue, "other", 0.5)
        make_run(folder.runs_dir / "run-7", {})
    many_images.dock.view.open_project(tmp_path / "other.semiseg")
    many_images.wait(lambda: session.image_index == 0 and session.training.run is not None, "the other project")
    many_images.rest(0.2)

    assert not session.review.active


def test_the_other_run_is_not_offered_while_nothing_can_be_segmented(compared):
    panel, session = compared.dock.review_panel.comparing, compared.dock.session
    assert panel.prefer.isEnabled()
    session.training.state = "waiting"
    session.training.changed.emit()
    assert not panel.prefer.isEnabled()

    session.training.state = "done"
    session.training.changed.emit()
    assert panel.prefer.isEnabled()


def test_an_image_that_is_gone_is_gone_on_to_last(many_images):
    folder = many_images.project.folder
    Path(folder.source_path(3)).unlink()
    assert without_result(folder, 1, folder.prediction_path(1)) == [0, 3]


def test_a_model_that_may_not_segment_is_taken_nowhere(many_images, open_dock):
    other = open_dock()
    other.dock.view.open_project(many_images.project.path)
    button = other.dock.review_panel.onward
    other.wait(lambda: "read-only" in button.toolTip(), "the reason")
    assert not button.isEnabled()


def test_a_run_that_was_deleted_is_said_and_nothing_stays_behind(compared):
    panel = compared.dock.review_panel
    compared.press(panel.comparing.leave)
    run = panel.comparing.comparison.runs[0]
    panel.comparing.comparison.compare(run.path)
    assert panel.comparing.leave.isVisible()
    engine = compared.dock.session.engine
    engine.apply([(Failed(f"{run.path} holds no trained model.", wrong_input=True), engine.job.id)])
    compared.rest(0.1)

    assert panel.comparing.difference.text() == ""
    assert panel.comparing.compare.isEnabled()
    assert "holds no trained model" in compared.dock.session.notice.sentence


def test_in_a_read_only_project_nothing_is_begun_that_would_write(compared, open_dock):
    other = open_dock()
    other.dock.view.open_project(compared.project.path)
    other.wait(lambda: of_role(other.viewer, "nuclei"), "the result")
    panel = other.dock.review_panel
    other.wait(lambda: panel.comparing.comparison.runs, "the runs")

    for button in (panel.comparing.compare, panel.by_doubt.begin):
        assert not button.isEnabled()
        assert "read-only" in button.toolTip()


def test_in_a_read_only_project_what_is_in_view_follows_the_sliders_and_nothing_is_written(reviewed, open_dock):
    other = open_dock()
    other.dock.view.open_project(reviewed.project.path)
    other.wait(lambda: of_role(other.viewer, "nuclei"), "the result")
    other.dock.steps[3].set_open(True)
    panel, review = other.dock.review_panel, other.dock.session.review
    assert panel.count.text() == "4 nuclei"
    predictions = Path(reviewed.project.folder.predictions_dir)
    before = {path: path.stat().st_mtime_ns for path in predictions.rglob("*")}
    panel.sliders.threshold.setValue(0.75)  # the first two nuclei are less certain
    work(other)
    other.wait(lambda: panel.count.text().startswith("2 nuclei in"), "what is in view")
    (seen,) = of_role(other.viewer, "nuclei")
    assert [bool(np.asarray(seen.data)[place]) for place in NUCLEI.values()] == [False, False, True, True]
    assert "read-only" in panel.sliders.waits.text()

    other.rest(2.0)  # the sliders rest, which elsewhere has the whole result split
    work(other)
    other.dock.session.show_box(Box(0, 0, 200, 200))
    other.rest(1.5)
    work(other)
    other.wait(lambda: panel.count.text().startswith("0 nuclei in"), "what is in view then")
    assert {path: path.stat().st_mtime_ns for path in predictions.rglob("*")} == before
    assert not other.dock.session.exporting.why_not.startswith("The nuclei are being split")
    elsewhere = Path(review._elsewhere.name)
    other.dock.view.close_project()
    assert not elsewhere.exists()


def test_confidence_and_nuclei_are_seen_side_by_side_over_the_history(compared):
    """At the fifth step confidence is half of what it is at the tenth, and nothing reaches the threshold."""
    hands, panel = compared, compared.dock.review_panel
    hands.press(panel.comparing.leave)
    camera = tuple(hands.viewer.scene.camera.center), hands.viewer.scene.camera.zoom
    hands.press(panel.history.button)

    def nuclei() -> int:
        work(hands)
        there = [layer for layer in of_role(hands.viewer, "beside") if isinstance(layer, Labels)]
        return len(np.unique(there[0].data)) - 1 if there else -1

    hands.wait(lambda: nuclei() == 4, "the nuclei of the last map")
    assert panel.history.words.text() == "step 10 · 4 nuclei"
    hands.wait(lambda: len(of_role(hands.viewer, "beside")) == 2, "the tissue beside")
    tissue, labels = of_role(hands.viewer, "beside")
    assert tissue.data.shape[:2] == labels.data.shape == (SIDE, SIDE)
    np.testing.assert_allclose(tissue.translate, labels.translate)
    assert labels.translate[1] > SIDE * 0.5  # to the right of an image of pixels of 0.5 µm
    seen = {layer.name: layer.visible for layer in hands.viewer.layers}
    assert (seen["Confidence"], seen["Nuclei"], seen["Confidence (result)"]) == (True, False, False)

    panel.history.player.slider.setValue(0)
    hands.wait(lambda: nuclei() == 0, "the nuclei of the first map")
    assert panel.history.words.text() == "step 5 · 0 nuclei"
    panel.sliders.threshold.setValue(0.3)
    hands.wait(lambda: nuclei() == 4, "the nuclei of the first map with another threshold")

    hands.press(panel.history.button)
    assert not of_role(hands.viewer, "beside")
    assert hands.viewer.layers["Nuclei"].visible
    assert (tuple(hands.viewer.scene.camera.center), hands.viewer.scene.camera.zoom) == camera
    assert panel.history.isHidden()


def test_the_nuclei_of_a_map_are_found_while_its_training_runs(compared):
    panel, session = compared.dock.review_panel, compared.dock.session
    path = compared.project.folder.runs_dir / "run-2" / "preview" / "image-0-step-0000005.npy"
    session.training.request_train()
    job = session.engine.job.id
    written = PreviewWritten(5, str(path), 0, (0, 0, SIDE, SIDE), 1)
    session.engine.apply([(Started("train", "", 100), job), (written, job)])
    compared.press(panel.history.button)
    assert panel.history.words.text() == "step 5 · finding nuclei…"
    work(compared)
    compared.wait(lambda: panel.history.words.text() == "step 5 · 0 nuclei", "the nuclei")

    assert session.engine.job.id == job


def test_without_a_map_the_history_says_so(reviewed):
    button = reviewed.dock.review_panel.history.button

    assert not button.isEnabled()
    assert button.toolTip() == "No map of this image was kept: train with this image in view."


def test_a_nucleus_that_was_judged_is_not_asked_about_again(reviewed):
    panel = begin(reviewed)
    key(reviewed, "A")
    key(reviewed, "D")
    reviewed.saved()
    panel.by_doubt.nuclei.forget()
    begin(reviewed)

    assert [nucleus.number for nucleus in panel.by_doubt.nuclei.nuclei] == [3, 4]


def test_leaving_the_history_for_an_image_that_lies_elsewhere_moves_no_view_away_from_it(compared):
    hands, panel = compared, compared.dock.review_panel
    hands.press(panel.comparing.leave)
    hands.dock.view.show_image(1)
    hands.wait(lambda: hands.dock.session.image_index == 1, "the second image")
    hands.viewer.layers["next field"].translate = (0, 3000)
    hands.dock.view.show_image(0)
    hands.wait(lambda: panel.history.button.isEnabled() and of_role(hands.viewer, "nuclei"), "the first image")
    hands.press(panel.history.button)
    hands.wait(lambda: hands.dock.review_panel.history.nuclei.on, "the history")
    hands.viewer.scene.camera.center = (0.0, 128.0, 3128.0)

    hands.viewer.layers.selection.active = hands.viewer.layers["next field"]
    assert not panel.history.nuclei.on
    assert tuple(hands.viewer.scene.camera.center)[1:] == (128.0, 3128.0)
