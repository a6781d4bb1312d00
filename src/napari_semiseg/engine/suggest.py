"""Tiles worth painting next: typical of what there is to segment, and of what no tile shows yet.

Each suggestion is the place by which the tissue comes nearest to its tiles on the whole (greedy facility location).
With few labels, typical places teach more than odd ones: G. Hacohen, A. Dekel, D. Weinshall, "Active Learning on a
Budget: Opposite Strategies Suit High and Low Budgets", ICML 2022, who take the densest place of each cluster. Their
features come from a network; ours are the place, the mean color and the texture (how much brightness varies in it), so
that there is something to suggest before anything was trained. Tissue counts twice as much where it is stained most.
Where there are networks, they look at the first places, which are ranked by how much is new in them times their doubt:
only those few are read at full size, so that a slide may have any size. `engine.doubt` says what their doubt is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.ndimage import uniform_filter
from scipy.spatial.distance import cdist

from napari_semiseg.blocks import Box
from napari_semiseg.config import Config
from napari_semiseg.engine.control import Control
from napari_semiseg.errors import InputError
from napari_semiseg.events import Cancel, Event, Finished, Progressed, Started, Stop, Suggested, Warned
from napari_semiseg.io.images import Image, open_image
from napari_semiseg.postprocess.threshold import density, find_stain
from napari_semiseg.postprocess.tissue import find_tissue
from napari_semiseg.project.folder import ProjectFolder
from napari_semiseg.project.opening import PROJECT_FILE

if TYPE_CHECKING:
    from napari_semiseg.engine.doubt import DoubtOf

OVERVIEW_SIDE = 1024
"""Longer side of the small image that places are chosen on, in pixels."""

LEAST_TISSUE = 0.25
"""Part of a tile that shows tissue, at least; where no place has that much, the fullest ones are taken."""

LOOKS = 1.0
"""Weight of a difference in color or brightness (0 to 1) against a distance (1 is the longer side of the image)."""

SHORTLIST = 24
"""Places that a network looks at, at least."""

FARTHEST = 2.0
"""Distance of features that counts as the largest: that between two images."""

CALM = 0.1
"""Added to the share of nuclei that doubt is divided by: of places almost without nuclei, little is to be learned."""

MOST_PLACES = 10_000
"""Places of all images together that are compared: on slides only those on tissue, farther apart the larger it is."""

_FEW = 25  # places that each image has, however many images there are

_HARDLY = 1e-6  # of a tile: where no place shows more tissue, all count the same

_REFERENCES = 500
"""Places of tissue, of all images together, that suggestions are to be typical of."""

DISAGREES = 0.1
"""Part of the doubt that is disagreement from which that is said."""


class SuggestRequest(Config):
    """Options of `suggest`."""

    source: str = Field(description="A project folder, or the folder of one of its runs.")
    n: int = Field(8, ge=1, le=1000, description="How many tiles to suggest.")
    side: int = Field(250, ge=8, le=4096, description="Side of a tile, in pixels.")
    image: int | None = Field(None, ge=0, description="Index of the image to stay on; all images by default.")
    doubt: bool = Field(True, description="Whether the newest runs, where there are some, say where they are in doubt.")
    device: str = Field("auto", description="Where that run computes: auto, cpu, cuda, cuda:N or mps.")


@dataclass(frozen=True)
class Candidates:
    """Places where a tile could lie in one image.

    Attributes
    ----------
    image : int
    boxes : array, (n, 4), int
        y0, x0, y1, x1 in pixels of level 0.
    features : array, (n, d), float
        Place and looks; distances between rows count.
    tissue : array, (n,), float
        Part of the tile that shows tissue.
    stain : array, (n,), float
        Mean of what nuclei stand out by, ranked within the image: 0 the least, 1 the most.
    """

    image: int
    boxes: NDArray[np.int64]
    features: NDArray[np.float64]
    tissue: NDArray[np.float64]
    stain: NDArray[np.float64]


def suggest_from_args(args: dict[str, Any], control: Control) -> Iterator[Event]:
    """Check the options of `suggest`, and run it."""
    yield from suggest(SuggestRequest.checked(args, "the request"), control)


def suggest(request: SuggestRequest, control: Control | None = None) -> Iterator[Event]:
    """Suggest tiles to paint next.

    Yields
    ------
    Event
        `Started`, `Progressed` for each image, `Warned` of those that cannot be opened where there are others,
        `Suggested` with at most `n` tiles (fewer where there is no more room), `Finished`.

    Raises
    ------
    InputError
        If there is no such project, it holds no image, or none of its images can be opened.
    """
    control = control or Control()
    project = ProjectFolder.open(_project_of(Path(request.source)), read_only=True)
    indices = range(len(project.images)) if request.image is None else [request.image]
    if not indices:
        raise InputError(f"The project {project.name} holds no image yet: add one first.")
    yield Started("suggest", total=len(indices))
    found: list[Candidates] = []
    problem: InputError | None = None
    for done, index in enumerate(indices, start=1):
        if any(isinstance(command, Stop | Cancel) for command in control.take()):
            yield Finished("suggest", stopped=True)
            return
        try:
            found.append(_candidates_of(project, index, request.side, len(indices)))
        except InputError as error:
            problem = error
            if len(indices) > 1:
                yield Warned(f"“{project.images[index].name}” is left out: {error}")
        yield Progressed("looking at images", done, len(indices))
    if problem is not None and not found:
        raise problem
    doubt = _doubt(project, request) if request.doubt else None
    yield Suggested(ranked(project, found, request.n, doubt))
    yield Finished("suggest")


def _candidates_of(project: ProjectFolder, index: int, side: int, images: int) -> Candidates:
    """List the places of one of so many images; those of a file that has not changed since are remembered."""
    path = project.source_path(index)
    source = project.images[index]
    facts = source.series, source.mpp, index, side, most_places(images)
    if Path(path).is_file():
        return _remembered(path, Path(path).stat().st_mtime_ns, *facts)
    return _found_in(path, *facts)


def _found_in(path: str, series: int, mpp: float | None, index: int, side: int, most: int) -> Candidates:
    return candidates(open_image(path, series=series, mpp=mpp), index, side, most)


@lru_cache(maxsize=256)
def _remembered(path: str, changed_ns: int, *facts: Any) -> Candidates:
    return _found_in(path, *facts)


def most_places(images: int) -> int:
    """Return how many places each of so many images has, at most."""
    return max(_FEW, MOST_PLACES // images)


def opened(project: ProjectFolder, index: int) -> Image:
    """Open an image of a project.

    Raises
    ------
    InputError
        If there is none of that index, or it cannot be opened.
    """
    path = project.source_path(index)
    source = project.images[index]
    return open_image(path, series=source.series, mpp=source.mpp)


def _doubt(project: ProjectFolder, request: SuggestRequest) -> DoubtOf | None:
    """Return the doubt of the runs that there are; torch is loaded only where there are some."""
    runs = models_of(project, Path(request.source))
    if not runs:
        return None
    from napari_semiseg.engine.doubt import doubt_of_runs

    return doubt_of_runs(project, runs, request.device)


def ranked(project: ProjectFolder, found: Sequence[Candidates], n: int, doubt: DoubtOf | None) -> list[dict[str, Any]]:
    """Choose tiles by how much they show that no tile shows and, with a network, by how much it doubts there.

    A network doubts the rims of nuclei everywhere, and most where there are many. So the doubt is taken by nuclei, lest
    all tiles lie where they crowd.

    Parameters
    ----------
    project : ProjectFolder
    found : sequence of Candidates
    n : int
    doubt : callable or None

    Returns
    -------
    list of dict
        As `choose`; with a network also `doubt` and `disagreement`, in bits, and how many `opinions` were asked.
    """
    mpp = {one.image: project.images[one.image].mpp for one in found}
    tiles = [(tile.image, tile.box) for tile in project.tiles]
    if doubt is None:
        return choose(found, tiles, n, mpp)
    places = choose(found, tiles, max(SHORTLIST, n), mpp)
    for place in places:
        place |= doubt(place["image"], Box(*place["box"]))._asdict()
        place["doubt"] = place.pop("entropy")
    places.sort(key=lambda place: -place["new"] * place["doubt"] / (place.pop("nuclei") + CALM))
    largest = max((place["doubt"] for place in places), default=0.0)
    for place in places:
        place["reason"] = f"{_doubt_words(place, largest)}; {place['reason']}"
    return places[:n]


def models_of(project: ProjectFolder, source: Path) -> list[Path]:
    """Return the runs that can predict, the one that was named first, the newest of the project before older ones."""
    runs = sorted(project.runs_dir.glob("*/"), reverse=True)
    if (source / "run.json").is_file():
        runs = [source, *(run for run in runs if run.resolve() < source.resolve())]
    return [run for run in runs if any((run / "checkpoints").glob("best-*.safetensors"))]


def candidates(image: Image, index: int, side: int, most: int = MOST_PLACES) -> Candidates:
    """List places for tiles of `side` pixels, half a side apart, with how they look at low resolution.

    Where these are more than `most`, places without tissue are left out, and the others lie so far apart as it takes.
    """
    small = image.overview(OVERVIEW_SIDE)
    step = np.array(image.shape) / small.shape[:2]
    stain = density(small, find_stain(small, image.gray))
    window = np.maximum(1, np.rint(side / step)).astype(int)
    tissue = uniform_filter(find_tissue(small, image.shape).mask.astype(np.float64), window)
    color = np.stack([uniform_filter(small[..., band] / 255, window) for band in range(3)], axis=-1)
    texture = _deviation(small.mean(axis=-1) / 255, window)
    mean_stain = uniform_filter(stain, window)

    corners = _spread_out(image.shape, side, tissue, most)
    ends = np.minimum(corners + side, image.shape)
    middle = (corners + ends) / 2
    rows, columns = _pixels(middle, step, tissue.shape)
    place = middle / max(image.shape)
    apart = np.full((len(corners), 1), 2.0 * index)  # images are farther from each other than places within one
    features = np.hstack([place, LOOKS * color[rows, columns], LOOKS * texture[rows, columns, None], apart])
    return Candidates(
        index, np.hstack([corners, ends]), features, tissue[rows, columns], _ranked(mean_stain[rows, columns])
    )


def _deviation(values: NDArray[np.float64], window: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the standard deviation of values, (h, w), within a window around each."""
    mean, squares = uniform_filter(values, window), uniform_filter(values**2, window)
    return np.asarray(np.sqrt(np.maximum(squares - mean**2, 0)))


def choose(
    found: Sequence[Candidates], tiles: Sequence[tuple[int, Box]], n: int, mpp: dict[int, float | None]
) -> list[dict[str, Any]]:
    """Choose the places by which the tissue comes nearest to all tiles, one after the other.

    Parameters
    ----------
    found : sequence of Candidates
    tiles : sequence of (int, Box)
        Image and rectangle of the tiles that are there; no suggestion overlaps one, or another suggestion.
    n : int
    mpp : dict of int to float or None
        Pixel size of the images, in µm, for the words.

    Returns
    -------
    list of dict
        Best first, each with `image`, `box` (y0, x0, y1, x1), `reason`, and how much is `new` in it beside the tiles
        that are there: by how much the tissue would come nearer to them on average, as a distance of features, 0 to
        `FARTHEST`.
    """
    images = np.concatenate([np.full(len(one.boxes), one.image) for one in found])
    boxes, features, tissue, stain = (
        np.concatenate([getattr(one, name) for one in found]) for name in ("boxes", "features", "tissue", "stain")
    )
    free = tissue >= min(LEAST_TISSUE, float(tissue.max(initial=0)) * 0.9)
    seen = np.flatnonzero(free)
    seen = seen[_spread(len(seen), _REFERENCES)]
    apart = cdist(features, features[seen]).astype(np.float32)
    counts = ((tissue[seen] + _HARDLY) * (1 + stain[seen])).astype(np.float32)
    taken = [(image, np.array(box)) for image, box in tiles if image in set(images.tolist())]
    gap = np.full(len(seen), FARTHEST, np.float32)
    for image, box in taken:
        free &= ~_overlaps(images, boxes, image, box)
        gap = np.minimum(gap, apart[_nearest(images, boxes, image, box)])

    def nearer() -> NDArray[np.float32]:
        return np.asarray(np.maximum(gap - apart, 0) @ counts / counts.sum())

    new, chosen = nearer(), list[dict[str, Any]]()
    while free.any() and len(chosen) < n:
        best = int(np.argmax(np.where(free, nearer(), -np.inf)))
        image, box = int(images[best]), boxes[best]
        reason = _reason(box, image, taken, float(tissue[best]), float(stain[best]), mpp.get(image))
        chosen.append({"image": image, "box": [int(side) for side in box], "reason": reason, "new": float(new[best])})
        taken.append((image, box))
        free &= ~_overlaps(images, boxes, image, box)
        gap = np.minimum(gap, apart[best])
    return chosen


def _doubt_words(place: dict[str, Any], largest: float) -> str:
    doubt = place["doubt"]
    how = "very unsure" if doubt >= 0.75 * largest else "unsure" if doubt >= 0.4 * largest else "fairly sure"
    differ = place["disagreement"] >= DISAGREES * doubt > 0
    apart = f", and its {place['opinions']} opinions differ" if differ else ""
    return f"the network is {how} here ({round(100 * doubt)} % doubt){apart}"


def _reason(
    box: NDArray[Any],
    image: int,
    taken: Sequence[tuple[int, NDArray[Any]]],
    tissue: float,
    stain: float,
    mpp: float | None,
) -> str:
    others = [other for where, other in taken if where == image]
    if not taken:
        first = "a typical place, to begin with"
    elif not others:
        first = "this image has no tile yet"
    else:
        middle = np.array([box[0] + box[2], box[1] + box[3]]) / 2
        gaps = [np.hypot(*(middle - (other[:2] + other[2:]) / 2)) for other in others]
        first = f"{_length(float(min(gaps)), mpp)} from the nearest tile"
    amount = "many nuclei" if stain >= 2 / 3 else "some nuclei" if stain >= 1 / 3 else "few nuclei"
    return f"{first}; {round(100 * min(1.0, tissue))} % tissue, {amount} by their stain."


def _length(pixels: float, mpp: float | None) -> str:
    if mpp is None:
        return f"{pixels:.0f} pixels"
    size = pixels * mpp
    return f"{size / 1000:.1f} mm" if size >= 1000 else f"{size:.0f} µm"


def _spread_out(shape: tuple[int, int], side: int, tissue: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """Return where tiles may begin, (n, 2), as near to each other as so few allow, but not nearer than half a side.

    Where all of the image is too much, only places with tissue are taken. The least distance is also that of two pixels
    of the small image: what lies nearer looks the same.
    """
    step = np.array(shape) / tissue.shape
    there = tissue > _HARDLY if (tissue > _HARDLY).any() else np.ones_like(tissue, bool)
    apart = max(side / 2, float(step.max()))
    if math.prod(len(_starts(length, side, apart)) for length in shape) <= most:
        return _grid(shape, side, apart)
    apart = max(apart, (float(there.mean()) * shape[0] * shape[1] / most) ** 0.5)
    while True:
        corners = _grid(shape, side, apart)
        corners = corners[np.asarray(there[_pixels(corners + side / 2, step, there.shape)])]
        if len(corners) <= max(most, 4):  # fewer than its corners no grid has
            return corners
        apart *= 1.1


def _grid(shape: tuple[int, int], side: int, apart: float) -> NDArray[np.int64]:
    """Return where tiles may begin, (n, 2), at most so far apart."""
    starts = [_starts(length, side, apart) for length in shape]
    return np.stack(np.meshgrid(*starts, indexing="ij"), axis=-1).reshape(-1, 2)


def _pixels(
    points: NDArray[Any], step: NDArray[np.float64], shape: tuple[int, ...]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows and columns of the small image in which points, (n, 2), of the image lie."""
    rows, columns = np.minimum((points / step).astype(np.intp), np.array(shape) - 1).T
    return rows, columns


def _starts(length: int, side: int, apart: float) -> NDArray[np.int64]:
    """Return where tiles may begin along an axis, at most so far apart: the first and the last flush with its ends."""
    last = max(0, length - side)
    return np.unique(np.rint(np.linspace(0, last, math.ceil(last / apart) + 1)).astype(np.int64))


def _spread(length: int, most: int) -> NDArray[np.int64]:
    """Return at most so many indices of a sequence, evenly spread."""
    return np.linspace(0, length - 1, min(length, most)).astype(np.int64)


def _ranked(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rank of each value: 0 the least, 1 the most."""
    ranks = np.empty(values.size)
    ranks[np.argsort(values, kind="stable")] = np.linspace(0, 1, values.size)
    return ranks


def _overlaps(images: NDArray[Any], boxes: NDArray[Any], image: int, box: NDArray[Any]) -> NDArray[np.bool_]:
    meets = (boxes[:, :2] < box[2:]).all(axis=1) & (boxes[:, 2:] > box[:2]).all(axis=1)
    overlapping: NDArray[np.bool_] = meets & (images == image)
    return overlapping


def _nearest(images: NDArray[Any], boxes: NDArray[Any], image: int, box: NDArray[Any]) -> int:
    """Return which candidate lies nearest to a tile."""
    gap = np.abs((boxes[:, :2] + boxes[:, 2:]) - (box[:2] + box[2:])).sum(axis=1).astype(np.float64)
    gap[images != image] = np.inf
    return int(np.argmin(gap))


def _project_of(path: Path) -> Path:
    """Return the project that a folder is, or that a run belongs to."""
    for folder in (path, path.parent.parent):
        if (folder / PROJECT_FILE).is_file():
            return folder
    return path  # opening it says what is wrong
