"""Pause a training, go on, stop it and keep the best, and take it up again where it stood.

What the dock's buttons do, as commands to a `Control`. The resumed run equals one that never stopped.
"""

import sys
import tempfile
from pathlib import Path

from napari_semiseg import Control, TrainRequest, train
from napari_semiseg.events import Finished, Pause, Paused, Resume, StepDone, Stop
from napari_semiseg.synthetic import SyntheticSlide

out = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
slide = SyntheticSlide((192, 192), seed=5)
slide.write(out / "field.ome.tif")
(out / "labels").mkdir()
slide.write_labels(out / "labels" / "field.tif")

request = TrainRequest(
    images=[str(out / "field.ome.tif")],
    labels=str(out / "labels"),
    out=str(out / "run"),
    method="supervised",
    steps=8,
    set={"crop": 64, "batch_labeled": 2},
)
control = Control()
for event in train(request, control):
    if isinstance(event, StepDone):
        control.send(Pause())  # the run is saved first
    elif isinstance(event, Paused):
        control.send(Resume())
        control.send(Stop())
    if isinstance(event, Finished):
        print("Stopped:", event.stopped, "after", event.facts["steps"], "steps")

for event in train(request.model_copy(update={"resume": True})):
    if isinstance(event, Finished):
        print("Done:", event.facts["steps"], "steps")
