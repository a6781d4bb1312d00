"""The dock used in any order: with nothing open, without labels or runs, by somebody who clicks on everything.

The second part is fuzzer 6 of the fault matrix: with a stand-in for the engine that can say anything at any moment, and
with a real child process. The ordinary tests go through the same few sequences each time; `make soak`, and every round
but the first of ``--repeat``, through others.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QAbstractButton, QFileDialog, QInputDialog, QToolButton
from tests.plugin.conftest import LIGHT_ENGINE

from napari_semiseg.app.engine_model import ChildEnded, ChildStarted
from napari_semiseg.app.engine_watch import EngineWatch
from napari_semiseg.app.painting import from_layer
from napari_semiseg.events import Failed, Finished, Ready, Run, Started
from napari_semiseg.plugin.layers import of_role
from napari_semiseg.project.folder import ProjectFolder
from napari_semiseg.project.schema import with_class
from napari_semiseg.project.tile_annotation import BACKGROUND, TileAnnotation

SOAK = bool(os.environ.get("NAPARI_SEMISEG_SOAK"))
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

    def __init__(
        self, open_dock: Any, tissue: np.ndarray, place: Any, patch: pytest.MonkeyPatch, watch: Any = None
    ) -> None:
        super().__init__()
        self.tissue, self.patch = tissue, patch
        self.hands = open_dock(tissue, watch=watch)
        self.dock = self.hands.dock
        self.path = place / f"{len(list(place.iterdir()))}.semiseg"
        self.dock.view.choose_target(self.path)
        self.painted: dict[str, TileAnnotation] = {}
        self.by_hand = False  # whether what was just done may have changed what is painted
        self.full = False
        self.begun: set[str] = set()
        self.at_once: list[str] = []  # jobs that the engine was told to begin while it had another one
        self.engine.commanded.connect(self._note_command)
        unfold(self.dock)

    @property
    def engine(self) -> Any:
        """What is known of the engine."""
        return self.dock.session.engine

    def _note_command(self, command: Any) -> None:
        if isinstance(command, Run) and not command.aside:
            running = self.begun & {job.id for job in self.engine.jobs}
            self.at_once += [command.job] if running - {command.job} else []
            self.begun.add(command.job)

    # ---- what one can do ----

    @initialize(begun=st.sampled_from([True, True, False]))
    def find(self, begun: bool) -> None:
        """Begin with a project and a tile, more often than not: few find Start by clicking on anything."""
        if begun:
            self.start()
            self.hands.wait(lambda: self.dock.view.started, "the start")
            self.add_tile(130, 130)

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
        assert not (self.dock.session.training.active and self.dock.session.review.active)
        assert self.at_once == []

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


class AnybodyWithAStandIn(Anybody):
    """The engine is a stand-in: it says anything at any moment."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.engine.apply([ChildStarted(1, "log"), (Ready(1, {}), "")])

    @rule(how=st.sampled_from(["begins", "ends", "fails"]))
    def engine_says(self, how: str) -> None:
        engine = self.engine
        if engine.job is not None:
            verb, job = engine.job.verb, engine.job.id
            failed = Failed("It did not work.", wrong_input=False)
            said = {"begins": Started(verb, "", 3), "ends": Finished(verb), "fails": failed}
            engine.apply([(said[how], job)])

    @rule()
    def kill_child(self) -> None:
        self.engine.apply([ChildEnded("crash", -9, "log", again=True), ChildStarted(2, "log")])
        self.engine.apply([(Ready(2, {}), "")])


class AnybodyWithAnEngine(Anybody):
    """The engine is a process of its own, without torch: it trains until it is stopped, and can be killed."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args, EngineWatch([sys.executable, str(LIGHT_ENGINE)]))
        self.hands.wait(lambda: self.engine.status == "ready", "the engine")

    @rule(seconds=st.sampled_from([0.1, 0.5, 2.0]))
    def let_it_work(self, seconds: float) -> None:
        self.hands.rest(seconds)

    @precondition(lambda self: self.dock.train_panel.train.isEnabled())
    @rule()
    def train(self) -> None:
        self.hands.press(self.dock.train_panel.train)

    @rule()
    def kill_child(self) -> None:
        for child in children():
            child.send_signal(signal.SIGKILL)

    @invariant()
    def one_child_at_most_is_alive(self) -> None:
        assert len(alive := children()) <= 1, alive

    def teardown(self) -> None:
        super().teardown()
        self.hands.wait(lambda: not children(), "the end of the engine", 10)


def children() -> list[psutil.Process]:
    """Return the engines of this process that are alive."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if str(LIGHT_ENGINE) in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
    return found


@pytest.fixture
def explore(open_dock, tissue, tmp_path, monkeypatch, no_dialogs, request):
    """Let somebody do things: `few` examples, the same each time, or in `make soak` `many` random ones."""

    def run(somebody: type[Anybody], *, few: int, many: int, steps: int) -> None:
        again = getattr(getattr(request.node, "callspec", None), "params", {}).get("_round", 0) > 0
        run_state_machine_as_test(
            lambda: somebody(open_dock, tissue, tmp_path, monkeypatch),
            settings=settings(
                max_examples=many if SOAK else few,
                stateful_step_count=25 if SOAK else steps,
                deadline=None,
                derandomize=not SOAK and not again,
                print_blob=True,
                suppress_health_check=list(HealthCheck),
            ),
        )

    return run


@pytest.mark.fault
@pytest.mark.timeout(3600 if SOAK else 300)
def test_whatever_somebody_does_in_whatever_order_no_label_is_lost_and_all_that_is_said_is_plain(explore):
    explore(AnybodyWithAStandIn, few=4, many=60, steps=25)


@pytest.mark.fault
@pytest.mark.timeout(3600 if SOAK else 300)
def test_whatever_somebody_does_there_is_one_engine_at_most_and_none_afterwards(explore):
    explore(AnybodyWithAnEngine, few=2, many=20, steps=15)
