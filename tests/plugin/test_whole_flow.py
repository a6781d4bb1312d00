"""The main job from an image to a reopened project, in a real napari window, with a mouse: as a user does it.

Runs with PyQt6, and with PySide6 where QT_API says so.
"""

from __future__ import annotations

import csv
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader

from napari_semiseg.events import StepDone
from napari_semiseg.plugin.layers import of_role
from napari_semiseg.project.folder import ProjectFolder

pytestmark = pytest.mark.flow

SMALL = {"crop": 64, "batch_labeled": 2, "batch_unlabeled": 2}
MINUTES = 10
"""Of training: enough for several maps, of which a run draws one as soon as it has earned its cost."""


def test_a_project_is_started_painted_closed_and_opened_again(open_window, tissue, tmp_path):
    hands = open_window(tissue)
    dock = hands.dock
    dock.view.choose_target(tmp_path / "case.semiseg")
    hands.wait(lambda: of_role(hands.viewer, "proposal"), "the proposal")
    (proposal,) = of_role(hands.viewer, "proposal")
    assert proposal.name == "Proposal (hematoxylin threshold, no training)"
    assert len(np.unique(proposal.data)) > 100

    hands.press(dock.slide_panel.start)
    hands.wait(lambda: dock.view.started, "the start")
    hands.press(dock.tiles_panel.add)
    hands.click(200, 200)
    hands.wait(lambda: hands.project.selected, "the tile")
    layer = dock.tiles.layer(hands.project.selected)
    hands.stroke([(150, 150), (150, 170)])
    hands.stroke([(250, 250), (260, 250)])
    hands.encircle([(200, 120), (220, 120), (240, 120), (240, 160), (200, 160), (200, 140)])
    ids, areas = np.unique(layer.data[layer.data > 0], return_counts=True)
    assert ids.tolist() == [1, 2, 3]
    assert areas[2] > 35 * 35
    layer.undo()
    layer.redo()
    hands.saved()
    hands.press(dock.tiles_panel.tile_box.complete)
    assert dock.tiles_panel.summary == "1 complete · 3 nuclei"

    dock.tiles_panel.side.setValue(150)
    hands.press(dock.tiles_panel.suggest)
    hands.wait(lambda: dock.suggestions.current, "the suggestion")
    hands.press(dock.tiles_panel.suggestion.take)
    assert len(hands.project.tiles) == 2
    hands.press(dock.tiles_panel.tile_box.from_proposal)
    hands.saved()
    assert hands.project.tallies[hands.project.selected].proposed > 10
    assert hands.project.counts[hands.project.selected] == 0

    painted = {tile.id: dock.tiles.layer(tile.id).data.copy() for tile in hands.project.tiles}
    path = hands.project.path
    hands.viewer.window.remove_dock_widget(dock)
    hands.rest(0.2)
    assert not of_role(hands.viewer, "annotation")

    again = open_window()
    again.dock.view.open_project(path)
    again.wait(lambda: len(of_role(again.viewer, "annotation")) == 2, "the tiles")
    for tile_id, labels in painted.items():
        np.testing.assert_array_equal(again.dock.tiles.layer(tile_id).data, labels)
    assert again.project.words.startswith("1 complete · 1 sparse")


def test_closing_the_window_saves_the_last_stroke_and_ends_the_engine(open_window, tissue, tmp_path, qtbot):
    hands = open_window(tissue)
    hands.dock.view.choose_target(tmp_path / "case.semiseg")
    hands.press(hands.dock.slide_panel.start)
    hands.wait(lambda: hands.dock.view.started, "the start")
    hands.project.add_tile(0, center=(200, 200))
    hands.stroke([(150, 150), (150, 170)])
    path, dock = hands.project.path, hands.dock
    gone: list[bool] = []
    dock.destroyed.connect(lambda: gone.append(True))
    hands.viewer.close()
    qtbot.waitUntil(lambda: bool(gone), timeout=3000)
    qtbot.waitUntil(lambda: not any(psutil.pid_exists(pid) for pid in open_window.engines), timeout=3000)

    with ProjectFolder.open(path) as folder:
        assert folder.recovery.clean
        assert folder.annotation("t0001").nuclei == 1


@pytest.mark.timeout(900)
def test_from_an_image_to_a_table_of_nuclei_and_back_again(open_window, tissue, tmp_path):
    """Everything, with the real engine: the confidence is seen to change, and what is written can be read elsewhere."""
    had_torch = "torch" in sys.modules  # only where tests of other parts were collected with this one
    field = np.ascontiguousarray(tissue[256:, 192:448])
    hands = open_window(field, real_engine=True, scale=(0.5, 0.5), units=("um", "um"))
    dock = hands.dock
    dock.view.choose_target(tmp_path / "case.semiseg")
    hands.wait(lambda: of_role(hands.viewer, "proposal"), "the proposal")
    hands.press(dock.slide_panel.start)
    hands.wait(lambda: dock.view.started, "the start")

    paint_two_tiles(hands)
    seen = train_and_watch(hands)
    assert len(seen) >= 5
    assert all(not np.array_equal(one, next_one) for one, next_one in itertools.pairwise(seen))
    (proposal,) = of_role(hands.viewer, "proposal")
    assert not proposal.visible

    review = dock.session.review
    show(dock, "Review", "Export")
    hands.press(dock.review_panel.segment)
    hands.wait(lambda: [layer.name for layer in of_role(hands.viewer, "nuclei")] == ["Nuclei"], "the nuclei", 240)
    assert not any(layer.visible for layer in of_role(hands.viewer, "confidence"))
    (nuclei,) = of_role(hands.viewer, "nuclei")
    hands.wait(lambda: dock.session.engine.job is None, "the end of the segmentation")
    before = int(np.count_nonzero(nuclei.data))
    dock.review_panel.sliders.threshold.setValue(0.2)
    hands.wait(lambda: np.count_nonzero(nuclei.data) > before, "more pixels of nuclei with a lower threshold")
    hands.wait(lambda: not review.pending and review.live is None, "the splitting of the whole")
    hands.wait(lambda: len(np.unique(nuclei.data)) == review.nuclei + 1, "the nuclei as they were counted")

    exports = export(hands, "ome-zarr", "ome-tiff", "csv")
    check_exports(exports, nuclei.data, review.nuclei)
    painted = {tile.id: dock.tiles.layer(tile.id).data.copy() for tile in hands.project.tiles}
    counted, labels = review.nuclei, nuclei.data.copy()
    path, run, step = hands.project.path, dock.session.training.record.path, dock.session.training.record.step
    hands.viewer.close()
    hands.wait(lambda: not any(psutil.pid_exists(pid) for pid in open_window.engines), "the end of the engine", 5)

    again = open_window(real_engine=True)
    again.dock.view.open_project(path)
    again.wait(lambda: len(of_role(again.viewer, "annotation")) == 2, "the tiles")
    again.wait(lambda: of_role(again.viewer, "nuclei"), "the nuclei of last time")
    np.testing.assert_array_equal(again.dock.view.layer.data, field)
    np.testing.assert_allclose(again.dock.view.layer.scale, (0.5, 0.5))
    for tile_id, there in painted.items():
        np.testing.assert_array_equal(again.dock.tiles.layer(tile_id).data, there)
    record = again.dock.session.training.record
    assert (record.path, record.step, again.dock.session.training.state) == (run, step, "stopped")
    (nuclei,) = of_role(again.viewer, "nuclei")
    np.testing.assert_array_equal(nuclei.data, labels)
    assert again.dock.session.review.nuclei == counted
    assert ("torch" in sys.modules) is had_torch


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
@pytest.mark.timeout(900)
def test_a_training_whose_engine_is_killed_goes_on_where_it_was_saved(open_window, tissue, tmp_path):
    hands = open_window(np.ascontiguousarray(tissue[256:, 192:448]), real_engine=True)
    dock, training = hands.dock, hands.dock.session.training
    dock.view.choose_target(tmp_path / "case.semiseg")
    hands.press(dock.slide_panel.start)
    hands.wait(lambda: dock.view.started, "the start")
    hands.wait(lambda: of_role(hands.viewer, "proposal"), "the proposal")
    paint_two_tiles(hands)
    set_options(hands, steps=100_000, **SMALL)
    hands.press(dock.train_panel.train)
    hands.wait(lambda: training.record.step >= 5, "the first steps", 240)
    hands.press(dock.train_panel.pause)
    hands.wait(lambda: training.state == "paused", "the pause")
    hands.wait(lambda: training.record.saved_step >= 5, "the checkpoint")
    run, saved = training.record.path, training.record.saved_step
    psutil.Process(open_window.engines[-1]).kill()
    hands.wait(lambda: training.state == "lost", "the loss")
    assert not dock.train_panel.pause.isVisible()

    hands.wait(dock.train_panel.go_on.isEnabled, "another engine")
    hands.press(dock.train_panel.go_on)
    steps: list[int] = []
    dock.session.engine.received.connect(lambda _, event: isinstance(event, StepDone) and steps.append(event.step))
    hands.wait(lambda: training.record.step >= saved + 5, "further steps", 240)
    assert steps[0] >= saved
    hands.press(dock.train_panel.stop)
    hands.wait(lambda: training.state == "stopped", "the end")
    assert training.record.path == run
    assert training.run == run


def paint_two_tiles(hands) -> None:
    """Make two tiles by hand, and mark them complete."""
    panel = hands.dock.tiles_panel
    panel.side.setValue(110)
    for y, x in ((60, 60), (190, 70)):
        hands.press(panel.add)
        selected = hands.project.selected
        hands.click(y, x)
        hands.wait(lambda was=selected: hands.project.selected != was, "the tile")
        hands.stroke([(y - 40, x - 40), (y - 40, x - 34)])
        hands.stroke([(y + 40, x + 30), (y + 44, x + 30)])
        hands.press(panel.tile_box.from_proposal)
        hands.saved()
        assert hands.project.tallies[hands.project.selected].proposed > 5
        hands.press(panel.tile_box.complete)
        hands.saved()
        assert hands.project.counts[hands.project.selected] > 7
    assert panel.summary.startswith("2 complete")


def train_and_watch(hands) -> list[np.ndarray]:
    """Set a few options by hand, train, and return each confidence map that was seen in the layer."""
    training = hands.dock.session.training
    set_options(hands, minutes=MINUTES, **SMALL)
    hands.press(hands.dock.train_panel.train)
    hands.wait(lambda: of_role(hands.viewer, "confidence"), "the first map", 240)
    (layer,) = of_role(hands.viewer, "confidence")
    data, seen = layer.data, [layer.data.copy()]
    camera = hands.viewer.scene.camera

    def look() -> bool:
        if not np.array_equal(layer.data, seen[-1]):
            seen.append(layer.data.copy())
            camera.zoom *= 1.02  # who looks elsewhere is shown a new map soon
        return len(seen) >= 5 and training.record.step >= 50

    hands.wait(look, "five maps", 300)
    hands.press(hands.dock.train_panel.stop)  # when it ends is not left to how busy this machine is
    hands.wait(lambda: not training.active, "the end of the training")
    assert training.state == "stopped"
    assert of_role(hands.viewer, "confidence") == [layer]
    assert layer.data is data
    assert training.record.losses
    return seen


def set_options(hands, **options: float) -> None:
    """Unfold what is advanced, and set it."""
    panel = hands.dock.train_panel
    show(hands.dock, "Train")
    hands.wait(panel.model.setup.groups, "the description of the engine", 240)
    hands.press(panel.more)
    for name, value in options.items():
        panel.form.ticks[name].setChecked(True)
        panel.form.editors[name].value = value


def export(hands, *formats: str) -> dict[str, Path]:
    """Tick formats, press Export, and return what was written."""
    panel, model = hands.dock.export_panel, hands.dock.session.exporting
    for name, tick in panel.boxes.items():
        tick.setChecked(name in formats)
    hands.press(panel.export)
    hands.wait(lambda: len(model.outcomes) >= len(formats) and not model.active, "the export", 240)
    assert [outcome.problem for outcome in model.outcomes] == [""] * len(model.outcomes)
    return {outcome.format: Path(outcome.path) for outcome in model.outcomes}


def check_exports(exports: dict[str, Path], labels: np.ndarray, nuclei: int) -> None:
    """Open what was written with the field's own readers."""
    nodes = {node.zarr.basename(): node for node in Reader(parse_url(exports["ome-zarr"]))()}
    np.testing.assert_array_equal(np.asarray(nodes["nuclei"].data[0]), labels)
    scale = nodes["nuclei"].metadata["coordinateTransformations"][0][0]
    assert scale == {"type": "scale", "scale": [0.5, 0.5]}
    assert nodes["nuclei"].metadata["axes"][-1]["unit"] == "micrometer"

    with tifffile.TiffFile(exports["ome-tiff"]) as tiff:
        assert any(
            np.array_equal(series.asarray(), labels) for series in tiff.series if series.shape[-2:] == labels.shape
        )
        assert 'PhysicalSizeX="0.5"' in tiff.ome_metadata
    with exports["csv"].open(newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == nuclei


def show(dock, *titles: str) -> None:
    """Unfold some steps and fold the others, so that their buttons are in view."""
    for step, title in zip(dock.steps, ("Slide", "Tiles", "Train", "Review", "Export"), strict=True):
        step.set_open(title in titles)


_NO_TORCH = """
import sys, time, napari
from qtpy.QtCore import QThreadPool
from qtpy.QtWidgets import QApplication
from napari_semiseg.plugin.sample_data import open_immunohistochemistry
viewer = napari.Viewer(show=False)
data, options, _ = open_immunohistochemistry()[0]
viewer.add_image(data, **options)
_, dock = viewer.window.add_plugin_dock_widget("napari-semiseg", "Nuclei")
dock.view.choose_target(sys.argv[1])
end = time.monotonic() + 60
def until(so):
    while not so() and time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.01)
    assert so()
until(lambda: any(layer.name.startswith("Proposal") for layer in viewer.layers))
dock.view.start()
until(lambda: dock.view.started)
tile = dock.session.project.add_tile(0, center=(250, 250))
dock.tiles.layer(tile.id).paint((50, 50), 1)
dock.tiles_panel.tile_box.from_proposal.click()
until(lambda: (found := dock.session.project.tallies.get(tile.id)) and found.proposed > 3)
heavy = {"torch", "segmentation_models_pytorch", "timm"} & set(sys.modules)
watch = dock.supervisor.watch
viewer.close()
until(lambda: watch.closed)
assert QThreadPool.globalInstance().waitForDone(5000)  # as napari does when its event loop ends
print("loaded:", *heavy)
"""


def test_the_process_of_the_window_never_loads_torch(tmp_path):
    """A process of its own, with the real engine, through napari's own plugin menu."""
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", _NO_TORCH, str(tmp_path / "case.semiseg")],
        env=environment,
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "loaded:"
