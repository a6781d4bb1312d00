"""Drive the whole of labeling in a real napari window with a mouse, take pictures, and say how long things took.

Suggest a place, take the proposed nuclei, correct three of them by gestures, mark the tile complete while a training
runs, see the training take it up, review its nuclei, compare two runs, and see how the nuclei came about.

Usage: .ci/with-display python docs/scripts/labeling_flow.py OUT [--steps N] [--theme dark|light]

The two trainings are small, so that all of it takes some minutes: what they find is no measure of anything.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from scipy import ndimage
from skimage.measure import find_contours, regionprops
from take_screenshots import SLOW, Photographer, need, paint, wait

from napari_semiseg.app.painting import PROPOSED_FROM
from napari_semiseg.events import Event, LabelsRead
from napari_semiseg.samples import immunohistochemistry, immunohistochemistry_tiles

SIDE = 150
SMALL = {"crop": 64, "batch_labeled": 2, "batch_unlabeled": 2}
"""What makes a step quick."""
LONG = 5_000
"""Steps of the second training: it is stopped."""


class Flow(Photographer):
    """Labels as a person does."""

    def start(self, project: Path) -> None:
        """Open the sample, start a project, and paint two tiles."""
        self.viewer.add_image(immunohistochemistry(), name="immunohistochemistry")
        self.dock.view.choose_target(project)
        need(SLOW, lambda: self.roles("proposal"), "the proposal")
        self.press(self.dock.slide_panel.start)
        need(SLOW, lambda: self.dock.view.started, "the start")
        need(SLOW, lambda: self.dock.session.training.setup.methods, "what the engine can do")
        for tile in list(immunohistochemistry_tiles("label"))[:2]:
            added = self.dock.session.project.add_tile(0, box=tile.box)
            paint(self.dock, added.id, tile.instances)
            self.dock.session.project.set_status(added.id, "complete")
            wait(2)

    def train(self, steps: int) -> None:
        """Begin a training, and wait for its first steps."""
        training = self.dock.session.training
        self.unfold("Train")
        for name, value in {"steps": steps, **SMALL}.items():
            training.setup.set_option(name, value)
        need(SLOW, lambda: self.dock.train_panel.train.isEnabled(), "Train")
        self.press(self.dock.train_panel.train)
        need(SLOW, lambda: training.record.step > 0 or training.state == "failed", "the first step")
        if training.state == "failed":
            raise SystemExit(f"the training failed: {self.dock.session.notice}")

    def suggested_tile(self) -> str:
        """Have a tile suggested by the running training, and take it."""
        panel = self.dock.tiles_panel
        panel.side.setValue(SIDE)
        self.unfold("Tiles", "Train")
        self.press(panel.suggest)
        need(SLOW, lambda: self.dock.suggestions.current is not None, "the suggestion")
        self.look_at(256, 256, 500)
        self.shoot("flow-1-suggested")
        self.press(panel.suggestion.take)
        return str(self.dock.session.project.selected)

    def correct(self, tile_id: str) -> dict[str, int]:
        """Take the proposed nuclei, then delete one, draw one anew and cut one; return the nuclei before and after."""
        panel, tile = self.dock.tiles_panel, self.dock.session.project.tile(tile_id)
        self.unfold("Tiles")
        self.press(panel.tile_box.from_proposal)
        need(SLOW, lambda: self.dock.tiles.correcting, "the proposed nuclei")
        self.look_at((tile.box.y0 + tile.box.y1) / 2, (tile.box.x0 + tile.box.x1) / 2, 1.1 * SIDE)
        wait(1)
        layer = self.dock.tiles.layer(tile_id)
        corner = np.array((tile.box.y0, tile.box.x0))
        self.shoot("flow-2-proposed")
        proposed = regionprops(np.where(layer.data >= PROPOSED_FROM, layer.data, 0))
        before = len(proposed)
        by_size = [found.label for found in sorted(proposed, key=lambda found: found.area)]
        round_ones = [found.label for found in proposed if found.solidity > 0.85 and found.label != by_size[0]]
        small, middling = by_size[0], round_ones[len(round_ones) // 2]
        self.drag([tuple(np.argwhere(layer.data == small)[0] + corner)], Qt.MouseButton.RightButton)
        assert not (layer.data == small).any(), "the right click deleted nothing"
        self.drag([tuple(point + corner) for point in ring(layer.data == middling)])
        assert not (layer.data == middling).any(), "the ring drew nothing anew"
        large, line = next((number, line) for number in by_size[::-1] if (line := across(layer.data, number)))
        self.drag([tuple(np.array(point) + corner) for point in line])
        assert not (layer.data == large).any(), "the line cut nothing"
        self.shoot("flow-3-corrected")
        return {"proposed": before, "after three gestures": len(np.unique(layer.data[layer.data > 0]))}

    def complete(self) -> float:
        """Mark the tile complete by its key, and return the seconds until the running training has read it."""
        read: list[float] = []

        def note(_: str, event: Event) -> None:
            if isinstance(event, LabelsRead):
                read.append(time.monotonic())

        training = self.dock.session.training
        self.dock.session.engine.received.connect(note)
        need(SLOW, lambda: not training.unseen, "the gestures in the training")
        read.clear()
        self.canvas.setFocus()
        marked = time.monotonic()
        QTest.keyClick(self.canvas, Qt.Key.Key_C, Qt.KeyboardModifier.ShiftModifier)
        need(5, lambda: self.dock.session.project.words.startswith("3 complete"), "the mark")
        need(SLOW, lambda: read and not training.unseen, "the labels in the training")
        self.unfold("Tiles", "Train")
        self.dock.tiles_panel.as_table.setChecked(True)
        need(SLOW, lambda: training.record.fits, "the scores of the tiles")
        self.shoot("flow-4-taken-up")
        self.dock.tiles_panel.as_table.setChecked(False)
        return read[0] - marked

    def stop_after(self, steps: int) -> None:
        """Let the training make so many steps, and stop it: the two runs are then compared on one footing."""
        training = self.dock.session.training
        need(SLOW, lambda: training.record.step >= steps or not training.active, "the steps of the second training")
        self.unfold("Train")
        self.press(self.dock.train_panel.stop)

    def review(self, name: str) -> None:
        """Segment with the newest run, and look at the nuclei by doubt."""
        training, review, panel = self.dock.session.training, self.dock.session.review, self.dock.review_panel
        need(SLOW, lambda: not training.active and not review.why_not, "the end of the training")
        self.unfold("Review")
        self.press(panel.segment)
        need(SLOW, lambda: review.active, "the segmentation")
        need(SLOW, lambda: review.result is not None and not review.active and self.roles("nuclei"), "the nuclei")
        need(SLOW, panel.by_doubt.begin.isVisible, "the end of the review before")
        self.press(panel.by_doubt.begin)
        need(SLOW, lambda: panel.by_doubt.nuclei.current is not None, "the nuclei by doubt")
        self.press(panel.by_doubt.accept)
        wait(1)
        self.press(panel.by_doubt.reject)
        self.shoot(name)

    def compare(self) -> None:
        """Compare with the run before."""
        comparison, panel = self.dock.review_panel.comparing.comparison, self.dock.review_panel
        need(SLOW, lambda: comparison.runs, "another run")
        panel.comparing.runs.actions()[0].trigger()
        need(SLOW, lambda: self.roles("difference"), "the difference")
        self.look_at(256, 256, 300)
        self.unfold("Review")
        self.shoot("flow-6-compared")
        self.press(panel.comparing.flip)
        self.shoot("flow-7-other")

    def history(self) -> None:
        """See confidence and nuclei side by side at an earlier step."""
        panel = self.dock.review_panel
        self.press(panel.comparing.leave)
        self.press(panel.history.button)
        need(SLOW, lambda: panel.history.nuclei.found is not None, "the nuclei of the newest map")
        panel.history.player.slider.setValue(0)
        need(
            SLOW,
            lambda: panel.history.nuclei.found.preview == panel.history.nuclei.history.current,
            "the nuclei of the first map",
        )
        need(SLOW, lambda: len(self.roles("beside")) == 2, "the tissue beside the map")
        self.shoot("flow-8-history")
        self.press(panel.history.button)

    def press(self, button: object) -> None:
        """Click on a button of the dock."""
        assert button.isVisible(), f"{button.text()!r} cannot be seen"
        assert button.isEnabled(), f"{button.text()!r} is disabled: {button.toolTip()}"
        QTest.mouseClick(button, Qt.MouseButton.LeftButton)
        wait(0.1)

    def drag(self, points: list[tuple[float, float]], button: Qt.MouseButton = Qt.MouseButton.LeftButton) -> None:
        """Draw through pixels of the image."""
        none = Qt.KeyboardModifier.NoModifier
        places = [self.point(*point) for point in points]
        QTest.mouseMove(self.canvas, places[0])
        wait(0.05)
        QTest.mousePress(self.canvas, button, none, places[0])
        for place in places[1:]:
            QTest.mouseMove(self.canvas, place)
            wait(0.03)
        QTest.mouseRelease(self.canvas, button, none, places[-1])
        wait(0.2)


def ring(nucleus: np.ndarray) -> np.ndarray:
    """Return a path around a nucleus, a pixel outside of it, as a hand would draw it: (n, 2)."""
    outline = max(find_contours(np.pad(ndimage.binary_dilation(nucleus), 1).astype(float), 0.5), key=len) - 1
    return outline[:: max(1, len(outline) // 30)]


def across(labels: np.ndarray, number: int) -> list[tuple[float, float]]:
    """Return a straight path through the middle of a nucleus that begins and ends on free ground; [] without one."""
    center = np.array(ndimage.center_of_mass(labels == number))
    for turn in np.linspace(0, np.pi, 12, endpoint=False):
        points = center + np.arange(-40, 41)[:, None] * np.array((np.sin(turn), np.cos(turn)))
        rows, columns = np.rint(points).astype(int).T
        inside = (rows >= 0) & (rows < labels.shape[0]) & (columns >= 0) & (columns < labels.shape[1])
        seen = np.where(inside, labels[rows.clip(0, labels.shape[0] - 1), columns.clip(0, labels.shape[1] - 1)], -1)
        on = np.flatnonzero(seen == number)
        first, last = on[0] - 2, on[-1] + 2
        if first >= 0 and last < len(points) and (seen[[first, last]] == 0).all() and len(on) == on[-1] - on[0] + 1:
            return [tuple(point) for point in points[first : last + 1 : 2]] + [tuple(points[last])]
    return []


def main() -> None:
    """Do it all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=120, help="of the first training")
    parser.add_argument("--theme", default="dark", choices=["dark", "light"])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp())
    flow = Flow(options.out, options.theme)
    flow.start(home / "colon-01.semiseg")
    flow.train(options.steps)
    flow.review("flow-0-first")
    flow.train(LONG)
    gestures = flow.correct(flow.suggested_tile())
    seconds = flow.complete()
    (options.out / "flow.txt").write_text(f"from the key to the training having read the tile: {seconds:.1f} s\n")
    flow.stop_after(options.steps)
    flow.review("flow-5-review")
    flow.compare()
    compared = [flow.dock.review_panel.comparing.difference.text(), *flow.dock.review_panel.comparing.scores.texts()]
    flow.history()
    said = [
        f"nuclei: {gestures}",
        f"from the key to the training having read the tile: {seconds:.1f} s",
        "two runs:",
        *compared,
    ]
    (options.out / "flow.txt").write_text("\n".join(said) + "\n", encoding="utf-8")
    flow.viewer.close()
    wait(3)
    shutil.rmtree(home, ignore_errors=True)
    if seconds > 5:
        raise SystemExit(f"the training took {seconds:.1f} s to read a completed tile: 5 s are promised")


if __name__ == "__main__":
    main()
