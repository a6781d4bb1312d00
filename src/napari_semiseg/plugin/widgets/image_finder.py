"""Asks where images of the project lie that are not where they were."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from qtpy.QtWidgets import QFileDialog, QWidget

from napari_semiseg.app.lost_images import find_again, lost_images
from napari_semiseg.app.session import Session
from napari_semiseg.app.words import count
from napari_semiseg.errors import InputError
from napari_semiseg.io.find_images import EXTENSIONS
from napari_semiseg.io.locate import locate
from napari_semiseg.plugin.slide_view import SlideView
from napari_semiseg.plugin.widgets.slide_panel import IMAGE_FILES

_FILES = ({*EXTENSIONS} - {".zarr"}) | {".zip", ".ozx"}


class ImageFinder:
    """Tells that an image is not where it was, and lets the user show where it lies now: each with a dialog of its own.

    Parameters
    ----------
    session : Session
    view : SlideView
    parent : QWidget
    """

    def __init__(self, session: Session, view: SlideView, parent: QWidget) -> None:
        self.session, self.view, self._parent = session, view, parent
        view.not_found.connect(self._tell)
        view.resembles.connect(self._tell_alike)

    @property
    def actions(self) -> tuple[tuple[str, Callable[[], object]], ...]:
        """What a notice about lost images offers."""
        return () if self.session.project.read_only else (("Find…", self.ask),)

    def ask(self) -> None:
        """Ask for the first image that is lost; which ones are is looked up in the background."""
        folder = self.session.project.folder
        if folder is None:
            return

        def done(lost: list[int]) -> None:
            if self.session.project.folder is not folder:
                return
            if lost:
                self._ask(lost[0])
            else:
                self.session.tell("All images of the project are where they should be.")

        self.session.background.submit(partial(lost_images, folder), done)

    def _tell(self, index: int) -> None:
        told = self.session.notice
        if told is not None and told.actions and told.actions == self.actions:
            return  # as on opening the project, when all of them were named
        source = self.session.project.images[index]
        where = self.session.project.folder.source_path(index)
        wanted = "show where it lies now" if self.actions else "open the project for writing to show where it lies now"
        self.session.tell(f"“{source.name}” is not where it was ({where}): {wanted}.", "warning", actions=self.actions)

    def _tell_alike(self, index: int) -> None:
        slide = self.view.slide
        if slide is not None:
            self.session.tell(
                f"“{self.session.project.images[index].name}” of this project is not where it was, and this file has "
                "its name and size: is it that image?",
                "warning",
                actions=(("It is", partial(self.find, index, slide.path)), ("Add it as another one", self.view.add)),
            )

    def _ask(self, index: int) -> None:
        """Ask for a file, or where the image was an OME-Zarr, for a folder."""
        folder = self.session.project.folder
        before = Path(locate(folder.source_path(index)).path)
        title = f"Where does “{folder.images[index].name}” lie now? ({before.name})"
        if before.suffix.lower() in _FILES:
            path, _ = QFileDialog.getOpenFileName(self._parent, title, "", f"{IMAGE_FILES};;All files (*)")
        else:
            path = QFileDialog.getExistingDirectory(self._parent, title)
        if path:
            self.find(index, path)

    def find(self, index: int, path: str | Path) -> None:
        """Look at a file in the background and, if it is the image, go on with it there."""
        project, folder = self.session.project, self.session.project.folder
        name = folder.images[index].name

        def work() -> tuple[list[int], list[int]]:
            return find_again(folder, index, path), lost_images(folder)

        def done(result: tuple[list[int], list[int]]) -> None:
            if project.folder is not folder:
                return
            found, lost = result
            project.images_changed.emit()
            said = f"“{name}” is found."
            if len(found) > 1:
                others = count(len(found) - 1, "other image", "other images")
                said += f" So {'is' if len(found) == 2 else 'are'} {others} beside it."
            if lost:
                said += f" Not found yet: {', '.join(folder.images[other].name for other in lost)}."
            self.session.tell(said, "warning" if lost else "info", actions=self.actions if lost else ())
            self.view.show_image(index)

        def failed(error: Exception) -> None:
            if not isinstance(error, InputError):
                raise error
            self.session.tell(str(error), "error", actions=self.actions)

        self.session.tell(f"Looking at “{Path(path).name}”…")
        self.session.background.submit(work, done, failed)
