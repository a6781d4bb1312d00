"""The model of the result in view, taken to the images that it has not segmented yet."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from napari_semiseg.app.session import Session
from napari_semiseg.errors import InputError
from napari_semiseg.io.result_card import read_card
from napari_semiseg.project.folder import ProjectFolder
from napari_semiseg.project.image_paths import image_exists


class Onward:
    """Goes to the next image that has no result of the model in use, and has it segmented there.

    Parameters
    ----------
    session : Session
    show : callable
        Puts the image of an index into view; `session.image_changed` says when it is there.
    """

    def __init__(self, session: Session, show: Callable[[int], object]) -> None:
        self.session, self._show = session, show
        self._looking = False
        self._going: tuple[int, Path | None] | None = None
        session.image_changed.connect(self._arrived)
        session.project.closed.connect(self._forget)

    @property
    def why_not(self) -> str:
        """Why the model can be taken nowhere now, in words; "" if it can."""
        return self.session.review.why_not

    def go(self) -> None:
        """Find the next image without a result of this model, in the background, and go on there."""
        session, review = self.session, self.session.review
        folder, index = session.project.folder, session.image_index
        if self.why_not or self._looking or folder is None or index is None or review.result is None:
            return
        if len(folder.images) == 1:
            session.tell("There is no further image in this project: open one and press Start, then Segment.")
            return

        def done(found: list[int]) -> None:
            self._looking = False
            if (session.project.folder, session.image_index) == (folder, index):
                self._go(found, (index + 1) % len(folder.images))

        def failed(error: Exception) -> None:
            self._looking = False
            raise error

        self._looking = True
        session.background.submit(partial(without_result, folder, index, review.result), done, failed)

    def end(self) -> None:
        """Hear nothing more."""
        self.session.image_changed.disconnect(self._arrived, missing_ok=True)
        self.session.project.closed.disconnect(self._forget, missing_ok=True)

    def _forget(self) -> None:
        """Go nowhere: an image of that number in another project is another one."""
        self._going = None

    def _go(self, found: list[int], following: int) -> None:
        if found:
            self._going = found[0], self.session.review.run_path
            self._show(found[0])
        else:
            self.session.tell(
                "This model has segmented every image of the project.",
                actions=(("Show the next one", partial(self._show, following)),),
            )

    def _arrived(self) -> None:
        """Segment the image that was gone on to; another one is only looked at."""
        going, self._going = self._going, None
        if going is not None and self.session.image_index == going[0]:
            if self.why_not:
                self.session.tell(self.why_not, "warning")
            self.session.review.request_predict(going[1])
        elif self.session.image_index is None:  # the next one is still being opened
            self._going = going


def without_result(folder: ProjectFolder, index: int, result: Path) -> list[int]:
    """List the images that have no finished result of the model that another result was made with.

    Reads a small file for each image: not for the GUI thread.

    Parameters
    ----------
    folder : ProjectFolder
    index : int
        Index of the image that is left: the list begins with the one after it, and goes on with the first.
    result : Path
        The result of that image.

    Returns
    -------
    list of int
        Indices. Images that are not where they were come last.
    """
    model = _model_of(result)
    count = len(folder.images)
    others = [(index + step) % count for step in range(1, count)]
    left = [other for other in others if _model_of(folder.prediction_path(other)) != model]
    return sorted(left, key=lambda other: not image_exists(folder.path, folder.images[other]))


def _model_of(result: Path) -> tuple[str, object] | None:
    """Return the run and the step of the model that made a result; None where there is no finished one."""
    try:
        card = read_card(result)
    except InputError:  # nothing, or nothing that can be read: it is made anew
        return None
    return (Path(str(card.facts.get("run", ""))).name, card.facts.get("step")) if card.complete else None
