"""The dock used in any order: with nothing open, without labels or runs, by somebody who clicks on everything.

The second part is fuzzer 6 of the fault matrix.
"""

from __future__ import annotations

import errno
import os
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QAbstractButton, QFileDialog, QInputDialog, QToolButton

from napari_semiseg.app.engine_model import ChildEnded, ChildStarted
from napari_semiseg.app.painting import from_layer
from napari_semiseg.events import Failed, Finished, Ready, Started
from napari_semiseg.plugin.layers import of_role
from napari_semiseg.project.folder import ProjectFolder
from napari_semiseg.project.schema import with_class
from napari_semiseg.project.tile_annotation import BACKGROUND, TileAnnotation

EXAMPLES = 60 if os.environ.get("NAPARI_SEMISEG_SOAK") else 4
REAL_WRITE = os.write
MINE = ("Close the project", "Open a project…")
"""What has rules of its own here."""


@pytest.fixture
def no_dialogs(monkeypatch):
    """Whoever is asked for a file or a name cancels."""
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_, **__: ("", ""))
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: ("", ""))
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_, **__: "")
    monkeypatch.setattr(QInputDialog, "getText", lambda *_, **__: ("", False))
    monkeypatch.setattr("qtpy.QtGui.QDesktopServices.openUrl", lambda *_: True)


def unfold(dock: Any) -> None:
    for step in dock.steps:
        step.set_open(True)


def is_plain(sentence: str) -> bool:
    """Whether something is one plain sentence for a person."""
    return sentence.endswith((".", "…")) and "Traceback" not in sentence and "\n" not in sentence


def test_with_nothing_open_every_step_says_what_to_do_first(open_dock):
    dock = open_dock().dock
    unfold(dock)
    buttons = [dock.slide_panel.start, dock.tiles_panel.add, dock.tiles_panel.suggest, dock.train_panel.train]
    buttons += [dock.review_panel.segment, dock.export_panel.export]
    assert not any(button.isEnabled() for button in buttons)
    reasons = [dock.view.why_not, dock.tiles_panel.reason.text(), dock.train_panel.reason.text()]
    reasons += [dock.review_panel.reason.text(), dock.session.exporting.why_not]
    assert all(is_plain(reason) for reason in reasons), reasons


def test_a_project_without_labels_or_runs_says_what_is_missing(open_dock, tissue, tmp_path):
    hands = open_dock(tissue)
    dock = hands.dock
    dock.view.choose_target(tmp_path / "case.semiseg")
    hands.press(dock.slide_panel.start)
    hands.wait(lambda: dock.view.started, "the start")
    unfold(dock)

    wanted = "Train first (step 3): there is nothing to segment with yet."
    hands.wait(lambda: dock.review_panel.reason.text() == wanted, "what is missing to segment")
    assert is_plain(dock.session.exporting.why_not)
    hands.wait(dock.train_panel.train.isEnabled, "Train: no label is needed")
    hands.viewer.layers.remove("field")
    hands.rest(0.2)
    assert is_plain(dock.tiles_panel.reason.text())
    hands.project.add_tile(0, center=(200, 200))  # the project has the image still
    assert of_role(hands.viewer, "annotation")


def test_what_is_only_good_to_know_goes_by_itself_and_a_warning_stays(open_dock):
    hands = open_dock()
    line, session = hands.dock.message, hands.dock.session
    line._goes.setInterval(50)
    session.tell("Good to know.")
    assert line.isVisible()
    hands.wait(lambda: not line.isVisible(), "the end of the message", 5)
    session.tell("Something is wrong.", "warning")
    hands.rest(0.3)
    assert line.isVisible()


class Anybody(RuleBasedStateMachine):
    """Uses the dock in any order, and looks after each step whether what was painted is still there."""

    def __init__(self, open_dock: Any, tissue: np.ndarray, place: Any, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.tissue, self.patch = tissue, patch
        self.hands = open_dock(tissue)
        self.dock = self.hands.dock
        self.path = place / f"{len(list(place.iterdir()))}.semiseg"
        self.dock.view.choose_target(self.path)
        self.painted: dict[str, TileAnnotation] = {}
        self.by_hand = False  # whether what was just done may have changed what is painted
        self.full = False
        unfold(self.dock)
        self.dock.session.engine.apply([ChildStarted(1, "log"), (Ready(1, {}), "")])

    # ---- what one can do ----

    @rule()
    def start(self) -> None:
        if self.dock.slide_panel.start.isEnabled() and self.dock.slide_panel.start.isVisible():
            self.hands.press(self.dock.slide_panel.start)
            self.hands.rest(0.3)

    @precondition(lambda self: self.dock.view.started)
    @rule(y=st.integers(0, 511), x=st.integers(0, 511))
    def add_tile(self, y: int, x: int) -> None:
        if len(self.hands.project.tiles) < 4:
            self.hands.project.add_tile(0, center=(y, x), side=100)
            self.hands.rest(0.1)

    @precondition(lambda self: self._layer() is not None)
    @rule(y=st.integers(5, 90), x=st.integers(5, 90), long=st.integers(0, 9), button=st.sampled_from([1, 1, 1, 2]))
    def paint(self, y: int, x: int, long: int, button: int) -> None:
        self.by_hand = True
        tile = self.hands.project.tile(self.hands.project.selected)
        y, x = y + tile.box.y0, x + tile.box.x0
        self.hands.stroke([(y, x), (y, x + long)], button=button)

    @precondition(lambda self: self._layer() is not None)
    @rule(back=st.booleans())
    def undo(self, back: bool) -> None:
        self.by_hand = True
        self._layer().undo() if back else self._layer().redo()

    @rule(place=st.integers(0, 200))
    def press(self, place: int) -> None:
        """Click on any button that can be clicked on."""
        self.by_hand = True
        buttons = [button for button in self.dock.findChildren(QAbstractButton) if self._clickable(button)]
        if buttons:
            QTest.mouseClick(buttons[place % len(buttons)], Qt.MouseButton.LeftButton)

    @rule(place=st.integers(0, 200))
    def choose(self, place: int) -> None:
        """Take any entry of any menu that can be taken."""
        self.by_hand = True
        buttons = [
            button for button in self.dock.findChildren(QToolButton) if button.isVisible() and button.isEnabled()
        ]
        menus = [menu for button in buttons if (menu := button.menu()) is not None]
        for menu in menus:
            menu.aboutToShow.emit()
            menus += [entry.menu() for entry in menu.actions() if entry.menu() is not None and entry.isEnabled()]
        actions = [action for menu in menus for action in menu.actions()]
        actions = [a for a in actions if a.isEnabled() and a.isVisible() and a.text() not in MINE and a.menu() is None]
        if actions:
            actions[place % len(actions)].trigger()

    @precondition(lambda self: self.dock.view.started and not self.hands.project.read_only)
    @rule(kind=st.integers(2, 4))
    def choose_class(self, kind: int) -> None:
        """Paint another class; each is added when it is first chosen."""
        project = self.hands.project
        while len(project.classes) < kind - BACKGROUND:
            project.set_classes(with_class(project.classes, f"class {len(project.classes) + 1}"))
        self.dock.tiles.choose_pen(kind)

    @rule(place=st.integers(0, 20))
    def go_to_layer(self, place: int) -> None:
        layers = self.hands.viewer.layers
        if len(layers):
            layers.selection.active = layers[place % len(layers)]

    @rule(place=st.integers(0, 20))
    def delete_layer(self, place: int) -> None:
        layers = self.hands.viewer.layers
        if len(layers):
            layers.remove(layers[place % len(layers)])

    @rule()
    def open_image(self) -> None:
        if len(self.hands.viewer.layers) < 8:
            self.hands.viewer.add_image(self.tissue, name="field")

    @rule(how=st.sampled_from(["begins", "ends", "fails"]))
    def engine_says(self, how: str) -> None:
        engine = self.dock.session.engine
        if engine.job is not None:
            verb, job = engine.job.verb, engine.job.id
            failed = Failed("It did not work.", wrong_input=False)
            said = {"begins": Started(verb, "", 3), "ends": Finished(verb), "fails": failed}
            engine.apply([(said[how], job)])

    @rule()
    def kill_child(self) -> None:
        self.dock.session.engine.apply([ChildEnded("crash", -9, "log", again=True), ChildStarted(2, "log")])
        self.dock.session.engine.apply([(Ready(2, {}), "")])

    @rule()
    def fill_disk(self) -> None:
        def refuse(descriptor: int, data: bytes) -> int:
            if threading.current_thread().name.startswith("annotation"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return REAL_WRITE(descriptor, data)

        self.full = True
        self.patch.setattr(os, "write", refuse)

    @rule()
    def free_disk(self) -> None:
        self.full = False
        self.patch.setattr(os, "write", REAL_WRITE)

    @precondition(lambda self: self.hands.project.folder is not None)
    @rule()
    def close_and_open(self) -> None:
        self._save()
        self.dock._close()
        self.hands.rest(0.1)
        if not of_role(self.hands.viewer, "image") and "field" not in self.hands.viewer.layers:
            self.hands.viewer.add_image(self.tissue, name="field")
        self.dock.view.open_project(self.path)
        self.hands.rest(0.5)

    # ---- what has to be so ----

    @invariant()
    def nothing_is_lost(self) -> None:
        self.hands.rest(0.05)
        for tile in self.hands.project.tiles:
            now = self.dock.tiles.annotation_of(tile.id)
            if now is None or self.hands.project.read_only:
                continue
            annotation = from_layer(*now)
            if not self.by_hand and tile.id in self.painted:
                np.testing.assert_array_equal(annotation.instance, self.painted[tile.id].instance)
                np.testing.assert_array_equal(annotation.classes, self.painted[tile.id].classes)
            self.painted[tile.id] = annotation
        self.by_hand = False

    @invariant()
    def what_is_said_is_plain(self) -> None:
        notice = self.dock.session.notice
        assert notice is None or is_plain(notice.sentence), notice.sentence

    @invariant()
    def at_most_one_job_runs(self) -> None:
        training, job = self.dock.session.training, self.dock.session.engine.job
        assert not (training.active and self.dock.session.review.active)
        assert job is None or isinstance(job.id, str)

    @invariant()
    def what_is_at_work_has_a_job_that_runs_or_waits(self) -> None:
        session = self.dock.session
        jobs = [job.id for job in session.engine.jobs]
        assert not session.training.active or session.training.job in jobs
        assert not session.review.active or session.review._job in jobs
        assert not session.exporting.active or session.exporting._job in jobs

    def teardown(self) -> None:
        self.free_disk()
        if self.hands.project.folder is not None:
            self._save()
        self.dock.leave()
        if (self.path / "project.json").is_file():
            with ProjectFolder.open(self.path) as folder:
                assert folder.recovery.clean or folder.recovery.missing_images
                for tile in folder.tiles:
                    if tile.id in self.painted:
                        found = folder.annotation(tile.id)
                        np.testing.assert_array_equal(found.instance, self.painted[tile.id].instance)
                        np.testing.assert_array_equal(found.classes, self.painted[tile.id].classes)

    def _save(self) -> None:
        """Free the disk, and wait until all is saved."""
        self.free_disk()
        self.nothing_is_lost()
        if not self.hands.project.read_only:
            self.dock.tiles.tick()
            self.hands.wait(lambda: self.hands.project.saved_words.startswith("saved"), "saving", 30)

    def _layer(self) -> Any:
        layer = self.dock.tiles.layer(self.hands.project.selected)
        return layer if layer is not None and layer in self.hands.viewer.layers and layer.editable else None

    def _clickable(self, button: QAbstractButton) -> bool:
        has_menu = getattr(button, "menu", lambda: None)() is not None
        return button.isVisible() and button.isEnabled() and not has_menu and button.text() not in MINE


@pytest.mark.fault
def test_whatever_somebody_does_in_whatever_order_no_label_is_lost_and_all_that_is_said_is_plain(
    open_dock, tissue, tmp_path, monkeypatch, no_dialogs
):
    run_state_machine_as_test(
        lambda: Anybody(open_dock, tissue, tmp_path, monkeypatch),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=25,
            deadline=None,
            derandomize=EXAMPLES == 4,
            suppress_health_check=list(HealthCheck),
        ),
    )
