"""Places where the network is unsure, one after the other."""

from __future__ import annotations

from qtpy.QtWidgets import QPushButton, QWidget

from napari_semiseg.app.review_model import ReviewModel
from napari_semiseg.app.words import count
from napari_semiseg.plugin.result_layers import ResultLayers


class PlacesButton(QPushButton):
    """Goes to the next place in doubt, the most doubtful first.

    Parameters
    ----------
    model : ReviewModel
    results : ResultLayers
        Which know the places.
    """

    def __init__(self, model: ReviewModel, results: ResultLayers, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.model, self.results = model, results
        self._place = -1
        self.setToolTip("Go to the next place where the network is unsure, the most doubtful first")
        self.clicked.connect(self._go)
        model.result_changed.connect(self._begin_anew)
        model.changed.connect(self._show)
        self._show()

    def end(self) -> None:
        """Hear nothing more."""
        self.model.result_changed.disconnect(self._begin_anew, missing_ok=True)
        self.model.changed.disconnect(self._show, missing_ok=True)

    def _begin_anew(self) -> None:
        self._place = -1
        self._show()

    def _go(self) -> None:
        places = self.results.doubtful
        if places:
            self._place = (self._place + 1) % len(places)
            self.results.look_at(places[self._place])
            self._show()

    def _show(self) -> None:
        places = self.results.doubtful
        self.setEnabled(bool(places))
        if not places:
            self.setText("no place in doubt")
        elif self._place < 0:
            self.setText(f"{count(len(places), 'place')} in doubt  ▸")
        else:
            self.setText(f"{self._place + 1} of {len(places)} in doubt  ▸")
