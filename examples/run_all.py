"""Train, predict and export a folder of images in one call, with a bar of dots.

The same as `napari-semiseg run images/ --labels labels/ --out results/ --to csv,png`.
"""

import sys
import tempfile
from pathlib import Path

from napari_semiseg import RunRequest, run
from napari_semiseg.events import StepDone, Warned, Written
from napari_semiseg.synthetic import SyntheticSlide

out = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
for folder in ("images", "labels"):
    (out / folder).mkdir(parents=True)
for seed in (1, 2):
    slide = SyntheticSlide((256, 256), seed=seed)
    slide.write(out / "images" / f"slide-{seed}.ome.tif")
    slide.write_labels(out / "labels" / f"slide-{seed}.tif")

request = RunRequest(
    images=[str(out / "images")],
    labels=str(out / "labels"),
    out=str(out / "results"),
    to=("csv", "png"),
    method="supervised",
    steps=6,  # leave these two out for a real training, or say minutes=10
    set={"crop": 64, "batch_labeled": 2},
)
for event in run(request):
    if isinstance(event, StepDone):
        print(".", end="", flush=True)
    elif isinstance(event, Warned):
        print("\n", event.message)
    elif isinstance(event, Written):
        print("\n", event.what, event.path)
