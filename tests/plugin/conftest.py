"""The dock, with hands that use it: in a real napari window, or, faster, over a viewer that has none."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile
from napari.components import ViewerModel
from napari.utils._proxies import PublicOnlyProxy, ReadOnlyWrapper
from napari.utils.interactions import mouse_move_callbacks, mouse_press_callbacks, mouse_release_callbacks
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QWidget

from napari_semiseg.events import Event, Ready
from napari_semiseg.project.folder import ProjectFolder

LIGHT_ENGINE = Path(__file__).parent / "light_engine.py"


class Hands:
    """Uses the dock as a person does: buttons, patience, and the layers of a viewer that has no window.

    Mouse events are given to viewer and active layer in the order in which napari's canvas gives them.
    """

    def __init__(self, viewer: Any, dock: Any) -> None:
        self.viewer, self.dock = viewer, dock

    @property
    def project(self) -> Any:
        """The model of the project."""
        return self.dock.session.project

    @property
    def state(self) -> str:
        """What to know when something did not happen."""
        engine = self.dock.session.engine
        return f"told {self.dock.session.notice}, engine {engine.status} with {engine.job}, {engine.message}"

    def wait(self, until: Callable[[], object], what: str, seconds: float = 90.0) -> None:
        """Let Qt work until something is so."""
        end = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < end, f"{what} did not happen within {seconds:g} s; {self.state}"
            QApplication.processEvents()
            time.sleep(0.005)

    def rest(self, seconds: float = 0.2) -> None:
        """Let Qt work for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            QApplication.processEvents()
            time.sleep(0.005)

    def saved(self) -> None:
        """Wait until all that was painted is on the disk."""
        self.dock.tiles.tick()
        self.wait(lambda: self.project.saved_words.startswith("saved"), "saving", 5.0)
        self.project.tick()

    def press(self, button: Any) -> None:
        """Click on a button of the dock."""
        assert button.isEnabled(), f"{button.text()!r} is disabled: {button.toolTip()}"
        assert button.isVisible(), f"{button.text()!r} cannot be seen"
        QTest.mouseClick(button, Qt.MouseButton.LeftButton)
        QApplication.processEvents()

    def click(self, y: float, x: float) -> None:
        """Click on a pixel of the image in view."""
        self.stroke([(y, x)])

    def hover(self, y: float, x: float) -> None:
        """Move the mouse to a pixel of the image in view, without a button."""
        mouse_move_callbacks(getattr(self.viewer, "__wrapped__", self.viewer), self._event("mouse_move", (y, x), 0))

    def stroke(self, points: list[tuple[float, float]], button: int = 1) -> None:
        """Draw through pixels of the image in view."""
        with self.drawing(points, button):
            pass
        QApplication.processEvents()

    @contextmanager
    def drawing(self, points: list[tuple[float, float]], button: int = 1) -> Iterator[None]:
        """Draw through pixels of the image in view, and go on to hold the button down."""
        self._mouse(mouse_press_callbacks, "mouse_press", points[0], button)
        for point in points[1:]:
            self._mouse(mouse_move_callbacks, "mouse_move", point, button)
        yield
        self._mouse(mouse_release_callbacks, "mouse_release", points[-1], button)

    def _mouse(self, call: Callable[[Any, Any], None], kind: str, point: tuple[float, float], button: int) -> None:
        event = self._event(kind, point, button)
        call(getattr(self.viewer, "__wrapped__", self.viewer), event)
        active = self.viewer.layers.selection.active
        if active is not None:
            call(getattr(active, "__wrapped__", active), event)

    def _event(self, kind: str, point: tuple[float, float], button: int) -> Any:
        world = self.dock.view.placement.to_world(*point)
        event = SimpleNamespace(
            type=kind,
            button=button,
            buttons=[button],
            modifiers=(),
            position=world,
            pos=np.array(point[::-1], float),
            view_direction=None,
            dims_displayed=[0, 1],
            dims_point=np.array(world),
            is_dragging=kind == "mouse_move" and button > 0,
            handled=False,
        )
        return ReadOnlyWrapper(event, exceptions=("handled",))  # as the canvas does


class WindowHands(Hands):
    """Uses a real window: with a mouse over its canvas."""

    def __init__(self, viewer: Any, dock: Any) -> None:
        super().__init__(viewer, dock)
        self.canvas = next(w for w in dock.window().findChildren(QWidget) if type(w).__name__ == "CanvasBackendDesktop")

    def point(self, y: float, x: float) -> QPoint:
        """Return where a pixel of the image in view lies on the canvas."""
        world = np.array(self.dock.view.placement.to_world(y, x))
        camera = self.viewer.scene.camera
        offset = (world - np.array(camera.center)[-2:]) * camera.zoom
        return QPoint(round(self.canvas.width() / 2 + offset[1]), round(self.canvas.height() / 2 + offset[0]))

    def encircle(self, points: list[tuple[float, float]]) -> None:
        """Right-click on the first of some pixels and move along the others, without a button, back to the first."""
        first = self.point(*points[0])
        QTest.mouseMove(self.canvas, first)
        QTest.mouseClick(self.canvas, Qt.MouseButton.RightButton, Qt.KeyboardModifier.NoModifier, first)
        for point in [*points[1:], points[0]]:
            QTest.mouseMove(self.canvas, self.point(*point))
            self.rest(0.02)

    def stroke(self, points: list[tuple[float, float]], button: int = 1) -> None:
        """Draw through pixels of the image in view."""
        pressed = {1: Qt.MouseButton.LeftButton, 2: Qt.MouseButton.RightButton}[button]
        first, *rest = [self.point(*point) for point in points]
        QTest.mouseMove(self.canvas, first)
        self.rest(0.02)
        QTest.mousePress(self.canvas, pressed, Qt.KeyboardModifier.NoModifier, first)
        self.rest(0.02)
        for point in rest:
            QTest.mouseMove(self.canvas, point)
            self.rest(0.02)
        QTest.mouseRelease(self.canvas, pressed, Qt.KeyboardModifier.NoModifier, rest[-1] if rest else first)
        self.rest(0.05)


class NoEngine:
    """In the place of an `EngineWatch` where no test asks the engine for anything."""

    busy_s = 0.0
    closed = False

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, command: Any) -> None:
        self.sent.append(command)

    def restart(self) -> None:
        raise AssertionError("nobody asked for that")

    def acknowledge(self) -> None:
        raise AssertionError("there was nothing to acknowledge")

    @property
    def closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def batches(self) -> Iterator[tuple[Any, ...]]:
        while not self.closed:
            time.sleep(0.02)
            yield ()


@pytest.fixture
def tissue() -> np.ndarray:
    """A real image: 512 x 512, RGB."""
    from napari_semiseg.samples import immunohistochemistry

    return immunohistochemistry()


@pytest.fixture
def open_dock(qapp: Any) -> Any:
    """Open the dock over a viewer that has no window, without an engine, or with one that a watch keeps alive."""
    from napari_semiseg.plugin.widgets.dock import NucleiDock

    opened: list[Hands] = []

    def open_one(image: Any = None, *, watch: Any = None, **options: Any) -> Hands:
        viewer = PublicOnlyProxy(ViewerModel())  # as napari gives it to plugins
        if image is not None:
            viewer.add_image(image, **{"name": "field", **options})
        dock = NucleiDock(viewer, watch=watch or NoEngine())
        dock.resize(360, 900)
        dock.show()
        opened.append(Hands(viewer, dock))
        opened[-1].rest(0.05)
        return opened[-1]

    yield open_one
    for hands in opened:
        if not hands.dock.left:
            hands.dock.leave()
        assert hands.dock.supervisor.wait(5), "the watch did not end"
    QApplication.sendPostedEvents(None, 52)  # what was told to delete itself, is
    QApplication.processEvents()


@pytest.fixture
def open_images(open_dock: Any, tissue: np.ndarray, tmp_path: Path) -> Any:
    """Open the dock with a project of images of these names; the first two have a tile each, the first is in view."""

    def open_case(*names: str) -> Hands:
        with ProjectFolder.create(tmp_path / "case.semiseg") as folder:
            for name in names:
                tifffile.imwrite(tmp_path / f"{name}.tif", tissue, photometric="rgb")
                folder.add_image(tmp_path / f"{name}.tif", shape=(512, 512))
            for image in (0, 1):
                folder.add_tile(image, (0, 0, 100, 100))
        hands = open_dock()
        hands.dock.view.open_project(tmp_path / "case.semiseg")
        hands.wait(lambda: hands.project.selected == "t0001", "the first image")
        return hands

    return open_case


@pytest.fixture
def open_window(make_napari_viewer_proxy: Any, qtbot: Any) -> Any:
    """Open a napari window with the dock, and an engine: one without torch, another program, or the real one."""
    from napari_semiseg.app.engine_watch import EngineWatch
    from napari_semiseg.plugin.widgets.dock import NucleiDock

    opened: list[WindowHands] = []
    engines: list[int] = []

    def note_engine(_: str, event: Event) -> None:
        if isinstance(event, Ready):
            engines.append(event.pid)

    def open_one(
        image: Any = None, *, real_engine: bool = False, engine: Path = LIGHT_ENGINE, **options: Any
    ) -> WindowHands:
        viewer = make_napari_viewer_proxy(show=True)
        if image is not None:
            viewer.add_image(image, **{"name": "field", **options})
        dock = NucleiDock(viewer, watch=EngineWatch() if real_engine else EngineWatch([sys.executable, str(engine)]))
        dock.session.engine.received.connect(note_engine)
        viewer.window.add_dock_widget(dock, name="Nuclei", area="right")
        dock.window().resize(1200, 800)
        opened.append(WindowHands(viewer, dock))
        opened[-1].rest(0.2)
        return opened[-1]

    open_one.engines = engines
    yield open_one
    for hands in opened:
        hands.dock.supervisor.watch.close()
    deadline = time.monotonic() + 20
    while alive := [pid for pid in engines if psutil.pid_exists(pid)]:
        assert time.monotonic() < deadline, f"of the engines {engines} these did not end: {alive}"
        qtbot.wait(20)
    for hands in opened:
        hands.viewer.close()
    qtbot.wait(20)  # an event loop of its own, in which Qt deletes what it was told to
