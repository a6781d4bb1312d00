"""What a training is asked between two steps, and answers with its network as it is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from napari_semiseg.blocks import Box
from napari_semiseg.engine.checkpoint import RunFolder
from napari_semiseg.engine.doubt import Doubt, Witness, mean_doubt, restarts
from napari_semiseg.engine.look_inside import Subject, look_inside, make_room
from napari_semiseg.engine.preview import Previewer
from napari_semiseg.engine.recipe import Recipe
from napari_semiseg.engine.suggest import Candidates, candidates, models_of, most_places, opened, ranked
from napari_semiseg.errors import InputError
from napari_semiseg.events import Event, Suggested, Unanswered, Written
from napari_semiseg.io.diagnostics import write_look
from napari_semiseg.io.images import Image
from napari_semiseg.nn.opinions import opinions_of
from napari_semiseg.project.folder import ProjectFolder

MOST_IMAGES = 24
"""Images that are looked at for places while a training waits: the nth of many, not all of them."""


class Answers:
    """Proposals of nuclei, suggestions of tiles, and looks inside the method.

    Parameters
    ----------
    recipe : Recipe
    run : RunFolder
    previewer : Previewer
    project : str or None
        Folder of the project that is learned from, if it is one.
    """

    def __init__(self, recipe: Recipe, run: RunFolder, previewer: Previewer, project: str | None) -> None:
        self._recipe, self._run, self._previewer, self._project = recipe, run, previewer, project
        self._seen: dict[tuple[int, int, int], Candidates] = {}  # by image, side and how many images

    def proposed(self, image: int, box: Box, path: str, grown: bool) -> Iterator[Event]:
        """Propose nuclei in a rectangle: the network's, or while it has not grown, the threshold's."""
        predictor = self._recipe.method.predictor() if grown else None
        try:
            yield self._previewer.propose(image, box, path, predictor)
        except InputError as error:
            yield Unanswered("ProposeNuclei", str(error), path)

    def suggested(self, index: int | None, side: int, n: int, grown: bool) -> Iterator[Event]:
        """Suggest tiles by the doubt of this training, as soon as it is worth asking, and of runs before it.

        In one image, or where `index` is None, in all that can be opened, or in `MOST_IMAGES` of them.
        """
        if not self._project:
            return
        try:
            yield Suggested(self._places(self._project, index, side, n, grown))
        except InputError as error:
            yield Unanswered("SuggestTiles", f"No place can be suggested: {error}")

    def _places(self, folder: str, index: int | None, side: int, n: int, grown: bool) -> list[dict[str, Any]]:
        project = ProjectFolder.open(folder, read_only=True)
        images = self._images(project, index)
        for number, image in images.items():
            if (key := (number, side, len(images))) not in self._seen:
                self._seen[key] = candidates(image, number, side, most_places(len(images)))
        found = [self._seen[number, side, len(images)] for number in images]
        witnesses = self._witnesses(project, grown)

        def doubt(number: int, box: Box) -> Doubt:
            return mean_doubt(witnesses, images[number], box)

        return ranked(project, found, n, doubt if witnesses else None)

    def _images(self, project: ProjectFolder, index: int | None) -> dict[int, Image]:
        """Return the images to find places in, by their numbers."""
        if index is not None:
            return {index: self._image(project, index)}
        found = dict[int, Image]()
        for number in range(0, len(project.images), math.ceil(len(project.images) / MOST_IMAGES)):
            with suppress(InputError):  # one that is not there now may be again later
                found[number] = self._image(project, number)
        if not found:
            raise InputError("none of the images can be opened.")
        return found

    def _image(self, project: ProjectFolder, number: int) -> Image:
        """Return an image of the project; the training may not have looked at a new one yet."""
        known = self._recipe.data.images
        return known[number] if number < len(known) else opened(project, number)

    def _witnesses(self, project: ProjectFolder, grown: bool) -> list[Witness]:
        """Return the networks to ask for their doubt: this training's, and those of runs of its kind."""
        recipe, choices = self._recipe, self._recipe.choices
        own = []
        if grown:
            predictor, other = recipe.method.predictor(), recipe.method.second_opinion()
            opinions = opinions_of([predictor] if other is None else [predictor, other])
            divisor, reach = int(getattr(predictor, "divisor", 1)), getattr(predictor, "reach", None)
            own = [Witness(opinions, recipe.device, divisor, reach, recipe.data.mpp)]
        here = self._run.path.resolve()
        before = [run for run in models_of(project, project.path) if run.resolve() != here]
        return own + restarts((choices.method, choices.network), before, recipe.device)

    def inspected(self, show: str, index: int, box: Box, step: int) -> Iterator[Event]:
        """Look inside the method as it is now, and write what is seen."""
        data = self._recipe.data
        if not 0 <= index < len(data.images):
            yield Unanswered("Inspect", f"The training knows no image {index}: train again to look inside it there.")
            return
        image = data.images[index]
        truth = [region for region in (*data.labeled, *data.validation) if region.image == index]
        subject = Subject(self._recipe.method, self._recipe.device, image, image.shape, data.scales[index], truth, step)
        try:
            look = look_inside(subject, show, box, seed=step)
        except InputError as error:
            yield Unanswered("Inspect", str(error))
            return
        path = self._run.diagnostics / f"image-{index}-{show}-step-{step:07d}.npz"
        write_look(path, look)
        make_room(self._run.diagnostics)
        yield Written("look", str(path), {"show": show, "step": step, "image": index, **look.numbers})
