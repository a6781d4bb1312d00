"""The image in view and the project it belongs to: found among napari's layers, or put there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Image
from psygnal import Signal

from napari_semiseg import atomic
from napari_semiseg.app.session import Session
from napari_semiseg.app.slide import Slide, usual_project_path
from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.io.images import Image as Picture
from napari_semiseg.io.images import from_array, open_image
from napari_semiseg.io.locate import stem
from napari_semiseg.plugin.layers import (
    KEY,
    Placement,
    image_layers,
    is_image,
    levels,
    of_role,
    path_of,
    role,
    slide_of,
    tag,
    unwrapped,
)
from napari_semiseg.plugin.picture_layer import Shown, picture_layer
from napari_semiseg.project.image_paths import image_exists
from napari_semiseg.project.opening import PROJECT_FILE, DamagedProject


class _NotThere(InputError):
    """The file of an image is not where it was."""


_TOLD = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels", "data", "name")
"""Changes of a layer that make another slide of it, or lay it elsewhere."""


class SlideView:
    """Follows which image is looked at, and starts or opens projects.

    Attributes
    ----------
    slide : Slide or None
        What is known of the image in view; None where there is none.
    layer : napari Image layer or None
    placement : Placement or None
        Where it lies.
    target : Path
        Where its project is or would be; empty (``Path()``) without an image.
    """

    changed = Signal()
    not_found = Signal(int)
    """An image of the project, by its index, is to be shown, and its file is not where it was."""
    resembles = Signal(int)
    """The image in view is to be added, and has the name and shape of one, by its index, that is not where it was."""

    def __init__(self, session: Session, viewer: Any) -> None:
        self.session = session
        self.viewer = viewer
        self.slide: Slide | None = None
        self.layer: Any = None
        self.placement: Placement | None = None
        self._waits: list[str] = []  # for what, in words
        self._targets: WeakKeyDictionary[Any, Path] = WeakKeyDictionary()  # by layer: where its project is to lie
        self._mpp: WeakKeyDictionary[Any, float] = WeakKeyDictionary()  # by layer: what the user said
        self._ended = self._lost = False
        self._indices: WeakKeyDictionary[Any, int] = WeakKeyDictionary()  # by layer: index in the project
        self._arriving: dict[int, Callable[[], object]] = {}  # what to do when an image that is being opened is there
        viewer.layers.events.inserted.connect(self._on_layers)
        viewer.layers.events.removed.connect(self._on_removed)
        viewer.layers.selection.events.active.connect(self._on_active)
        session.project.closed.connect(self._on_closed)
        session.project.opened.connect(self.look)
        self.look()

    # ---- what is in view ----

    def look(self) -> None:
        """Find the image that is looked at: the active image layer, or else the one before, or else the lowest."""
        if self._ended:
            return
        self._lost = False
        layer = self._in_view()
        if layer is not None and (self.layer is None or layer != self.layer):
            self._watch(layer)
        self.layer = layer
        self._note()

    def settle(self) -> None:
        """Look again where the image in view was deleted. The dock calls it often."""
        if self._lost:
            self.look()

    @property
    def busy(self) -> str:
        """What is being waited for, of several the newest, in words; "" for nothing."""
        return self._waits[-1] if self._waits else ""

    @property
    def layer_mpp(self) -> float | None:
        """Pixel size that the layer itself names, in µm."""
        return slide_of(self.layer).mpp if self.layer is not None else None

    def set_mpp(self, mpp: float | None) -> None:
        """Note a pixel size that the user gave, in µm."""
        if self.layer is not None:
            self._mpp.pop(unwrapped(self.layer), None)
            if mpp is not None:
                self._mpp[unwrapped(self.layer)] = mpp
            self._note()

    @property
    def target(self) -> Path:
        """Where the project is or would be."""
        chosen = self._targets.get(unwrapped(self.layer)) if self.layer is not None else None
        if chosen is not None:
            return chosen
        return usual_project_path(self.slide, Path.home()) if self.slide else Path()

    def choose_target(self, path: str | Path | None) -> None:
        """Put the project of the image in view elsewhere; None for the usual place."""
        if self.layer is not None:
            self._targets.pop(unwrapped(self.layer), None)
            if path:
                self._targets[unwrapped(self.layer)] = Path(path)
        self.changed.emit()

    @property
    def target_exists(self) -> bool:
        """Whether a project lies there."""
        with contextlib.suppress(OSError):
            return self.target != Path() and (self.target / PROJECT_FILE).is_file()
        return False

    @property
    def started(self) -> bool:
        """Whether the image in view belongs to the open project."""
        return self.session.image_index is not None

    @property
    def taken_out(self) -> bool:
        """Whether the layer of the project's image was deleted, and no other one came into view."""
        return self.started and self.slide is None and not self.busy

    @property
    def why_not(self) -> str:
        """Why Start is disabled, in words; "" if it is not."""
        if self.busy:
            return self.busy
        if self.slide is None:
            return "Open an image first: drag a file into the window, or use File ▸ Open."
        if self.slide.problem:
            return self.slide.problem
        if self.session.project.folder is None and not self.target_exists:
            with contextlib.suppress(OSError):
                if not os.access(self.target.parent, os.W_OK):
                    return f"Nothing can be written into {self.target.parent}: choose another place for the project."
        if self.session.project.folder is not None and self.session.project.read_only:
            return "The project is open read-only, so no image can be added."
        return ""

    @property
    def start_words(self) -> str:
        """What the button says that begins with the image in view."""
        if self.session.project.folder is not None:
            return "Add to the project"
        return "Continue" if self.target_exists else "Start"

    # ---- what a user asks for ----

    def start(self) -> None:
        """Make or open the project of the image in view, and put the image into it."""
        if self.why_not or self.started:
            return
        if self.session.project.folder is None:
            target = self.target
            try:
                if self.target_exists:
                    self._open(target)
                else:
                    self.session.project.create(target)
            except InputError as error:
                self._say_why(error, target)
                return
        self._find_or_add()

    def add(self) -> None:
        """Add the image in view to the project, whatever it resembles."""
        if not self.why_not and not self.started and self.session.project.folder is not None:
            self._find_or_add(sure=True)

    def open_project(self, path: str | Path) -> None:
        """Open a project with its first image, or the one in view if that belongs to it."""
        try:
            self._open(Path(path))
        except InputError as error:
            self._say_why(error, Path(path))
            return
        if not self.session.project.images:
            self.session.tell("The project holds no image yet: open one and press Start.")
        elif self.layer is not None and self.slide and not self.slide.problem:
            self._find_or_add(only_find=True)
        else:
            self.show_image(0)

    def close_project(self) -> None:
        """Save and close the project; the image stays."""
        if not self.session.project.close():
            self.session.tell("Not everything could be saved before closing: look at the project again.", "error")

    def show_image(self, index: int, *, then: Callable[[], object] = lambda: None) -> None:
        """Put an image of the project into view, and its other images out of it; it is opened in the background.

        `then` is called when it is there. An image that is being opened already is not opened twice.
        """
        project, folder = self.session.project, self.session.project.folder
        path, source = folder.source_path(index), project.images[index]
        for layer in image_layers(self.viewer):
            if self._indices.get(unwrapped(layer)) == index or path_of(layer) == path:
                self._indices[unwrapped(layer)] = index
                self.viewer.layers.selection.active = layer
                self._show_only(index)
                self._took(index)
                then()
                return
        arriving = index in self._arriving
        self._arriving[index] = then
        if arriving:
            return

        def put(found: Shown) -> None:
            if project.folder is not folder:
                return
            wanted = self._arriving.pop(index)
            outside = "" if Path(path).is_relative_to(project.path) else path  # the project's own goes with it
            layer = self._add(found, source.name, outside, {"project": str(project.path), "image": index})
            self._indices[layer] = index
            self._show_only(index)
            self._took(index)
            wanted()

        def failed(error: Exception) -> None:
            here = project.folder is folder
            if here:
                self._arriving.pop(index)
            if here and isinstance(error, _NotThere):
                self.not_found.emit(index)
            else:
                self._failed(error)

        def opened() -> Picture:
            try:
                return open_image(path, mpp=source.mpp)
            except InputError as error:
                raise error if image_exists(folder.path, source) else _NotThere(str(error)) from error

        self._open_picture(opened, source.name, put, failed)

    def open_image(self, path: str | Path) -> None:
        """Put any image that can be predicted into view, in the background; a slide is read where it is looked at."""
        path = os.path.abspath(path)  # noqa: PTH100
        self._open_picture(
            lambda: open_image(path),
            Path(path).name,
            lambda found: self._add(found, stem(path), path, {}),
            self._failed,
        )

    # ---- inner ----

    def _open_picture(
        self,
        opened: Callable[[], Picture],
        name: str,
        put: Callable[[Shown], object],
        failed: Callable[[Exception], object],
    ) -> None:
        self._submit(f"Opening {name}…", lambda: picture_layer(opened()), put, failed)

    def _submit(
        self,
        words: str,
        work: Callable[[], Any],
        done: Callable[[Any], object],
        failed: Callable[[Exception], object],
    ) -> None:
        """Do `work` in the background, and say in `words` what is waited for, whatever else is."""
        self._waits.append(words)
        self.changed.emit()

        def end(then: Callable[[Any], object], result: Any) -> None:
            self._waits.remove(words)
            self.changed.emit()
            then(result)

        self.session.background.submit(work, partial(end, done), partial(end, failed))

    def _add(self, found: Shown, name: str, path: str, known: dict[str, Any]) -> Image:
        """Make the layer of an image that we have opened, lowest and active."""
        layer = Image(
            found.data,
            rgb=found.rgb,
            multiscale=found.multiscale,
            contrast_limits=None if found.rgb else (0, 255),
            name=name,
            metadata={KEY: {"role": "image", "path": path, **known}},
            **found.place,
        )
        self.viewer.layers.insert(0, layer)
        self.viewer.layers.selection.active = layer
        self.viewer.reset_view()
        return layer

    def _show_only(self, index: int, *, all_of_them: bool = True) -> None:
        """Open the eye of one image of the project, and close those of the others that lie where it lies.

        Without `all_of_them` only images that we have opened are closed.
        """
        images = [(layer, self._index_of(layer)) for layer in image_layers(self.viewer)]
        shown = [layer for layer, number in images if number == index]
        for layer in shown:
            layer.visible = True
        for layer, number in images:
            ours = all_of_them or role(layer) == "image"
            if number not in (None, index) and ours and layer.visible and any(_meet(layer, one) for one in shown):
                layer.visible = False

    def _index_of(self, layer: Any) -> int | None:
        """Return the number, in the project, of the image of a layer; None where it is none of the project's."""
        index = self._indices.get(unwrapped(layer))
        if index is None and tag(layer).get("project") == str(self.session.project.path):
            index = tag(layer).get("image")
        return index

    def _in_view(self) -> Any:
        candidates = image_layers(self.viewer)
        active = self.viewer.layers.selection.active
        if active is not None and is_image(active):
            return active
        if self.layer is not None and any(self.layer == layer for layer in candidates):
            return self.layer
        return candidates[0] if candidates else None

    def _watch(self, layer: Any) -> None:
        for emitter in _emitters(layer):
            emitter.connect(self._on_image)

    def _note(self) -> None:
        if self.layer is None:
            self.slide = None
        else:
            said = self._mpp.get(unwrapped(self.layer))
            slide = slide_of(self.layer)
            self.slide = Slide(**{**vars(slide), "mpp": said}) if said and not slide.problem else slide
            if not slide.problem:
                self.placement = Placement.of(self.layer)
                self._note_index()
        self.changed.emit()

    def _note_index(self) -> None:
        """Another image layer of the same project may have come into view."""
        if self.session.project.folder is not None:
            index = self._index_of(self.layer)
            if index is not None and index < len(self.session.project.images):
                if index != self.session.image_index:
                    self._show_only(index, all_of_them=False)
                self.session.show_image(index)
            else:
                self.session.show_image(None)

    def _open(self, path: Path) -> None:
        held = self.session.project.open_or_look(path)
        if held is not None:
            sentence = (
                f"Read-only: this project is open {held.holder.words}. To change it, close it there and open it again"
            )
            actions = ()
            if not held.holder.on_this_computer:
                actions = (("Take over", lambda: self._take_over(path)),)
                sentence += ", or take it over if nothing there has it open any more"
            self.session.tell(f"{sentence}.", "warning", actions=actions)

    def _take_over(self, path: Path) -> None:
        index = self.session.image_index
        try:
            self.session.project.open(path, take_over=True)
        except InputError as error:
            self._say_why(error, path)
        else:
            self._took(index)

    def _say_why(self, error: InputError, path: Path) -> None:
        actions = ()
        if isinstance(error, DamagedProject) and error.can_restore:
            actions = (("Restore the copy", lambda: self._restore(path)),)
        self.session.tell(str(error), "error", actions=actions)
        self.changed.emit()

    def _restore(self, path: Path) -> None:
        try:
            self.session.project.restore(path)
        except InputError as error:
            self.session.tell(str(error), "error")
        else:
            self._find_or_add(only_find=True)

    def _find_or_add(self, *, only_find: bool = False, sure: bool = False) -> None:
        """Find the image in view in the project, or put it there; off the GUI thread, since it may be large.

        One that may be an image of the project that was moved is put there only by who is `sure`.
        """
        layer, slide, project = self.layer, self.slide, self.session.project
        folder = project.folder
        data, arrays = levels(layer)[0], levels(layer)
        known = [(index, folder.source_path(index), source) for index, source in enumerate(project.images)]
        read_only = project.read_only or only_find
        place = "into the project" if not slide.path else ""
        words = (
            f"Writing {slide.name} {place} ({atomic.size_text(slide.nbytes)})…"
            if place and not only_find
            else "Opening…"
        )

        def work() -> tuple[int | None, bool]:
            for index, path, source in known:
                if slide.path and os.path.realpath(path) == os.path.realpath(slide.path):
                    return index, True
                if not slide.path and source.shape == slide.shape and _same(path, arrays, slide):
                    return index, True
            for index, path, source in known if not sure and not folder.read_only else ():
                alike = (Path(path).name, source.shape) == (Path(slide.path).name, slide.shape)
                if alike and not image_exists(folder.path, source):
                    return index, False
            if read_only:
                return None, True
            picture = _picture_of_file(slide)
            if picture is not None:
                return folder.add_image(picture, mpp=slide.mpp), True
            return folder.add_array(data, slide.name, slide.mpp), True

        def done(result: tuple[int | None, bool]) -> None:
            if project.folder is not folder:
                return
            index, certain = result
            if index is not None and not certain:
                self.resembles.emit(index)
                return
            if index is None:
                self.show_image(0)
                return
            self._indices[unwrapped(layer)] = index
            project.images_changed.emit()
            if any(layer == other for other in self.viewer.layers):
                self._took(index)
            else:
                self.show_image(index)

        self._submit(words, work, done, self._failed)

    def _took(self, index: int | None) -> None:
        self.session.show_image(index)
        self._note()
        tiles = [tile for tile in self.session.project.tiles if tile.image == index]
        if tiles and not self.session.project.selected:
            self.session.project.select(tiles[-1].id)

    def _failed(self, error: Exception) -> None:
        said = str(error) if isinstance(error, InputError) else f"The image cannot be read ({error})."
        self.session.tell(said, "error")

    def _on_layers(self, event: Any = None) -> None:
        self.look()

    def _on_removed(self, event: Any = None) -> None:
        """Note that the image in view is gone; `settle` follows.

        Layers that were shown with it go then, and not while napari deletes several at once: they may be among them.
        """
        self._lost = self._lost or self._image_gone

    def _on_active(self, event: Any = None) -> None:
        """Look anew only where another image is in view: that a tile is chosen changes nothing."""
        if self._ended:
            return
        if self._image_gone:
            self._lost = True
        elif self.layer is None or self._in_view() != self.layer:
            self.look()

    @property
    def _image_gone(self) -> bool:
        return self.layer is not None and self.layer not in self.viewer.layers

    def _on_image(self, event: Any = None) -> None:
        if self.layer is not None and not self._ended:
            self._note()

    def _on_closed(self) -> None:
        self._indices.clear()
        self._arriving.clear()
        for layer in of_role(self.viewer, "image"):
            layer.metadata[KEY] = {"role": "image", "path": path_of(layer)}
        self._note()

    def end(self) -> None:
        """Let go of the viewer."""
        self._ended = True
        self.viewer.layers.events.inserted.disconnect(self._on_layers)
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        self.viewer.layers.selection.events.active.disconnect(self._on_active)
        for layer in image_layers(self.viewer):
            for emitter in _emitters(layer):
                emitter.disconnect(self._on_image)


def _emitters(layer: Any) -> list[Any]:
    """List what a layer says of itself that matters to a slide; not every napari has each."""
    return [emitter for name in _TOLD if (emitter := getattr(layer.events, name, None)) is not None]


def _meet(one: Any, other: Any) -> bool:
    """Whether two layers share a part of the world."""
    (low, high), (other_low, other_high) = (layer.extent.world[:, -2:] for layer in (one, other))
    return bool(np.all(low < other_high) and np.all(other_low < high))


def _picture_of_file(slide: Slide) -> Picture | None:
    """Open the file that a layer came from, if it holds the very image of the layer."""
    if not slide.path:
        return None
    try:
        picture = open_image(slide.path, mpp=slide.mpp)
    except InputError:
        return None  # a kind that only napari's other plugins read, or one plane of many: its pixels are written
    same = picture.shape == slide.shape and picture.gray == (slide.channels == 1)
    return picture if same else None


def _same(path: str, arrays: list[Any], slide: Slide) -> bool:
    """Whether a file holds the image of a layer: compared where it costs little, in nine squares."""
    try:
        stored, shown = open_image(path), from_array(arrays if len(arrays) > 1 else arrays[0], slide.name)
        height, width = slide.shape
        for y in (0, height // 2, max(0, height - 64)):
            for x in (0, width // 2, max(0, width - 64)):
                box = Box(y, x, min(y + 64, height), min(x + 64, width))
                if not np.array_equal(stored.read(box), shown.read(box)):
                    return False
    except InputError:
        return False
    return True
