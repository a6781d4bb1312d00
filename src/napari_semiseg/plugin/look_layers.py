"""A look inside a method as layers over the image that it is of."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Image, Labels, Layer, Shapes
from napari.utils.colormaps import DirectLabelColormap

from napari_semiseg.app.session import Session
from napari_semiseg.io.diagnostics import Amount, Boxes, Categories, Colors, Diagnostic, Look, Place
from napari_semiseg.plugin.layers import KEY, insert, of_role, put
from napari_semiseg.plugin.slide_view import SlideView

MOST_BOXES = 200
"""Rectangles that are drawn at most: more only hide each other, and hold up the window."""
OPACITY = 0.55


class LookLayers:
    """Shows what the inspection model holds; a new look takes the place of the one before.

    Parameters
    ----------
    session : Session
    viewer : napari viewer
    view : SlideView
    """

    def __init__(self, session: Session, viewer: Any, view: SlideView) -> None:
        self.session, self.viewer, self.view = session, viewer, view
        self._shown: Look | None = None
        session.inspection.changed.connect(self._on_changed)
        view.changed.connect(self._place)

    def end(self) -> None:
        """Let go of everything; the layers stay."""
        self.session.inspection.changed.disconnect(self._on_changed, missing_ok=True)
        self.view.changed.disconnect(self._place, missing_ok=True)

    def _on_changed(self) -> None:
        look = self.session.inspection.look
        if look is self._shown:
            return
        self._shown = look
        for layer in of_role(self.viewer, "look"):
            self.viewer.layers.remove(layer)
        if look is None or self.view.placement is None or self.session.inspection.image != self.session.image_index:
            return
        for number, (name, item) in enumerate(look.maps.items()):
            layer = self._made(name, item, look.place)
            if layer is not None:
                layer.metadata[KEY] = {"role": "look", "project": str(self.session.project.path), "name": name}
                layer.visible = number == 0 or isinstance(item, Boxes)  # the rest would hide it, and is a click away
                insert(self.viewer, layer)

    def _made(self, name: str, item: Diagnostic, place: Place) -> Layer | None:
        match item:
            case Categories(values, meanings):
                colors = {kind: (*(part / 255 for part in each.color), 1.0) for kind, each in meanings.items()}
                features = {"index": list(meanings), "meaning": [each.words for each in meanings.values()]}
                layer = Labels(
                    values,
                    name=name,
                    colormap=DirectLabelColormap(color_dict={None: "transparent", 0: "transparent"} | colors),
                    features=features,
                    opacity=OPACITY,
                    **self._at(values, place),
                )
                layer.editable = False
                return layer
            case Amount(values, low, high, _):
                return Image(
                    values,
                    name=name,
                    colormap="viridis",
                    contrast_limits=(low, high),
                    blending="translucent_no_depth",
                    opacity=OPACITY + 0.2,
                    **self._at(values, place),
                )
            case Colors(values, _):
                return Image(values, name=name, rgb=True, blending="translucent_no_depth", **self._at(values, place))
            case Boxes():
                return self._boxes(name, item, place)
        return None  # a plot lies over no image: the panel shows it

    def _boxes(self, name: str, item: Boxes, place: Place) -> Shapes | None:
        corners = item.corners[:MOST_BOXES] * place.pixel + (place.y, place.x) * 2 - 0.5  # edges lie between pixels
        if not len(corners):
            return None
        colors = np.array([[part / 255 for part in item.meanings[int(kind)].color] for kind in item.kinds[:MOST_BOXES]])
        layer = Shapes(
            corners.reshape(-1, 2, 2),
            shape_type="rectangle",
            name=name,
            edge_color=colors,
            face_color="transparent",
            edge_width=2 * place.pixel,
            features={"meaning": [item.meanings[int(kind)].words for kind in item.kinds[:MOST_BOXES]]},
            **self.view.placement.at(),  # type: ignore[union-attr]
        )
        layer.editable = False
        return layer

    def _at(self, values: np.ndarray, place: Place) -> dict[str, Any]:
        cell = place.pixel * place.height / values.shape[0]
        return self.view.placement.at(place.y, place.x, cell)  # type: ignore[union-attr]

    def _place(self) -> None:
        if self._shown is None or self.view.placement is None:
            return
        for layer in of_role(self.viewer, "look"):
            boxes = isinstance(layer, Shapes)
            put(layer, self.view.placement.at() if boxes else self._at(layer.data, self._shown.place))
