"""Where a run has ever learned from labels: what judges it may not lie there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

from pydantic import Field

from napari_semiseg.blocks import Box
from napari_semiseg.config import Config


class Place(Config):
    """A rectangle of an image that a run has learned from, but for other rectangles in it."""

    image: int = Field(ge=0)
    box: Box
    spared: tuple[Box, ...] = ()
    """What was left out each time that it was learned from: tiles that judge and lie on it in part."""


class Learned(Config):
    """Everything that a run has learned from since it began, as ``run.json`` keeps it.

    Rectangles are kept and not the ids of tiles: a tile may be removed, and another one drawn in its place.
    """

    places: tuple[Place, ...] = ()

    @classmethod
    def of(cls, config: Mapping[str, Any], where: str) -> Self:
        """Read it from a ``run.json``; runs of before have not written it down, and then nothing is known.

        Raises
        ------
        InputError
            If it is broken.
        """
        return cls.checked({"places": config.get("learned", ())}, where)

    def facts(self) -> list[dict[str, Any]]:
        """Return it as JSON knows it."""
        return [place.model_dump(mode="json") for place in self.places]

    def and_from(self, regions: Iterable[tuple[int, Box]], judges: Iterable[tuple[int, Box]]) -> Learned:
        """Return it with what is learned from now.

        Parameters
        ----------
        regions : iterable of (int, Box)
            Image and rectangle of what teaches.
        judges : iterable of (int, Box)
            The same of what does not: it was left out of the labels of what teaches.
        """
        judging = list(judges)
        found = {(place.image, place.box): frozenset(place.spared) for place in self.places}
        for region in regions:
            spared = frozenset(judge[1] for judge in judging if _meet(judge, region))
            found[region] = found.get(region, spared) & spared
        places = (Place(image=image, box=box, spared=tuple(sorted(found[image, box]))) for image, box in found)
        return Learned(places=tuple(places))

    def reaches(self, image: int, box: Box) -> bool:
        """Whether anything in a rectangle may have been learned from."""
        return any(_meet((image, box), (place.image, place.box)) and box not in place.spared for place in self.places)


def _meet(first: tuple[int, Box], second: tuple[int, Box]) -> bool:
    return first[0] == second[0] and first[1].intersect(second[1]).area > 0
