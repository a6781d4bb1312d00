"""The model of the result in view, used on the next image with one click."""

from __future__ import annotations

from qtpy.QtWidgets import QPushButton, QWidget

from napari_semiseg.app.onward import Onward
from napari_semiseg.app.session import Session
from napari_semiseg.plugin.slide_view import SlideView

_HELP = "Go to the next image that this model has not segmented yet, and segment it"


class OnwardButton(QPushButton):
    """Goes on with the model.

    Parameters
    ----------
    session : Session
    view : SlideView
        Puts the next image into view.
    """

    def __init__(self, session: Session, view: SlideView, parent: QWidget | None = None) -> None:
        super().__init__("Use on the next image", parent)
        self.session = session
        self.onward = Onward(session, view.show_image)
        self.clicked.connect(self.onward.go)
        session.review.changed.connect(self._show)
        self._show()

    def end(self) -> None:
        """Hear nothing more."""
        self.session.review.changed.disconnect(self._show, missing_ok=True)
        self.onward.end()

    def _show(self) -> None:
        self.setEnabled(not self.onward.why_not)
        self.setToolTip(self.onward.why_not or _HELP)
