"""What a label is worth where it is asked for: simulated annotation, *Suggest* against random places.

An oracle paints the truth into tiles of 250 x 250 and marks them complete; a run is trained from them as the dock would
train it, and scored; then come further tiles. `suggest` takes the places that the verb suggests, by the doubt of the
last run once there is one; `random` takes cells drawn with the seed. Broken off, it goes on: what is in the results is
not done again. After each row results, table and curve are written anew, and it says how long is left.

    python benchmarks/annotation.py DATASET --out OUT --cells 2,5,10,15 --seeds 5 --minutes 3
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scoring import SIDE, scores_of

from napari_semiseg import atomic
from napari_semiseg.blocks import Box
from napari_semiseg.cli.words import clock
from napari_semiseg.data.splits import cut_cells
from napari_semiseg.engine.devices import choose_device
from napari_semiseg.engine.learning_data import read_split
from napari_semiseg.engine.requests import TrainRequest
from napari_semiseg.engine.suggest import SuggestRequest, suggest
from napari_semiseg.engine.train import train
from napari_semiseg.events import Suggested
from napari_semiseg.io.find_images import find_images
from napari_semiseg.io.images import open_image
from napari_semiseg.io.labels import read_labels
from napari_semiseg.io.locate import stem
from napari_semiseg.project.folder import ProjectFolder
from napari_semiseg.project.tile_annotation import BACKGROUND

STRATEGIES = ("suggest", "random")
COLORS = ("#0072b2", "#999999")


class Study:
    """The rows of a study, on the disk after each.

    Parameters
    ----------
    options : argparse.Namespace
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.out: Path = options.out
        self.path = self.out / "results.json"
        self.rows = json.loads(self.path.read_text())["rows"] if self.path.exists() else []
        self.stems = read_split(options.dataset, None, "train")
        self.judges = read_split(options.dataset, None, options.test)[: options.images]
        images = {stem(path): path for path in find_images([options.dataset / "images"])}
        self.images = [images[name] for name in self.stems]
        labels = {path.name.split(".")[0]: path for path in (options.dataset / "labels").iterdir()}
        self.labels = [labels[name] for name in self.stems]

    def run(self) -> None:
        """Do what is missing, the seeds outermost, so that a part of it can be compared already."""
        print(self.progress(), flush=True)
        for seed in range(self.options.seeds):
            for strategy in self.options.strategies.split(","):
                self._row_by_row(strategy, seed)

    def missing(self) -> list[tuple[int, str, int]]:
        """Return seed, strategy and cells of the rows that are still to be done, in their order."""
        done = {(row["seed"], row["strategy"], row["cells"]) for row in self.rows}
        return [row for row in self._planned() if row not in done]

    def progress(self) -> str:
        """Say how many rows are done and how long is left, as far as that is known."""
        total, missing = len(self._planned()), self.missing()
        left = seconds_left(self.rows, [cells for _, _, cells in missing])
        words = f", about {clock(left)} left" if missing and left is not None else ""
        return f"{total - len(missing)} of {total} rows{words}"

    def _planned(self) -> list[tuple[int, str, int]]:
        strategies, counts = self.options.strategies.split(","), map(int, self.options.cells.split(","))
        return list(itertools.product(range(self.options.seeds), strategies, counts))

    def _row_by_row(self, strategy: str, seed: int) -> None:
        counts = [cells for *kind, cells in self.missing() if kind == [seed, strategy]]
        if not counts:
            return
        with self._project(strategy, seed) as project:
            for cells in counts:
                begun = time.monotonic()
                self._paint(project, strategy, seed, cells)
                run = project.path / "runs" / f"{cells:03d}-cells"
                painted = time.monotonic()
                self._train(project, run, seed)
                row = {"strategy": strategy, "seed": seed, "cells": cells, "minutes": (time.monotonic() - painted) / 60}
                row["dice"] = self._score(run)
                self._keep(row | {"minutes_in_all": (time.monotonic() - begun) / 60})

    def _project(self, strategy: str, seed: int) -> ProjectFolder:
        path = self.out / f"{strategy}-{seed}.semiseg"
        if path.exists():
            return ProjectFolder.open(path)
        project = ProjectFolder.create(path)
        for image in self.images:
            project.add_image(open_image(image))
        return project

    def _paint(self, project: ProjectFolder, strategy: str, seed: int, cells: int) -> None:
        """Add tiles until there are so many, and paint them from the truth."""
        while (missing := cells - len(project.tiles)) > 0:
            places = self._suggested(project, missing) if strategy == "suggest" else self._drawn(project, seed, missing)
            for image, box in places:
                tile = project.add_tile(image, box)
                truth = read_labels(self.labels[image])[tile.box.slices]
                project.write_annotation(tile.id, truth, np.where(truth > 0, BACKGROUND + 1, 0).astype(np.uint8))
                project.set_status(tile.id, "complete", by="oracle")

    def _suggested(self, project: ProjectFolder, count: int) -> list[tuple[int, Box]]:
        request = SuggestRequest(source=str(project.path), n=count, side=SIDE, device=self.options.device)
        (found,) = [event.tiles for event in suggest(request) if isinstance(event, Suggested)]
        return [(tile["image"], Box(*tile["box"])) for tile in found]

    def _drawn(self, project: ProjectFolder, seed: int, count: int) -> list[tuple[int, Box]]:
        shapes = [(index, self.stems[index], image.shape) for index, image in enumerate(project.images)]
        every = cut_cells(shapes, SIDE)
        order = np.random.default_rng(seed).permutation(len(every))
        return [(every[place].image, every[place].box) for place in order[len(project.tiles) :][:count]]

    def _train(self, project: ProjectFolder, run: Path, seed: int) -> None:
        options = self.options
        begun = (run / "run.json").exists()  # a network of it may be there that was kept on the way
        length = {"steps": options.steps} if options.steps else {"minutes": options.minutes}
        places = {"project": str(project.path), "out": str(run), "device": options.device, "resume": begun}
        request = TrainRequest(method=options.method, seed=seed, **places, **length)
        print(f"{run}: {list(train(request))[-1]}", flush=True)

    def _score(self, run: Path) -> float:
        device = choose_device(self.options.device)
        return float(scores_of(run, self.options.dataset, self.judges, device).values["dice"])

    def _keep(self, row: dict) -> None:
        self.rows.append(row)
        options = {name: str(value) for name, value in vars(self.options).items() if name not in ("dataset", "out")}
        atomic.write_json(self.path, {"options": options, "rows": self.rows, "curves": curves(self.rows)})
        self.report()
        print(row, flush=True)
        print(self.progress(), flush=True)

    def report(self) -> str:
        """Write table and curve from the rows that are there, and return the table."""
        text = report(self)
        atomic.write_text(self.out / "table.md", text)
        draw(self.rows, self.out / "curve.png")
        return text


def seconds_left(rows: Sequence[Mapping[str, Any]], missing: Sequence[int]) -> float | None:
    """Return how long rows of so many cells will take; None as long as none was done.

    A row takes as long as those of as many cells did in the mean, or as all did where there is none: more cells are
    judged by more tiles, and suggestions look at more.
    """
    taken: dict[int, list[float]] = {}
    for row in rows:
        taken.setdefault(row["cells"], []).append(60 * row.get("minutes_in_all", row["minutes"]))
    if not taken:
        return None
    every = float(np.mean([seconds for group in taken.values() for seconds in group]))
    return sum(float(np.mean(taken[cells])) if cells in taken else every for cells in missing)


def curves(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return, for each strategy and number of cells, the mean Dice over seeds, its sd (None of one), and how many."""
    found: dict[str, list[dict[str, Any]]] = {}
    for strategy in STRATEGIES:
        own = [row for row in rows if row["strategy"] == strategy]
        for cells in sorted({row["cells"] for row in own}):
            dice = [row["dice"] for row in own if row["cells"] == cells]
            sd = float(np.std(dice, ddof=1)) if len(dice) > 1 else None
            point = {"cells": cells, "dice": float(np.mean(dice)), "sd": sd, "seeds": len(dice)}
            found.setdefault(strategy, []).append(point)
    return found


def report(study: Study) -> str:
    """Say what came of it, as a table."""
    options = study.options
    counts = sorted({row["cells"] for row in study.rows})
    length = f"--steps {options.steps}" if options.steps else f"--minutes {options.minutes:g}"
    command = (
        f"`python benchmarks/annotation.py {options.dataset} --out OUT --cells {options.cells} --seeds {options.seeds} "
        f"{length} --method {options.method} --test {options.test}`"
    )
    lines = [
        f"# Simulated annotation on {options.dataset.name}: *Suggest* against random places",
        "",
        command,
        "",
        f"Dice per image on {len(study.judges)} images of the part `{options.test}`; mean ± sd over seeds (how many).",
        "",
        f"| places | {' | '.join(f'{count} cells' for count in counts)} |",
        f"|---|{'---|' * len(counts)}",
    ]
    means: dict[tuple[str, int], float] = {}
    for strategy, points in curves(study.rows).items():
        parts = dict.fromkeys(counts, "")
        for point in points:
            means[strategy, point["cells"]] = point["dice"]
            spread = "" if point["sd"] is None else f" ± {point['sd']:.3f}"
            parts[point["cells"]] = f"{point['dice']:.3f}{spread} ({point['seeds']})"
        lines.append(f"| {strategy} | {' | '.join(parts.values())} |")
    if {("suggest", 10), ("random", 15)} <= means.keys():
        holds = means["suggest", 10] >= means["random", 15]
        lines += ["", f"*Suggest* with 10 cells is {'' if holds else 'not '}at least random with 15."]
    return "\n".join([*lines, ""])


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw a curve for each strategy, the mean over seeds, in a band of a standard deviation up and down."""
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    found = curves(rows)
    for strategy, points in found.items():
        color = COLORS[STRATEGIES.index(strategy)]
        counts, middle = ([point[name] for point in points] for name in ("cells", "dice"))
        spread = np.array([point["sd"] or 0.0 for point in points])
        axes.plot(counts, middle, "o-", color=color, label=strategy)
        axes.fill_between(counts, middle - spread, middle + spread, color=color, alpha=0.2)
    axes.set_xticks(sorted({point["cells"] for points in found.values() for point in points}))
    axes.set_xlabel(f"labeled cells of {SIDE} x {SIDE}")
    axes.set_ylabel("Dice per image")
    axes.legend()
    with atomic.staged(path) as file:
        figure.savefig(file, dpi=120, format="png")


def main() -> None:
    """Do what is missing, and write table and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for projects, results.json, table.md, curve.png"
    )
    parser.add_argument("--cells", default="2,5,10,15")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--strategies", default=",".join(STRATEGIES))
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--steps", type=int, help="steps in the place of minutes: the same on any machine")
    parser.add_argument("--method", default="auto")
    parser.add_argument("--test", default="val", help="the part that is scored; `test` only once")
    parser.add_argument("--images", type=int, help="score the first so many images of it only, to try")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    study = Study(options)
    study.run()
    print(study.report())


if __name__ == "__main__":
    main()
