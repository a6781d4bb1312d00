"""The menu *Import labels*: from a file, or from the labels layer that is selected."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Labels
from qtpy.QtWidgets import QFileDialog, QMenu, QWidget

from napari_semiseg.app.label_import import LabelImport
from napari_semiseg.app.last_import import PaintedTiles
from napari_semiseg.app.session import Session
from napari_semiseg.errors import InputError
from napari_semiseg.io.foreign_labels import ForeignLabels, of_array
from napari_semiseg.plugin.layers import Placement, levels, role, tag, unwrapped
from napari_semiseg.plugin.slide_view import SlideView

_FILES = "Labels (*.geojson *.json *.geojson.gz *.json.gz *.zip *.roi *.tif *.tiff *.png)"


class ImportMenu(QMenu):
    """What can be brought into the tiles of the image in view.

    Parameters
    ----------
    session : Session
    viewer : napari viewer
    view : SlideView
    tiles : PaintedTiles
    """

    def __init__(
        self, session: Session, viewer: Any, view: SlideView, tiles: PaintedTiles, parent: QWidget | None = None
    ) -> None:
        super().__init__("Import labels", parent)
        self.model = LabelImport(session, tiles)
        self._viewer, self._view = viewer, view
        self.setToolTipsVisible(True)
        self.why = self.addAction("")
        self.why.setEnabled(False)
        self.file = self.addAction("From a file…", self._ask_file)
        self.file.setToolTip("GeoJSON of QuPath, regions of ImageJ, or a label image")
        self.folder = self.addAction("From an OME-Zarr…", self._ask_folder)
        self.layer = self.addAction("From the selected labels layer", self.import_layer)
        self.addSeparator().setEnabled(False)
        self.undo = self.addAction("Undo the last import", self.model.last.take_back)

    def prepare(self) -> None:
        """Say what can be done now."""
        self._prepare_undo()
        why = self.model.why_not
        self.why.setText(why)
        self.why.setVisible(bool(why))
        layer = self._selected()
        for action, possible in ((self.file, True), (self.folder, True), (self.layer, layer is not None)):
            action.setEnabled(possible and not why)
        self.layer.setToolTip("" if layer is not None else "Select a labels layer that is not a tile's own first")
        self.layer.setText("From the selected labels layer" if layer is None else f"From the layer “{layer.name:.40}”")

    def _prepare_undo(self) -> None:
        why, name = self.model.why_no_undo, self.model.last.name
        self.undo.setEnabled(not why)
        text = f"Undo the import of “{name:.40}”" if name else "Undo the last import"
        self.undo.setText(text.replace("&", "&&"))
        self.undo.setToolTip(why or "Remove the tiles that it made, and empty those that it filled")

    def import_layer(self) -> None:
        """Bring in the labels layer that is selected."""
        layer = self._selected()
        if layer is None or self._view.layer is None:
            return
        data, name = levels(layer)[0], str(layer.name)
        try:
            origin = _origin(layer, self._view.placement, data.shape, self._view.slide.shape)
        except InputError as error:
            self.model.session.tell(str(error), "error")
            return

        def make() -> ForeignLabels:
            return of_array(np.array(data), name, origin)

        self.model.begin(make, name)

    def _selected(self) -> Any:
        """Return the labels layer that is selected, if it is not one of a tile's own, and no outlines."""
        active = self._viewer.layers.selection.active
        if active is None or not isinstance(unwrapped(active), Labels):
            return None
        return None if role(active) == "annotation" or tag(active).get("outlines") else active

    def _ask_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self.parentWidget(), "Labels of this image", "", _FILES)
        if path:
            self.model.from_file(path)

    def _ask_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self.parentWidget(), "Labels of this image (a folder ending in .zarr)")
        if path:
            self.model.from_file(path)


def _origin(layer: Any, image: Placement, shape: tuple[int, ...], whole: tuple[int, int]) -> tuple[int, int]:
    """Return the pixel of the image where a layer's first pixel lies.

    A layer with as many pixels as the image is taken to lie on it, also where it does not say so.

    Raises
    ------
    InputError
        If its pixels are not those of the image.
    """
    if tuple(shape) == tuple(whole):
        return 0, 0
    own = Placement.of(layer)
    first, next_ = (np.array(image.to_image(own.to_world(at, at))) for at in (0, 1))
    if len(shape) != 2 or not np.allclose(next_ - first, 1, atol=0.02):
        raise InputError(
            f"The layer “{layer.name}” has other pixels than the image: give it the scale of the image, or labels of "
            "the whole image."
        )
    y, x = np.rint(first).astype(int).tolist()
    return y, x
