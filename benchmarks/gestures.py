"""How many gestures a tile takes that starts from proposed nuclei, against one that is painted from nothing.

A stand-in for a person works with the gestures of the dock (`app/corrections.py`) until every nucleus of the truth is
matched and nothing else is left: one gesture for each nucleus drawn, redrawn, deleted, cut or joined, and one for the
tile accepted. From nothing that is one for each nucleus, and one for the tile. The proposals are those of the dock: of
a run trained with a few cells, and of the threshold that needs none. The tiles are cells of the part `val`, on slides
that the run has not seen; with --at-home, further cells of the slides that its labels lie in.

    python benchmarks/gestures.py DATASET --run RUN --tiles 20 --out benchmarks/results/gestures.md
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skimage.measure import find_contours

from napari_semiseg.app import corrections
from napari_semiseg.app.corrections import Correction
from napari_semiseg.app.painting import proposed_numbers
from napari_semiseg.app.tile_proposals import without_specks
from napari_semiseg.data.splits import cut_cells
from napari_semiseg.engine.devices import choose_device
from napari_semiseg.engine.learning_data import read_split
from napari_semiseg.engine.predictor import load_predictor
from napari_semiseg.engine.propose import ProposeRequest, propose
from napari_semiseg.events import Written
from napari_semiseg.io.find_images import find_images
from napari_semiseg.io.images import open_image
from napari_semiseg.io.labels import read_labels
from napari_semiseg.io.locate import stem

IOUS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8)
GOAL = 0.7
LEAST_PIXELS = 20
"""What a cell's border leaves of a nucleus is no nucleus to draw if it is smaller."""
SIDE = 250


class Person:
    """Corrects a tile with as few gestures as it finds, one nucleus after the other.

    Parameters
    ----------
    proposals, truth : array, (h, w), integer
    iou : float
        From which a nucleus is good enough.
    """

    def __init__(self, proposals: NDArray[np.integer], truth: NDArray[np.integer], iou: float) -> None:
        self.truth, self.iou = truth, iou
        self.masks = {int(number): truth == number for number in np.unique(truth) if number}
        self.labels = np.zeros(truth.shape, np.uint16)
        ids, places = np.unique(proposals[proposals > 0], return_inverse=True)
        if ids.size:
            self.labels[proposals > 0] = proposed_numbers(self.labels, ids.size)[places]
        self.made: Counter[str] = Counter()

    def work(self) -> Counter[str]:
        """Correct the tile, and return the gestures by kind, the one that accepts it included."""
        numbers = list(self.masks)
        for number in sorted(numbers, key=lambda number: -np.count_nonzero(self.masks[number])):
            if not self._matched(number):
                self._mend(number)
        for number in numbers:  # a later correction may have spoiled an earlier one
            if not self._matched(number):
                self._redraw(number)
        for left in self._unmatched():
            self._do(corrections.delete(self.labels, left))
        wrong = [number for number in numbers if not self._matched(number)]
        if wrong:
            raise RuntimeError(f"the nuclei {wrong} could not be corrected")
        self.made["accept"] += 1
        return self.made

    def _mend(self, number: int) -> None:
        for path in (*self._joins(number), *self._cuts(number)):
            correction = corrections.correct(self.labels, path)
            before = self.labels.copy()
            if correction is not None and correction.gesture in ("join", "cut"):
                good = self._good()
                self.labels[correction.where] = correction.numbers
                if self._matched(number) and good <= self._good():
                    self.made[correction.gesture] += 1
                    return
                self.labels = before
        self._redraw(number)

    def _redraw(self, number: int) -> None:
        """Go around a nucleus; delete what is in the way before, where that is needed."""
        path = outline(self.masks[number])
        blocking: list[int] = []
        before = self.labels.copy()
        for _ in range(20):
            self.labels = before.copy()
            for other in blocking:
                self.labels[self.labels == other] = 0
            found = corrections.redraw(self.labels, path)
            if found is not None:
                self.labels[found.where] = found.numbers
                if self._matched(number):
                    self.made["delete"] += len(blocking)
                    self.made[found.gesture] += 1
                    return
            there = before[self.masks[number] & ~np.isin(before, blocking)]
            others, good = [int(other) for other in np.unique(there) if other], set(self._partners().values())
            rest = [other for other in others if other not in good] or others  # a good one is drawn anew afterwards
            if not rest:
                break
            blocking.append(max(rest, key=lambda other: np.count_nonzero(there == other)))
        raise RuntimeError(f"nucleus {number} cannot be drawn")

    def _joins(self, number: int) -> list[list[tuple[float, float]]]:
        """Return a path through the parts that a nucleus was proposed in."""
        inside = self.labels[self.masks[number]]
        ids, common = np.unique(inside[inside > 0], return_counts=True)
        parts = [
            int(part)
            for part, pixels in zip(ids, common, strict=True)
            if pixels > np.count_nonzero(self.labels == part) / 2
        ]
        if len(parts) < 2:
            return []
        return [[middle(self.labels == part) for part in parts]]

    def _cuts(self, number: int) -> list[list[tuple[float, float]]]:
        """Return straight cuts that part a nucleus from another one that was proposed as one with it."""
        inside = self.labels[self.masks[number]]
        if not inside.any():
            return []
        together = int(np.bincount(inside[inside > 0]).argmax())
        whole = self.labels == together
        others, common = np.unique(self.truth[whole], return_counts=True)
        paths = []
        for other, pixels in zip(others.tolist(), common.tolist(), strict=True):
            if other in (0, number) or pixels < LEAST_PIXELS:
                continue
            here, there = np.array(middle(self.masks[number])), np.array(middle(self.masks[other]))
            along = (there - here) / max(np.hypot(*(there - here)), 1e-9)
            across = np.array([-along[1], along[0]]) * max(self.truth.shape)
            border = _border(self.masks[number], self.masks[other])
            center = here + along * ((border - here) @ along) if border is not None else (here + there) / 2
            paths.append(_across(center, across, whole))
        return paths

    def _partner(self, number: int) -> int:
        """Return the nucleus of the layer that matches one of the truth; 0 where none does."""
        mask = self.masks[number]
        numbers, common = np.unique(self.labels[mask], return_counts=True)
        size = int(common.sum())
        for other, pixels in zip(numbers.tolist(), common.tolist(), strict=True):
            if other and pixels >= self.iou * size:  # else it cannot match
                union = size + np.count_nonzero(self.labels == other) - pixels
                if pixels >= self.iou * union:  # from 0.5 on, no nucleus has two partners
                    return int(other)
        return 0

    def _partners(self) -> dict[int, int]:
        return {number: partner for number in self.masks if (partner := self._partner(number))}

    def _matched(self, number: int) -> bool:
        return self._partner(number) > 0

    def _good(self) -> int:
        return len(self._partners())

    def _unmatched(self) -> list[int]:
        return sorted({int(number) for number in np.unique(self.labels) if number} - set(self._partners().values()))

    def _do(self, correction: Correction | None) -> None:
        assert correction is not None
        self.labels[correction.where] = correction.numbers
        self.made[correction.gesture] += 1


def outline(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the longest outline of a nucleus as a closed path."""
    return max(find_contours(np.pad(mask, 1).astype(float), 0.4), key=len) - 1


def middle(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the pixel of a nucleus that is nearest to its center."""
    pixels = np.argwhere(mask)
    y, x = pixels[np.argmin(((pixels - pixels.mean(axis=0)) ** 2).sum(axis=1))]
    return float(y), float(x)


def _border(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> NDArray[np.float64] | None:
    """Return the middle of where two nuclei touch, or come nearest."""
    from scipy.ndimage import distance_transform_edt

    near = distance_transform_edt(~one) + distance_transform_edt(~other)
    return np.asarray(np.argwhere(near == near.min()).mean(axis=0))


def _across(center: NDArray, direction: NDArray, whole: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """Return a straight path that begins and ends just outside of a nucleus."""
    places = center + np.linspace(-1, 1, 4 * max(whole.shape))[:, None] * direction
    rows, columns = np.rint(places).astype(int).T
    inside = (rows >= 0) & (rows < whole.shape[0]) & (columns >= 0) & (columns < whole.shape[1])
    hit = np.zeros(len(places), bool)
    hit[inside] = whole[rows[inside], columns[inside]]
    touched = np.flatnonzero(hit)
    if not touched.size:
        return [tuple(center), tuple(center + 0.1)]
    first, last = max(0, touched[0] - 6), min(len(places) - 1, touched[-1] + 6)
    return [tuple(places[first]), tuple(places[(first + last) // 2]), tuple(places[last])]


def truth_of(labels: NDArray[np.integer]) -> NDArray[np.integer]:
    """Return the nuclei of a cell that are large enough to be drawn, each in one piece."""
    from scipy.ndimage import label

    whole = np.zeros(labels.shape, np.int32)
    count = 0
    for number in np.unique(labels[labels > 0]):
        pieces, found = label(labels == number)
        for piece in range(1, found + 1):
            if np.count_nonzero(pieces == piece) >= LEAST_PIXELS:
                count += 1
                whole[pieces == piece] = count
    return whole


def proposals_of(image: Path, box, run: str, folder: Path) -> NDArray[np.integer]:
    """Return what the dock would propose for a tile."""
    request = ProposeRequest(
        image=str(image), out=str(folder), box=tuple(box), run=run, device="cpu" if run else "auto"
    )
    (path,) = [event.path for event in propose(request) if isinstance(event, Written) and event.what == "nuclei"]
    return without_specks(np.load(path, allow_pickle=False), None)


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--run", type=Path, required=True, help="a run trained with a few cells of the part train")
    parser.add_argument("--part", default="val")
    parser.add_argument("--at-home", action="store_true", help="cells of the labeled slides, in the place of the part")
    parser.add_argument("--tiles", type=int, default=20, help="how many cells, drawn with the seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="file for the figures (.md; a .json lies beside it)")
    options = parser.parse_args()
    labeled = json.loads((options.run / "run.json").read_text(encoding="utf-8"))["facts"]["labeled"]
    homes = list(dict.fromkeys(name.rsplit("#", 1)[0] for name in labeled))
    stems = homes if options.at_home else read_split(options.dataset, None, options.part)
    paths = {stem(path): path for path in find_images([options.dataset / "images"])}
    every = cut_cells([(index, name, open_image(paths[name]).shape) for index, name in enumerate(stems)], SIDE)
    every = [cell for cell in every if cell.name not in labeled]
    chosen = np.random.default_rng(options.seed).permutation(len(every))[: options.tiles]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for index in sorted(chosen.tolist()):
            cell = every[index]
            labels = next(p for p in (options.dataset / "labels").iterdir() if p.name.split(".")[0] == cell.stem)
            truth = truth_of(read_labels(labels)[cell.box.slices])
            nuclei = int(truth.max())
            if not nuclei:
                continue
            begun = time.monotonic()
            for source, run in (("run", str(options.run)), ("threshold", "")):
                proposals = proposals_of(paths[cell.stem], cell.box, run, Path(folder))
                for iou in IOUS:
                    made = Person(proposals, truth, iou).work()
                    rows.append({"cell": cell.name, "source": source, "iou": iou, "nuclei": nuclei, **made})
            print(f"{cell.name}: {nuclei} nuclei, {time.monotonic() - begun:.0f} s", file=sys.stderr)
    text = table(rows, options)
    print(text)
    if options.out:
        options.out.write_text(text)
        options.out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")


def table(rows: list[dict], options: argparse.Namespace) -> str:
    """Say what came of it."""
    kinds = ("draw", "redraw", "cut", "join", "delete", "accept")
    tiles = len({row["cell"] for row in rows})
    card = json.loads((options.run / "run.json").read_text())
    facts = card.get("facts", {})
    step = load_predictor(options.run, choose_device("cpu")).step
    where = "--at-home" if options.at_home else f"--part {options.part}"
    command = (
        f"`python benchmarks/gestures.py {options.dataset} --run RUN --tiles {options.tiles} {where} "
        f"--seed {options.seed}`"
    )
    place = "the slides that it has labels of" if options.at_home else f"the part `{options.part}`"
    what = (
        f"{tiles} cells of {SIDE} x {SIDE} of {place}. RUN: {facts.get('method', '?')}, "
        f"{len(facts.get('labeled', ()))} cells learned from, seed {card.get('request', {}).get('seed', '?')}, "
        f"weights of step {step}. A tile is done when each of its nuclei is matched at that "
        "IoU and nothing else is left. Share: gestures from proposals over gestures from nothing, all tiles together; "
        "in brackets 95 % of 2,000 draws of tiles."
    )
    lines = [
        "# Gestures: tiles from proposals against tiles from nothing",
        "",
        command,
        "",
        what,
        "",
        f"| proposals | IoU | {' | '.join(kinds)} | sum | from nothing | share |",
        f"|---|---:|{'---:|' * (len(kinds) + 3)}",
    ]
    for source in ("run", "threshold"):
        for iou in IOUS:
            these = [row for row in rows if row["source"] == source and row["iou"] == iou]
            counts = [sum(row.get(kind, 0) for row in these) for kind in kinds]
            made = np.array([sum(row.get(kind, 0) for kind in kinds) for row in these])
            nothing = np.array([row["nuclei"] + 1 for row in these])
            draws = np.random.default_rng(0).integers(0, len(these), (2000, len(these)))
            low, high = np.quantile(made[draws].sum(1) / nothing[draws].sum(1), (0.025, 0.975))
            share = f"{made.sum() / nothing.sum():.2f} ({low:.2f} to {high:.2f})"
            mark = "**" if iou == GOAL else ""
            figures = " | ".join(map(str, counts))
            lines.append(f"| {source} | {iou} | {figures} | {made.sum()} | {nothing.sum()} | {mark}{share}{mark} |")
    goal = [sum(row.get(kind, 0) for kind in kinds) for row in rows if (row["source"], row["iou"]) == ("run", GOAL)]
    nothing = [row["nuclei"] + 1 for row in rows if (row["source"], row["iou"]) == ("run", GOAL)]
    lines += [
        "",
        f"At IoU {GOAL}, from the run: {sum(goal) / sum(nothing):.2f} of the gestures. Goal: at most 0.6.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
