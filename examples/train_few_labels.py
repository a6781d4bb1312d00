"""Train on five small annotated tiles of a real tissue image, and say how good it is beside the threshold.

A tile that is marked complete is fully annotated: what is not painted there is background. One of the tiles is kept
aside to judge by. A real training takes minutes (`minutes=3`); the few steps here only show that it works.
"""

import sys
import tempfile
from pathlib import Path

from napari_semiseg import TrainRequest, train
from napari_semiseg.events import Finished, StepDone, Validated
from napari_semiseg.project.folder import ProjectFolder
from napari_semiseg.samples import immunohistochemistry, immunohistochemistry_tiles

out = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())

with ProjectFolder.create(out / "colon.semiseg") as project:
    image = project.add_array(immunohistochemistry(), "colon")
    for tile in immunohistochemistry_tiles("label"):
        placed = project.add_tile(image, tile.box)
        project.write_annotation(placed.id, instance=tile.instances)
        project.set_status(placed.id, "complete")
    run = project.new_run_dir()

small = {"crop": 64, "batch_labeled": 2, "batch_unlabeled": 2}  # leave this out for a real training
for event in train(TrainRequest(project=str(project.path), out=str(run), steps=6, set=small)):
    if isinstance(event, StepDone):
        print(f"step {event.step}: " + ", ".join(f"{name} {value:.3f}" for name, value in event.losses.items()))
    elif isinstance(event, Validated):
        print(f"Dice {event.scores['dice']:.3f}, the threshold alone {event.scores['threshold_dice']:.3f}")
    elif isinstance(event, Finished):
        print("The run is in", event.result)
