"""Look inside a run: what its method sees of an image, as pictures with a report.

A real training takes minutes; the few steps here only show that it works.
"""

import sys
import tempfile
from pathlib import Path

from napari_semiseg import InspectRequest, TrainRequest, inspect, train
from napari_semiseg.io.overlay import write_png
from napari_semiseg.samples import immunohistochemistry

out = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
write_png(out / "colon.png", immunohistochemistry()[:192, :192])

small = {"crop": 64, "batch_unlabeled": 2}  # leave this out for a real training
list(train(TrainRequest(images=[str(out / "colon.png")], out=str(out / "run"), steps=4, set=small)))

for event in inspect(InspectRequest(run=str(out / "run"), out=str(out / "inside"))):
    print(event)
print(f"The report is {out / 'inside' / 'report.html'}")
