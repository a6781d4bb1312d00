"""What a label is worth where it is asked for: simulated annotation, *Suggest* against random places.

An oracle paints the truth into tiles of 250 x 250 and marks them complete; a run is trained from them as the dock would
train it, and scored; then come further tiles. `suggest` takes the places that the verb suggests, by the doubt of the
last run once there is one; `random` takes cells drawn with the seed. Broken off, it goes on: what is in the results is
not done again.

    python benchmarks/annotation.py DATASET --out OUT --cells 2,5,10,15 --seeds 5 --minutes 3
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import matplotlib as mpl
import numpy as np

from napari_semiseg import atomic
from napari_semiseg.blocks import Box
from napari_semiseg.data.splits import cut_cells
from napari_semiseg.engine.benchmark_score import score_run
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

mpl.use("Agg")

SIDE = 250
STRATEGIES = ("suggest", "random")


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
        for seed in range(self.options.seeds):
            for strategy in self.options.strategies.split(","):
                self._row_by_row(strategy, seed)

    def _row_by_row(self, strategy: str, seed: int) -> None:
        with self._project(strategy, seed) as project:
            for cells in map(int, self.options.cells.split(",")):
                if any((row["strategy"], row["seed"], row["cells"]) == (strategy, seed, cells) for row in self.rows):
                    continue
                self._paint(project, strategy, seed, cells)
                run = project.path / "runs" / f"{cells:03d}-cells"
                begun = time.monotonic()
                if not any((run / "checkpoints").glob("best-*.safetensors")):
                    self._train(project, run, seed)
                row = {"strategy": strategy, "seed": seed, "cells": cells, "minutes": (time.monotonic() - begun) / 60}
                self._keep(row | {"dice": self._score(run)})

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
        length = {"steps": options.steps} if options.steps else {"minutes": options.minutes}
        request = TrainRequest(
            project=str(project.path), out=str(run), method=options.method, seed=seed, device=options.device, **length
        )
        print(f"{run}: {list(train(request))[-1]}", flush=True)

    def _score(self, run: Path) -> float:
        scoring = score_run(
            run,
            self.options.dataset,
            self.judges,
            device=choose_device(self.options.device),
            subimage=SIDE,
            classes=False,
            should_stop=lambda: False,
        )
        try:
            while True:
                next(scoring)
        except StopIteration as end:
            return float(end.value.values["dice"])

    def _keep(self, row: dict) -> None:
        self.rows.append(row)
        options = {name: str(value) for name, value in vars(self.options).items() if name not in ("dataset", "out")}
        atomic.write_json(self.path, {"options": options, "rows": self.rows})
        print(row, flush=True)


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
    for strategy in STRATEGIES:
        parts = []
        for count in counts:
            found = [row["dice"] for row in study.rows if (row["strategy"], row["cells"]) == (strategy, count)]
            if found:
                means[strategy, count] = float(np.mean(found))
                spread = f" ± {np.std(found, ddof=1):.3f}" if len(found) > 1 else ""
                parts.append(f"{np.mean(found):.3f}{spread} ({len(found)})")
            else:
                parts.append("")
        lines.append(f"| {strategy} | {' | '.join(parts)} |")
    if {("suggest", 10), ("random", 15)} <= means.keys():
        holds = means["suggest", 10] >= means["random", 15]
        lines += ["", f"*Suggest* with 10 cells is {'' if holds else 'not '}at least random with 15."]
    return "\n".join([*lines, ""])


def draw(study: Study, path: Path) -> None:
    """Draw the curves with their spread."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3.5))
    for strategy, color in zip(STRATEGIES, ("#0072b2", "#999999"), strict=True):
        counts = sorted({row["cells"] for row in study.rows if row["strategy"] == strategy})
        found = [[r["dice"] for r in study.rows if (r["strategy"], r["cells"]) == (strategy, n)] for n in counts]
        middle, spread = np.array([np.mean(each) for each in found]), np.array([np.std(each) for each in found])
        axes.plot(counts, middle, "o-", color=color, label=strategy)
        axes.fill_between(counts, middle - spread, middle + spread, color=color, alpha=0.2)
    axes.set_xlabel(f"labeled cells of {SIDE} x {SIDE}")
    axes.set_ylabel("Dice per image")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


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
    text = report(study)
    print(text)
    (options.out / "table.md").write_text(text)
    draw(study, options.out / "curve.png")


if __name__ == "__main__":
    main()
