"""Step 1: the image, its pixel size, and where its project lies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from magicgui.widgets import FloatSpinBox
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QFileDialog, QGridLayout, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_semiseg import atomic
from napari_semiseg.app.session import Session
from napari_semiseg.app.slide import MPP_RANGE
from napari_semiseg.io.find_images import EXTENSIONS
from napari_semiseg.plugin.slide_view import SlideView
from napari_semiseg.plugin.widgets.look import main_button, plain_button, sentences
from napari_semiseg.plugin.widgets.step import ElidedLabel

IMAGE_FILES = f"Images ({' '.join(f'*{ending}' for ending in EXTENSIONS if ending != '.zarr')})"

_TAKEN_OUT = "The image was taken out of the viewer. Its tiles, and what was painted in them, are kept."


class SlidePanel(QWidget):
    """Shows which image is in view, and starts.

    Parameters
    ----------
    session : Session
    viewer : napari viewer
    view : SlideView
    """

    changed = Signal()

    def __init__(self, session: Session, viewer: Any, view: SlideView, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.session, self.viewer, self.view = session, viewer, view
        self.summary, self.done = "", False
        self.image = ElidedLabel()
        self.size = QLabel()
        self.size.setTextFormat(Qt.TextFormat.PlainText)
        self.size.setObjectName("semisegHint")
        self.mpp = FloatSpinBox(value=0.0, min=0.0, max=MPP_RANGE[1], step=0.05, name="mpp", label="Pixel size")
        self.mpp.native.setDecimals(4)
        self.mpp.native.setSuffix(" µm/px")
        self.mpp.native.setSpecialValueText("unknown")
        self.mpp.native.setKeyboardTracking(False)
        self.mpp.tooltip = "Size of a pixel in the tissue. 0.25 is usual at 40×, 0.5 at 20×. It may stay unknown."
        self.mpp.changed.connect(self._give_mpp)
        self.target = ElidedLabel()
        self.change = plain_button("Change…", "Put the project into another folder")
        self.change.clicked.connect(self._ask_target)
        self._form = QWidget()
        form = QGridLayout(self._form)
        form.setContentsMargins(0, 0, 0, 0)
        form.setColumnStretch(1, 1)
        self._mpp_label, self._target_label = QLabel("Pixel size"), QLabel("Project")
        form.addWidget(self._mpp_label, 0, 0)
        form.addWidget(self.mpp.native, 0, 1, 1, 2)
        form.addWidget(self._target_label, 1, 0)
        form.addWidget(self.target, 1, 1)
        form.addWidget(self.change, 1, 2)
        self.reason = sentences("semisegReason")
        self.start = main_button("Start", "Make a project folder for this image; everything you do is kept there")
        self.start.clicked.connect(view.start)
        self.open_image = self._link(
            "Open an image…", "Slides and images of any size: large ones are read where you look", self.ask_image
        )
        self.open = self._link(
            "Open a project…", "Go on with a project: its image, tiles, annotations and results come back",
            self.ask_project,
        )  # fmt: skip
        self.again = self._link(
            "Show the image again", "The project knows where it lies", lambda: view.show_image(session.image_index)
        )
        buttons = QHBoxLayout()
        buttons.setContentsMargins(0, 0, 0, 0)
        buttons.addWidget(self.start, 1)
        buttons.addWidget(self.again)
        buttons.addWidget(self.open_image)
        buttons.addWidget(self.open)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for widget in (self.image, self.size, self._form, self.reason):
            layout.addWidget(widget)
        layout.addLayout(buttons)
        view.changed.connect(self._show)
        session.image_changed.connect(self._show)
        session.project.opened.connect(self._show)
        session.project.closed.connect(self._show)
        self._show()

    def end(self) -> None:
        """Hear nothing more."""
        self.view.changed.disconnect(self._show, missing_ok=True)

    def ask_image(self) -> None:
        """Ask for an image and open it."""
        path, _ = QFileDialog.getOpenFileName(self, "Open an image or a slide", "", IMAGE_FILES)
        if path:
            self.view.open_image(path)

    def ask_project(self) -> None:
        """Ask for a project folder and open it."""
        path = QFileDialog.getExistingDirectory(self, "Open a project (a folder ending in .semiseg)")
        if path:
            self.view.open_project(path)

    def _link(self, text: str, tip: str, do: Callable[[], None]) -> QPushButton:
        link = QPushButton(text)
        link.setObjectName("semisegLink")
        link.setCursor(Qt.CursorShape.PointingHandCursor)
        link.setToolTip(tip)
        link.clicked.connect(do)
        return link

    def _ask_target(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Where the project is to lie", str(self.view.target))
        if path:
            self.view.choose_target(path if path.endswith(".semiseg") else f"{path}.semiseg")

    def _give_mpp(self, value: float) -> None:
        self.view.set_mpp(value if value >= MPP_RANGE[0] else None)

    def _show(self) -> None:
        view, slide = self.view, self.view.slide
        usable = slide is not None and not slide.problem
        started = view.started
        self.image.setVisible(slide is not None)
        self.image.setText(slide.name if slide else "")
        self.size.setVisible(usable)
        if usable:
            kind = {1: "one channel", 3: "RGB", 4: "RGBA"}[slide.channels]
            self.size.setText(f"{slide.shape[1]} × {slide.shape[0]} px · {kind}")
        self._form.setVisible(usable and not started)
        ask_size = usable and view.layer_mpp is None
        self._mpp_label.setVisible(ask_size)
        self.mpp.native.setVisible(ask_size)
        if usable and not self.mpp.native.hasFocus():
            with self.mpp.changed.blocked():
                self.mpp.value = slide.mpp or 0.0
        no_project = self.session.project.folder is None
        for widget in (self._target_label, self.target, self.change):
            widget.setVisible(usable and no_project)
        self.target.setText(str(view.target) if usable else "")
        why = view.why_not
        note = ""
        if usable and not why and not started and not slide.path:
            note = (
                f"This image exists only in memory: it is written into the project once "
                f"({atomic.size_text(slide.nbytes)} before compression)."
            )
        gone = view.taken_out
        said = _TAKEN_OUT if gone else "" if started else why or note
        self.reason.setText(said)
        self.reason.setVisible(bool(said))
        self.again.setVisible(gone)
        self.start.setVisible(not started)
        self.start.setEnabled(not why)
        self.start.setToolTip(why or "Everything you do is kept in the project folder")
        self.start.setText(view.start_words)
        self.open_image.setVisible(no_project and not usable)
        self.open.setVisible(no_project)
        self.done = started and not gone
        self.summary = slide.facts if slide else "no image"
        self.changed.emit()
