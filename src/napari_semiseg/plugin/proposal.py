"""Nuclei before any training: the threshold's proposal, asked for as soon as an image is in view."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any
from weakref import ref

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap

from napari_semiseg.app.session import Session
from napari_semiseg.app.slide import Slide
from napari_semiseg.events import Event, Failed, Written
from napari_semiseg.plugin.layers import KEY, insert, levels, of_role, put, tag, unwrapped
from napari_semiseg.plugin.slide_view import SlideView
from napari_semiseg.project.stored_array import write_array

COLOR = "#56b4e9"
MOST_IN_MEMORY = 200_000_000
"""Bytes up to which an image that is in no file is written into a temporary one for the engine; larger ones wait for
Start, which says how large they are."""


class Proposal:
    """Keeps one layer with the proposal for the image in view.

    The engine reads images from files, so one that exists only in memory is written into a temporary folder first.
    """

    def __init__(self, session: Session, viewer: Any, view: SlideView) -> None:
        self.session, self.viewer, self.view = session, viewer, view
        self._folder: Path | None = None
        self._for: tuple[Any, ...] | None = None
        self._count = 0
        view.changed.connect(self._look)
        self._look()

    # ---- asking ----

    def _look(self) -> None:
        layer, slide = self.view.layer, self.view.slide
        if layer is None or slide is None or slide.problem:
            self._for = None
            self.clear()
            return
        about = (ref(unwrapped(layer)), slide.shape, slide.channels, slide.path)
        if about == self._for:
            self._place()
            return
        if not slide.path and slide.nbytes > MOST_IN_MEMORY and self.session.image_index is None:
            return
        self._for = about
        self._count += 1
        self.clear()
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="napari-semiseg-"))
        folder = self._folder / str(self._count)
        project, index = self.session.project.folder, self.session.image_index
        source = project.source_path(index) if project is not None and index is not None else slide.path
        first = levels(layer)[0]
        self.session.background.submit(
            lambda: _readable(source, folder, first, slide), lambda path: self._ask(about, path, folder), self._cannot
        )

    def _ask(self, about: tuple[Any, ...], path: str, folder: Path) -> None:
        if about == self._for and self.view.slide is not None:
            self.session.ask(
                "propose",
                {"image": path, "out": str(folder), "mpp": self.view.slide.mpp},
                lambda event: self._hear(about, event),
            )

    def _hear(self, about: tuple[Any, ...], event: Event) -> None:
        if about != self._for:
            return
        match event:
            case Written(what="nuclei", path=path, facts=facts):
                self.session.background.submit(
                    lambda: np.load(path, allow_pickle=False),
                    lambda labels: self._show(about, labels, facts),
                    self._cannot,
                )
            case Failed(message, _, detail):
                self.session.tell(message, "warning", details=detail)

    def _cannot(self, error: Exception) -> None:
        self.session.tell(f"There is no proposal for this image: {error}", "warning")

    # ---- showing ----

    def _show(self, about: tuple[Any, ...], labels: np.ndarray, facts: dict[str, Any]) -> None:
        if about != self._for or self.view.placement is None:
            return
        y0, x0 = (int(side) for side in facts.get("box", (0, 0))[:2])
        downsample = int(facts.get("downsample", 1))
        stained = facts.get("stain", "hematoxylin") == "hematoxylin"
        layer = Labels(
            labels,
            name=f"Proposal ({'hematoxylin' if stained else 'intensity'} threshold, no training)",
            metadata={
                KEY: {
                    "role": "proposal",
                    "origin": (y0, x0),
                    "downsample": downsample,
                    "image": self.session.image_index,
                }
            },
            opacity=0.9,
            visible=not any(of_role(self.viewer, later) for later in ("confidence", "nuclei")),
            **self.view.placement.at(y0, x0, downsample),
        )
        layer.colormap = DirectLabelColormap(color_dict={0: "transparent", None: COLOR})
        layer.contour = 1
        layer.editable = False
        insert(self.viewer, layer)

    def _place(self) -> None:
        for layer in of_role(self.viewer, "proposal"):
            noted = tag(layer)
            put(layer, self.view.placement.at(*noted["origin"], noted["downsample"]))
            if noted["image"] != self.session.image_index and self.session.image_index is not None:
                layer.metadata[KEY] = {**noted, "image": self.session.image_index}

    def clear(self) -> None:
        """Take the proposal out of the viewer."""
        for layer in of_role(self.viewer, "proposal"):
            self.viewer.layers.remove(layer)

    def end(self) -> None:
        """Let go, and delete what was written for the engine."""
        self._for = None
        self.view.changed.disconnect(self._look, missing_ok=True)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _readable(source: str, folder: Path, array: Any, slide: Slide) -> str:
    """Return a path that the engine can read: the file itself, or one with the layer's pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    if source:
        return source
    path = folder / "image.ome.tif"
    write_array(path, array, slide.name, slide.mpp)
    return str(path)
